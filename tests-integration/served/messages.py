"""What the tests and the code in servers tell each other, so that neither has to guess when the other is ready."""

from __future__ import annotations

import json
import os
from typing import Any

import redis
import redis.asyncio

#: In seconds: how long to wait for what never comes in a test that passes.
PATIENCE = 30


def tell(subject: str, message: Any = None) -> None:
    """Say something about a subject, to whoever asks for it first."""
    with redis.Redis.from_url(os.environ["SERVED_MESSAGES"]) as client:
        client.rpush(_key(subject), json.dumps(message))


def hear(subject: str) -> Any:
    """Wait until something is told about a subject, and return it; each message is heard once.

    Raises:
        TimeoutError: nothing was told.
    """
    with redis.Redis.from_url(os.environ["SERVED_MESSAGES"], socket_timeout=None) as client:
        return _heard(subject, client.blpop([_key(subject)], PATIENCE))


async def hear_async(subject: str) -> Any:
    """As `hear`, while the event loop goes on."""
    async with redis.asyncio.Redis.from_url(os.environ["SERVED_MESSAGES"], socket_timeout=None) as client:
        return _heard(subject, await client.blpop([_key(subject)], PATIENCE))


def _key(subject: str) -> str:
    return os.environ["SERVED_MESSAGES_PREFIX"] + subject


def _heard(subject: str, item: Any) -> Any:
    if item is None:
        raise TimeoutError(f"nobody has told about {subject!r}")
    return json.loads(item[1])


def told(subject: str) -> bool:
    """Whether anything was told about a subject that nobody has heard."""
    with redis.Redis.from_url(os.environ["SERVED_MESSAGES"]) as client:
        return bool(client.exists(_key(subject)))
