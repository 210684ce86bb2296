"""What lines of the log that are about an intent have as `extra`: the same as those that core writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airlock.ext import Event


def facts_of(event: Event) -> dict[str, Any]:
    """For formatters of structured logs. The names are part of the documentation."""
    return {
        "airlock_event": event.kind,
        "intent_id": event.intent.id,
        "task": event.intent.full_name,
        "reason": event.reason,
        "origin": event.intent.origin,
        "scope": event.scope,
    }
