"""Tasks that print what they do."""

import sys

import airlock
from airlock.integrations.executors.django_tasks import airlock_task

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
