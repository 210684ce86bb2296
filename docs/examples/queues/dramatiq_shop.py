import os

import airlock
import dramatiq
from airlock.integrations.executors.dramatiq import AirlockActor
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
dramatiq.set_broker(broker)

mailbox: list[str] = []  # stands for the mail server


@dramatiq.actor
def send_confirmation(order_id):
    mailbox.append(f"We have received order {order_id}.")


@dramatiq.actor(actor_class=AirlockActor, max_retries=3, min_backoff=1)
def process_order(order_id):
    airlock.enqueue(send_confirmation, order_id)
    charge(order_id)


attempts: list[int] = []


def charge(order_id):
    """Fails at the first attempt, as charges do."""
    attempts.append(order_id)
    if attempts == [order_id]:
        raise ConnectionError("the bank did not answer")
