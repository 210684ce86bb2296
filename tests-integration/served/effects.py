"""The effects of requests: tasks in a queue that no worker consumes, so that the tests count them there."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from celery import Celery

import airlock

if TYPE_CHECKING:
    from django.http import HttpRequest

app = Celery("served")
app.conf.update(json.loads(os.environ["AIRLOCK_TEST_CELERY"]))
# Whoever publishes to RabbitMQ then waits until it is there.
app.conf.broker_transport_options["confirm_publish"] = True


@app.task(ignore_result=True)
def effect(name: str) -> None:
    """Have a name."""


def enqueue(request: HttpRequest, name: str) -> None:
    """Enqueue an effect for the queue that the request names."""
    airlock.enqueue(effect, name, _dispatch_options={"queue": request.GET["queue"]})
