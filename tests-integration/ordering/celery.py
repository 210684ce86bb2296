"""The Celery app, and the witness of what is published."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import before_task_publish

#: How long (seconds) to wait for what the tests will do; only failing tests wait that long.
PATIENCE = 60

app = Celery("ordering")
app.conf.update(json.loads(os.environ["AIRLOCK_TEST_CELERY"]))


@app.task
def confirm(number: str) -> None:
    """What orders are followed by. Most tests let no worker run it, and look at the messages."""


@before_task_publish.connect
def witness(headers: dict[str, Any], body: Any, **_: Any) -> None:
    """Note in the message what others see in the database when it is published."""
    _, kwargs, _ = body
    headers["order_is_committed"] = is_seen_by_others(kwargs["number"])
    if meanwhile := headers.get("meanwhile"):
        headers["was_let_go_on"] = wait_for(meanwhile)


def is_seen_by_others(number: str) -> bool:
    """Whether another connection sees an order: whether it was committed."""
    from django.db import connection

    from ordering.models import Order

    seen: list[bool] = []

    def look() -> None:
        seen.append(Order.objects.filter(number=number).exists())
        connection.close()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return seen[0]


def wait_for(meanwhile: str) -> bool:
    """Tell the test, by a file, that publishing has begun, and wait for the other file by which it is let go on."""
    Path(f"{meanwhile}.begun").touch()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if Path(f"{meanwhile}.go_on").exists():
            return True
        time.sleep(0.01)
    return False
