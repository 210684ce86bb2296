"""Actors of Dramatiq."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO, CurrentMessage
from telling import attempt, tell

import airlock
from airlock.integrations.executors.dramatiq import AirlockActor

broker = RedisBroker(url=os.environ["AIRLOCK_TEST_QUEUES"])
broker.add_middleware(AsyncIO())
broker.add_middleware(CurrentMessage())
dramatiq.set_broker(broker)


@dramatiq.actor
def notify(text, urgent=False):
    tell("notify", CurrentMessage.get_current_message().message_id, text)


@dramatiq.actor(priority=100)
def last():
    tell("last")


@dramatiq.actor(actor_class=AirlockActor, max_retries=0, min_backoff=1, max_backoff=1)
def order(number, attempts):
    this = attempt(number)
    airlock.enqueue(notify, f"order {number}, attempt {this}")
    if this < attempts:
        raise ConnectionError("try again")
    airlock.enqueue(last)


@dramatiq.actor(actor_class=AirlockActor, max_retries=2, min_backoff=1, max_backoff=1)
async def order_async(number, attempts):
    this = attempt(number)
    airlock.enqueue(notify, f"order {number}, attempt {this}")
    if this < attempts:
        raise ConnectionError("try again")
    airlock.enqueue(last)


def break_down(number):
    if attempt(f"broken {number}") == 1:
        raise ConnectionError("the effect could not be had")


@dramatiq.actor(actor_class=AirlockActor, max_retries=2, min_backoff=1, max_backoff=1)
def order_whose_effect_fails(number):
    """Its first run succeeds, and cannot have its effects."""
    airlock.enqueue(break_down, number)
    airlock.enqueue(notify, f"order {number}, attempt {attempt(number)}")
    airlock.enqueue(last)
