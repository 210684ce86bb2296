import os

import airlock
from airlock.integrations.executors.rq import RQExecutor
from redis import Redis
from rq import Queue

connection = Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
executor = RQExecutor(
    Queue("default", connection=connection),
    Queue("mail", connection=connection),
)
airlock.configure(executor=executor)

mailbox: list[str] = []  # stands for the mail server


def send_confirmation(order_id):
    mailbox.append(f"We have received order {order_id}.")


def process_order(order_id):
    airlock.enqueue(send_confirmation, order_id, _dispatch_options={"queue": "mail"})
    charge(order_id)


attempts: list[int] = []


def charge(order_id):
    """Fails at the first attempt, as charges do."""
    attempts.append(order_id)
    if attempts == [order_id]:
        raise ConnectionError("the bank did not answer")
