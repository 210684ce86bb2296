"""How the journal learns what became of an intent: from the scope it was in, when that ends.

`AIRLOCK = {"SCOPE": "journal.scope.JournaledScope"}` puts these around requests, tasks and commands alike.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from airlock.integrations.django import DjangoScope
from celery import current_task
from django.conf import settings

from journal.models import EndedScope, SeenIntent

if TYPE_CHECKING:
    from collections.abc import Callable

    from airlock import Intent
    from django.http import HttpRequest, HttpResponse


class JournaledScope(DjangoScope):
    """A `DjangoScope` that is written down when it ends."""

    #: The request it is around, if any, and the status of the response.
    request: HttpRequest | None = None
    status: int | None = None

    def flush(self) -> list[Intent]:
        dispatched = super().flush()
        write_down(self)
        return dispatched

    def discard(self) -> list[Intent]:
        dropped = super().discard()
        write_down(self)
        return dropped


def tell_scope_of_request(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware that goes inside of `AirlockMiddleware`: a scope does not know by itself what it is around."""

    def middleware(request: HttpRequest) -> HttpResponse:
        scope = request.airlock_scope
        scope.request = request
        response = get_response(request)
        scope.status = response.status_code
        return response

    return middleware


def write_down(scope: JournaledScope) -> None:
    if scope.request is not None:
        if scope.request.method == "GET" and not scope.intents:
            return  # somebody looks at a page
        entry = EndedScope(around=f"{scope.request.method} {scope.request.path}", status=scope.status)
    elif current_task:
        entry = EndedScope(around=f"the task {current_task.name}", task_id=current_task.request.id)
    else:
        entry = EndedScope(around=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    entry.save()
    SeenIntent.objects.bulk_create(
        SeenIntent(
            scope=entry,
            intent_id=intent.id,
            name=intent.name,
            text=str(intent),
            origin=intent.origin.removeprefix(f"{settings.BASE_DIR}/"),
            outcome=outcome(scope, intent),
        )
        for intent in scope.intents
    )


def outcome(scope: JournaledScope, intent: Intent) -> str:
    """What became of an intent, and why."""
    if scope.is_discarded:
        return f"discarded: status {scope.status}" if scope.request else "discarded: this run did not succeed"
    if intent in scope.dispatched_intents:
        return "dispatched"
    if intent in scope.rolled_back_intents:
        return "dropped: its transaction was rolled back"
    if intent in scope.undispatched_intents:
        return "not dispatched: the executor failed"
    return "dropped: a policy did not let it pass"
