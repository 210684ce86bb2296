"""Tasks of Django-Q2."""

from telling import attempt, tell

import airlock
from airlock.integrations.executors.django_q import airlock_task


def notify(text, urgent=False):
    tell("notify", text)


def last():
    tell("last")


@airlock_task
def order(number, attempts):
    this = attempt(number)
    airlock.enqueue(notify, f"order {number}, attempt {this}")
    if this < attempts:
        raise ConnectionError("try again")
    airlock.enqueue(last)
