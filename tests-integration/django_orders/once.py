"""The same project with an outbox, and a task whose runs are effective once: `celery -A django_orders.once`."""

from __future__ import annotations

import json
import os
import signal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.signals import task_success
from django.db import transaction
from django.utils import timezone

import airlock
from airlock.integrations.outbox import OnceTask
from celery_orders import Signals
from django_orders.celery import app

if TYPE_CHECKING:
    from celery import Task

handshake = Signals(Path(json.loads(os.environ["AIRLOCK_TEST_CELERY"])["signals"]))
app.conf.imports = ["airlock.integrations.outbox.tasks"]


def die_once(task: Task[..., Any]) -> None:
    if handshake.first_time(task.request.id, "died"):
        os.kill(os.getpid(), signal.SIGKILL)


# With its result stored, Celery would know by itself that it has succeeded.
@app.task(name="once", base=OnceTask, bind=True, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def once(self: Task[..., Any], effects: str, how: str) -> None:
    from django.contrib.sessions.models import Session

    Session.objects.create(session_key=uuid.uuid4().hex, session_data=self.request.id, expire_date=timezone.now())
    airlock.enqueue(app.tasks["notify"], how, _dispatch_options={"queue": effects})
    if how == "is killed in its transaction":
        die_once(self)
    if how == "is killed after its commit":
        transaction.on_commit(lambda: die_once(self))


@task_success.connect(weak=False)
def succeeded(sender: Task[..., Any], **_: Any) -> None:
    # Its effects are in the broker, and its message is not acknowledged.
    if "is killed when it has succeeded" in sender.request.args:
        die_once(sender)


@app.task(name="runs")
def runs(task_id: str) -> list[int]:
    """How many runs of a task have been effective, and how many of them the database remembers."""
    from django.contrib.sessions.models import Session

    from airlock.integrations.outbox.models import InboxEntry

    return [Session.objects.filter(session_data=task_id).count(), InboxEntry.objects.filter(id=task_id).count()]
