"""Tasks of Huey."""

import os

from huey import RedisHuey, RetryTask
from telling import attempt, tell

import airlock
from airlock.integrations.executors.huey import airlock_task

huey = RedisHuey(url=os.environ["AIRLOCK_TEST_QUEUES"])


@huey.task(context=True)
def notify(text, *, urgent=False, task):
    tell("notify", task.id, text)


@huey.task()
def last():
    tell("last")


@huey.task()
@airlock_task
def order(number, attempts):
    this = attempt(number)
    airlock.enqueue(notify, f"order {number}, attempt {this}")
    if this < attempts:
        raise ConnectionError("try again")
    airlock.enqueue(last)


@huey.task()
@airlock_task
def order_that_asks_for_a_retry(number, attempts):
    this = attempt(number)
    airlock.enqueue(notify, f"order {number}, attempt {this}")
    if this < attempts:
        raise RetryTask
    airlock.enqueue(last)
