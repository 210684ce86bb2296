"""What happens to an `enqueue` outside of any scope in a Django project."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import airlock
from airlock.ext import when_no_scope
from airlock.integrations.django._transactions import callbacks_wait_in_test_case

if TYPE_CHECKING:
    from airlock import Scope

logger = logging.getLogger("airlock")


def _scope_or_advice(task: str) -> Scope:
    if callbacks_wait_in_test_case():
        # `on_commit(lambda: enqueue(...))` runs in the scope of its request. In a `TestCase` it runs when
        # `captureOnCommitCallbacks` says so, and the request is over.
        logger.warning(
            "%s was enqueued outside of any scope, and is dispatched because on_commit() callbacks wait in this "
            "TestCase. If it was not enqueued by one of them, it will raise NoScopeError in production.",
            task,
        )
        return airlock.scope()
    raise airlock.NoScopeError(
        f"{task} was enqueued outside of any scope, so nothing decides whether it happens. In a view: add "
        '"airlock.integrations.django.AirlockMiddleware" to MIDDLEWARE. In a Celery task: use AirlockTask. In a '
        "management command: decorate `handle` with @airlock_command. Anywhere else: put `with airlock.scope():` "
        "around the code that decides."
    )


when_no_scope(_scope_or_advice)
