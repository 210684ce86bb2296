"""Records what becomes of each intent.

`AIRLOCK = {"SCOPE": "journal.scope.JournaledScope"}` puts this scope around requests, commands and tasks alike.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from airlock import AllowAll
from airlock.integrations.outbox import OutboxScope
from airlock.integrations.outbox.models import Entry
from celery import current_task
from django.conf import settings
from django.db import connection

from journal.models import EndedScope, Outcome, RecordedIntent
from shop.payments import Card

if TYPE_CHECKING:
    from collections.abc import Callable

    from airlock import Intent
    from django.http import HttpRequest, HttpResponse


class JournaledScope(OutboxScope):
    """An `OutboxScope` that is recorded when it ends."""

    #: The request it is around, if any, and the status of the response.
    request: HttpRequest | None = None
    status: int | None = None

    def flush(self) -> list[Intent]:
        if self.intents and os.environ.get("SHOP_KILLED_AFTER_COMMIT"):
            # One of the demo's web servers ends like this: the order is committed, and nothing published yet.
            record(self)
            os.kill(os.getpid(), signal.SIGKILL)
        dispatched = super().flush()
        record(self)
        return dispatched

    def discard(self) -> list[Intent]:
        discarded = super().discard()
        record(self)
        return discarded


class NoteTransactions(AllowAll):
    """A policy that allows everything, and notes what is enqueued in a transaction."""

    #: The ids of those intents, until their scope is recorded.
    ids: ClassVar[set[str]] = set()

    def on_enqueue(self, intent: Intent) -> None:
        if connection.in_atomic_block:
            self.ids.add(intent.id)


def note_request(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware, listed after `AirlockMiddleware`, that tells the scope of its request and the response's status."""

    def middleware(request: HttpRequest) -> HttpResponse:
        scope = request.airlock_scope
        scope.request = request
        response = get_response(request)
        scope.status = response.status_code
        return response

    return middleware


def record(scope: JournaledScope) -> None:
    request = scope.request
    if request is not None:
        if request.method == "GET" and not scope.intents:
            return  # somebody only looked at a page
        entry = EndedScope(around=f"{request.method} {request.path}", status=scope.status)
        entry.details = details_of(request)
        entry.why = f"status {scope.status}"
    elif current_task:
        run = current_task.request
        entry = EndedScope(around=f"{current_task.name.rpartition('.')[2]}, run {run.retries + 1}", task_id=run.id)
        entry.why = "the run did not succeed" if scope.is_discarded else "the run succeeded"
    else:
        entry = EndedScope(around=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))
        entry.why = "the command failed" if scope.is_discarded else "the command succeeded"
    entry.flushed = not scope.is_discarded
    entry.save()
    for intent in scope.intents:
        outcome, why = outcome_of(intent, scope, entry.why)
        RecordedIntent.objects.create(
            scope=entry,
            intent_id=intent.id,
            name=intent.name,
            text=str(intent),
            origin=intent.origin.removeprefix(f"{settings.BASE_DIR}/"),
            in_transaction=intent.id in NoteTransactions.ids,
            outcome=outcome,
            why=why,
        )
        NoteTransactions.ids.discard(intent.id)


def details_of(request: HttpRequest) -> str:
    form = request.POST
    card = dict(Card.choices).get(form.get("card"), "none")
    details = f"quantity {form.get('quantity')}, card {card}"
    return f"{details}, only a preview" if "preview" in form else details


def outcome_of(intent: Intent, scope: JournaledScope, why: str) -> tuple[Outcome, str]:
    """What became of an intent, and why. The argument `why` is the reason for the whole scope."""
    if scope.is_discarded:
        return Outcome.DISCARDED, why
    if intent.id in NoteTransactions.ids:
        why += ", committed"
    if Entry.objects.filter(pk=intent.id).exists():
        return Outcome.LEFT_TO_RELAY, why
    if intent in scope.dispatched_intents:
        return Outcome.DISPATCHED, why
    if intent in scope.rolled_back_intents:
        return Outcome.ROLLED_BACK, "with its transaction"
    if intent in scope.undispatched_intents:
        return Outcome.FAILED, "the executor raised an error"
    return Outcome.DROPPED, "by a policy"
