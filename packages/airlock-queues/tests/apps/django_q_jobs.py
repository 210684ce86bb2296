"""Tasks of Django-Q2."""

import airlock
from airlock.integrations.executors.django_q import airlock_task
from telling import attempt, tell


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
