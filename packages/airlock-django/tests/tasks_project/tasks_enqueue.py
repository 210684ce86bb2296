"""Enqueue some tasks, in a new database."""

import django
from django.core.management import call_command
from django.db import transaction

import airlock

django.setup()
call_command("migrate", verbosity=0)

import tasks_jobs as jobs  # noqa: E402 - the back end has models

from airlock.integrations.executors.django_tasks import django_tasks_executor  # noqa: E402

with airlock.scope(executor=django_tasks_executor):
    with transaction.atomic():
        airlock.enqueue(jobs.order, 1, fails=True)
        airlock.enqueue(jobs.order, 2, fails=False)
    airlock.enqueue(jobs.order_async, 3, fails=True)
    airlock.enqueue(jobs.order_async, 4, fails=False)
    airlock.enqueue(jobs.order_with_context, 5)
