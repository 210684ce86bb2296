"""What orders are followed by: a line in a journal, which the tests read. And files by which server and test wait."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from pathlib import Path

from django.db import connection

import airlock
from ordering.middleware import current_request_id
from ordering.models import Order

DIRECTORY = Path(os.environ.get("ORDERING_DIRECTORY", "."))


def confirm(number: str, what: str = "order") -> None:
    entry = {
        "number": number,
        "what": what,
        "is_committed": is_seen_by_others(number),
        "request_id": current_request_id.get(),
        "on_event_loop": asyncio._get_running_loop() is not None,
    }
    with (DIRECTORY / "journal").open("a") as journal:
        journal.write(json.dumps(entry) + "\n")


def confirm_slowly(number: str, what: str = "order") -> None:
    tell(f"{number}.dispatching")
    wait_for(f"{number}.go-on")
    confirm(number, what)


def enqueue(number: str, what: str = "order") -> None:
    airlock.enqueue(confirm, number, what, _name=f"confirm {number} {what}", _origin="views.py:7")


def place(number: str, what: str = "order", **fields: int) -> None:
    Order.objects.create(number=number, **fields)
    enqueue(number, what)


def is_seen_by_others(number: str) -> bool:
    """Whether another connection sees an order: whether it was committed."""
    seen: list[bool] = []

    def look() -> None:
        seen.append(Order.objects.filter(number=number).exists())
        connection.close()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return seen[0]


def tell(what: str) -> None:
    (DIRECTORY / what).touch()


def wait_for(what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not (DIRECTORY / what).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)


async def wait_for_async(what: str) -> None:
    while not (DIRECTORY / what).exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
