"""Jobs of RQ."""

from rq import Queue, Retry, get_current_job
from telling import attempt, client, tell

import airlock
from airlock.integrations.executors.rq import RQExecutor

default = Queue(connection=client)
low = Queue("low", connection=client)
executor = RQExecutor(default, low)


def notify(text, urgent=False):
    tell("notify", get_current_job().id, text)


def last():
    tell("last")


def order(number, attempts):
    this = attempt(number)
    airlock.enqueue(notify, f"order {number}, attempt {this}")
    if this < attempts:
        raise ConnectionError("try again")
    airlock.enqueue(last)


def order_that_returns_retry(number, attempts):
    this = attempt(number)
    airlock.enqueue(notify, f"order {number}, attempt {this}")
    if this < attempts:
        return Retry(max=attempts)
    airlock.enqueue(last)
    return None
