"""What the log says about intents that did not go out."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airlock._intent import Intent

logger = logging.getLogger("airlock")

#: How many different names one line has at most.
_MOST_NAMES = 10


def tell_not_dispatched(scope_name: str, reasons: Mapping[str, Sequence[Intent]]) -> None:
    """Say in one line which intents of a scope were not dispatched, and why."""
    if not any(reasons.values()) or not logger.isEnabledFor(logging.INFO):
        return
    count = sum(map(len, reasons.values()))
    why = "; ".join(f"{_names(intents)}: {reason}" for reason, intents in reasons.items() if intents)
    logger.info("%d of the intents of a %s will not be dispatched. %s", count, scope_name, why)


def _names(intents: Sequence[Intent]) -> str:
    counted = Counter(intent.name for intent in intents)
    names = [name if count == 1 else f"{name} ({count} times)" for name, count in counted.most_common(_MOST_NAMES)]
    if len(counted) > _MOST_NAMES:
        names.append(f"{len(counted) - _MOST_NAMES} more")
    return ", ".join(names)


def tell_failed(intent: Intent, error: BaseException, is_unknown: bool) -> None:
    """Say that an intent should have been dispatched and was not, or perhaps not."""
    logger.error(
        "%s (id %s, enqueued at %s) %s",
        intent.name,
        intent.id,
        where(intent),
        "may or may not have been dispatched: nobody can tell" if is_unknown else "was not dispatched",
        exc_info=error,
    )


def where(intent: Intent) -> str:
    return intent.origin or "a place that was not recorded: turn on capture_origin (CAPTURE_ORIGIN in Django) to see it"
