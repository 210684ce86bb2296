"""How jobs tell what they have done, and what is asked of them in all queues."""

import json
import os

import redis

client = redis.Redis.from_url(os.environ["AIRLOCK_TEST_QUEUES"])


def tell(*what):
    client.rpush("told", json.dumps(what))


def attempt(number):
    """Which attempt this is of the order with this number."""
    return client.incr(f"attempts:{number}")
