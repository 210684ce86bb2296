"""Breadcrumbs of what becomes of intents, for Sentry.

    import sentry_sdk
    from airlock.integrations.sentry import AirlockIntegration

    sentry_sdk.init(dsn=..., integrations=[AirlockIntegration()])

It needs `airlock-core[sentry]`.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import sentry_sdk
from sentry_sdk.integrations import Integration

from airlock.ext import subscribe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airlock.ext import Event

__all__ = ["AirlockIntegration"]

#: The ends of an intent that are told, as important as they are for the log.
_LEVELS = {
    "dispatched": "debug",
    "relayed": "debug",
    "stored": "debug",
    "skipped": "info",
    "dropped": "info",
    "discarded": "info",
    "rolled_back": "info",
    "failed": "error",
    "unknown": "error",
    "parked": "error",
}
#: How many breadcrumbs there are at most about what happens at the same time. Sentry keeps the last 100 of all.
_MOST = 20


class AirlockIntegration(Integration):
    """Leaves a breadcrumb when an intent ends: with its task, its id, its scope and the reason, without its arguments.

    Of all that ends at the same time, as in one flush, the first 20 have one, and another one says how many more there
    were.
    """

    identifier = "airlock"

    @staticmethod
    def setup_once() -> None:
        """Begin to listen. Sentry calls it."""
        subscribe(_leave_breadcrumbs)


def _leave_breadcrumbs(events: Sequence[Event]) -> None:
    if sentry_sdk.get_client().get_integration(AirlockIntegration) is None:
        return  # Sentry was set up again, without it
    for kind, group in groupby(events, lambda event: event.kind):
        if kind not in _LEVELS:
            continue
        together = list(group)
        for event in together[:_MOST]:
            intent = event.intent
            data = {"id": intent.id, "task": intent.full_name, "reason": event.reason, "scope": event.scope}
            _leave(f"{kind}: {intent.name}", _LEVELS[kind], data)
        if len(together) > _MOST:
            _leave(f"{kind}: {len(together) - _MOST} more", _LEVELS[kind], {"scope": together[0].scope})


def _leave(message: str, level: str, data: dict[str, str | None]) -> None:
    sentry_sdk.add_breadcrumb(category="airlock", message=message, level=level, data=data)
