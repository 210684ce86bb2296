"""Listens to what becomes of each intent, and records it when the request, command or run around it is over."""

from __future__ import annotations

import atexit
import functools
import os
import signal
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airlock.integrations.outbox.models import Entry
from django.conf import settings
from django.db import connection

from journal.models import EndedScope, Outcome, RecordedIntent
from shop.payments import Card

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airlock import Intent
    from airlock.ext import Event
    from django.http import HttpRequest, HttpResponse

OUTCOMES = {
    "dispatched": Outcome.DISPATCHED,
    "stored": Outcome.LEFT_TO_RELAY,
    "discarded": Outcome.DISCARDED,
    "rolled_back": Outcome.ROLLED_BACK,
    "dropped": Outcome.DROPPED,
    "failed": Outcome.FAILED,
    "unknown": Outcome.FAILED,
}


class Watch:
    """What is told of the intents of one request, command or run of a task."""

    def __init__(self, entry: EndedScope) -> None:
        self.entry = entry
        #: The intents, each with the last event, and with whether it was enqueued in a transaction.
        self.ends: dict[Intent, Event] = {}
        self.in_transaction: set[Intent] = set()

    def note(self, event: Event) -> None:
        if event.kind == "enqueued" and connection.in_atomic_block:
            self.in_transaction.add(event.intent)
        self.ends[event.intent] = event

    @property
    def is_discarded(self) -> bool:
        return any(event.kind == "discarded" for event in self.ends.values())

    def save(self, why: str) -> None:
        """Record it. `why` is the reason for all that has no reason of its own."""
        entry = self.entry
        entry.why = why
        entry.flushed = not self.is_discarded and (entry.status or 200) < 400
        entry.save()
        for intent, event in self.ends.items():
            outcome = outcome_of(event)
            in_transaction = intent in self.in_transaction
            RecordedIntent.objects.create(
                scope=entry,
                intent_id=intent.id,
                name=intent.name,
                text=str(intent),
                origin=intent.origin.removeprefix(f"{settings.BASE_DIR}/"),
                in_transaction=in_transaction,
                outcome=outcome,
                why=why_of(event, outcome, f"{why}, committed" if in_transaction else why),
            )


def outcome_of(event: Event) -> Outcome:
    if event.kind in OUTCOMES:
        return OUTCOMES[event.kind]
    # Nothing was told of its end: its process is about to be killed.
    return Outcome.LEFT_TO_RELAY if Entry.objects.filter(pk=event.intent.id).exists() else Outcome.FAILED


def why_of(event: Event, outcome: Outcome, why: str) -> str:
    if outcome in (Outcome.ROLLED_BACK, Outcome.DROPPED, Outcome.FAILED):
        return (event.reason or "nobody knows").removeprefix(f"{outcome} ")
    return why.removesuffix(", committed") if outcome is Outcome.DISCARDED else why


#: What is watched around the running code.
current: ContextVar[Watch | None] = ContextVar("watch", default=None)


def listen(events: Sequence[Event]) -> None:
    """Called by Airlock."""
    for event in events:
        watch = current.get() or watch_command()
        if event.kind == "enqueued" or event.intent in watch.ends:
            watch.note(event)


@functools.cache
def watch_command() -> Watch:
    """For what is enqueued outside of requests and runs: it is recorded when the process ends."""
    watch = Watch(EndedScope(around=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])))
    atexit.register(save_command, watch)
    return watch


def save_command(watch: Watch) -> None:
    if watch.ends:  # a relay enqueues nothing
        watch.save("the command failed" if watch.is_discarded else "the command succeeded")


def watch_request(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware, listed before `AirlockMiddleware`."""

    def middleware(request: HttpRequest) -> HttpResponse:
        watch = Watch(EndedScope(around=f"{request.method} {request.path}", details=details_of(request)))
        token = current.set(watch)
        try:
            response = get_response(request)
        finally:
            current.reset(token)
        if request.method != "GET" or watch.ends:  # or else somebody only looked at a page
            watch.entry.status = response.status_code
            watch.save(f"status {response.status_code}")
        return response

    return middleware


def die_after_commit(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware, listed after `AirlockMiddleware`: the order is committed, and nothing published yet."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        watch = current.get()
        if os.environ.get("SHOP_KILLED_AFTER_COMMIT") and watch.ends:
            watch.entry.status = response.status_code
            watch.save(f"status {response.status_code}")
            os.kill(os.getpid(), signal.SIGKILL)
        return response

    return middleware


def details_of(request: HttpRequest) -> str:
    if request.method == "GET":
        return ""
    form = request.POST
    card = dict(Card.choices).get(form.get("card"), "none")
    details = f"quantity {form.get('quantity')}, card {card}"
    return f"{details}, only a preview" if "preview" in form else details


def begin_run(task_id: str, task: Any, **_: Any) -> None:
    """Called by Celery before each run of a task."""
    run = f"{task.name.rpartition('.')[2]}, run {task.request.retries + 1}"
    current.set(Watch(EndedScope(around=run, task_id=task_id)))


def end_run(**_: Any) -> None:
    """Called by Celery after each run."""
    watch = current.get()
    current.set(None)
    if watch is not None and watch.ends:
        watch.save("the run did not succeed" if watch.is_discarded else "the run succeeded")
