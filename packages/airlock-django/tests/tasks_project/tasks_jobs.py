"""Tasks that print what they do, and a program that enqueues them."""

import sys

import django
from django.core.management import call_command
from django.db import transaction

import airlock
from airlock.integrations.executors.django_tasks import airlock_task, django_tasks_executor

try:
    from django.tasks import task
except ModuleNotFoundError:
    from django_tasks import task


@task
def notify(text):
    sys.stdout.write(f"notify {text}\n")


@task
@airlock_task
def order(number, fails):
    airlock.enqueue(notify, f"order {number}")
    if fails:
        raise ConnectionError("not now")


@task
@airlock_task
async def order_async(number, fails):
    airlock.enqueue(notify, f"order {number}")
    if fails:
        raise ConnectionError("not now")


@task(takes_context=True)
@airlock_task
def order_with_context(context, number):
    airlock.enqueue(notify, f"order {number}, attempt {context.attempt}")


if __name__ == "__main__":
    # The tasks belong to the module as a worker imports it.
    import tasks_jobs as jobs

    django.setup()
    call_command("migrate", verbosity=0)
    with airlock.scope(executor=django_tasks_executor):
        with transaction.atomic():
            airlock.enqueue(jobs.order, 1, fails=True)
            airlock.enqueue(jobs.order, 2, fails=False)
        airlock.enqueue(jobs.order_async, 3, fails=True)
        airlock.enqueue(jobs.order_async, 4, fails=False)
        airlock.enqueue(jobs.order_with_context, 5)
