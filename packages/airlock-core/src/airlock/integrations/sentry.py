"""Breadcrumbs of what becomes of intents, for Sentry.

    import sentry_sdk
    from airlock.integrations.sentry import AirlockIntegration

    sentry_sdk.init(dsn=..., integrations=[AirlockIntegration()])

It needs `airlock-core[sentry]`.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import sentry_sdk
from sentry_sdk.integrations import Integration
from sentry_sdk.scope import add_global_event_processor

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
    were. What Sentry's logging integration has of the log of Airlock about these ends is left out: it says the same.
    """

    identifier = "airlock"

    @staticmethod
    def setup_once() -> None:
        """Begin to listen. Sentry calls it."""
        subscribe(_leave_breadcrumbs)
        add_global_event_processor(_without_lines)


def _is_on() -> bool:
    """Whether Sentry was not set up again, without the integration."""
    return sentry_sdk.get_client().get_integration(AirlockIntegration) is not None


def _without_lines(event: Any, hint: Any) -> Any:
    """Leave out of an event the breadcrumbs that are lines of the log and say the same as ours."""
    breadcrumbs = event.get("breadcrumbs")
    if isinstance(breadcrumbs, dict) and _is_on():
        breadcrumbs["values"] = [crumb for crumb in breadcrumbs["values"] if not _is_line_about_end(crumb)]
    return event


def _is_line_about_end(crumb: dict[str, Any]) -> bool:
    is_line = crumb.get("type") == "log" and crumb.get("category") == "airlock"
    return is_line and crumb["data"].get("airlock_event") in {"withheld", *_LEVELS}


def _leave_breadcrumbs(events: Sequence[Event]) -> None:
    if not _is_on():
        return
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
