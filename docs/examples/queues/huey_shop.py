import os

import airlock
from airlock.integrations.executors.huey import airlock_task
from huey import RedisHuey

huey = RedisHuey(url=os.environ.get("REDIS_URL", "redis://localhost:6379/0"))

mailbox: list[str] = []  # stands for the mail server


@huey.task()
def send_confirmation(order_id):
    mailbox.append(f"We have received order {order_id}.")


@huey.task(retries=3)
@airlock_task  # below, right above the function
def process_order(order_id):
    airlock.enqueue(send_confirmation, order_id)
    charge(order_id)


attempts: list[int] = []


def charge(order_id):
    """Fails at the first attempt, as charges do."""
    attempts.append(order_id)
    if attempts == [order_id]:
        raise ConnectionError("the bank did not answer")
