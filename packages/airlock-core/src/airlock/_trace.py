"""What the log says about intents: above DEBUG only what did not go as it was asked for, and never their arguments."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from airlock._configuration import get_configuration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airlock._events import Event
    from airlock._intent import Intent

logger = logging.getLogger("airlock")

#: How many different names one line has at most.
_MOST_NAMES = 10

#: What is told in one line for all that happened at the same time.
_WITHHELD = frozenset({"dropped", "discarded", "rolled_back"})
#: What has a line of its own, and its level.
_SINGLE = {"parked": logging.ERROR, "skipped": logging.INFO}
#: What is of interest above DEBUG.
_NOTABLE = {"failed", "unknown", *_WITHHELD, *_SINGLE}


def log(events: Sequence[Event]) -> None:
    """Write down what has happened, as far as the level of the logger lets it.

    Every line has `extra`: `airlock_event`, `intent_id`, `task`, `reason`, `origin` and `scope`. The line for what a
    scope has withheld has `airlock_event="withheld"`, `scope`, and `intents`, a list of such dictionaries.
    """
    if not logger.isEnabledFor(logging.DEBUG):
        events = [event for event in events if event[0] in _NOTABLE]
    if not events:
        return
    for kind, together in groupby(events, attrgetter("kind")):
        if kind == "failed" or kind == "unknown":
            _log_failures(list(together))
        elif kind in _SINGLE:
            for event in together:
                words = (event.intent.name, event.intent.id, kind, event.reason)
                logger.log(_SINGLE[kind], "%s (id %s) was %s: %s", *words, extra=_facts(event))
        elif logger.isEnabledFor(logging.DEBUG):
            for event in together:
                because = f", because: {event.reason}" if event.reason else ""
                logger.debug(
                    "%s: %s (id %s)%s", kind, shown(event.intent), event.intent.id, because, extra=_facts(event)
                )
    withheld = [event for event in events if event.kind in _WITHHELD]
    if withheld and logger.isEnabledFor(logging.INFO):
        _log_withheld(withheld)


def _log_withheld(events: Sequence[Event]) -> None:
    reasons: dict[str | None, list[Intent]] = {}
    for event in events:
        reasons.setdefault(event.reason, []).append(event.intent)
    why = "; ".join(f"{_names(intents)}: {reason}" for reason, intents in reasons.items())
    scope = events[0].scope
    kind_of_scope = scope.rpartition(" ")[0]
    article = "an" if kind_of_scope[:1] in {*"AEIOU"} else "a"
    extra = {"airlock_event": "withheld", "scope": scope, "intents": [_facts(event) for event in events]}
    words = (len(events), article, kind_of_scope, why)
    logger.info("%d of the intents of %s %s will not be dispatched. %s", *words, extra=extra)


def _log_failures(events: Sequence[Event]) -> None:
    for event in events:
        intent = event.intent
        logger.log(
            logging.DEBUG if event.is_handled else logging.ERROR,
            "%s (id %s, enqueued at %s) %s",
            intent.name,
            intent.id,
            where(intent),
            "was not dispatched" if event.kind == "failed" else "may or may not have been dispatched: nobody can tell",
            exc_info=None if event.is_handled else event.error,
            extra=_facts(event),
        )


def _facts(event: Event) -> dict[str, Any]:
    intent = event.intent
    return {
        "airlock_event": event.kind,
        "intent_id": intent.id,
        "task": intent.full_name,
        "reason": event.reason,
        "origin": intent.origin,
        "scope": event.scope,
    }


def _names(intents: Sequence[Intent]) -> str:
    counted = Counter(intent.name for intent in intents)
    names = [name if count == 1 else f"{name} ({count} times)" for name, count in counted.most_common(_MOST_NAMES)]
    if len(counted) > _MOST_NAMES:
        names.append(f"{len(counted) - _MOST_NAMES} more")
    return ", ".join(names)


def shown(intent: Intent) -> str:
    """An intent with its arguments, as the configured `redactor` shows it. That may be user data.

    If the redactor or an argument's `repr` raises, the effect is to happen all the same: it is shown without arguments.
    """
    redactor = get_configuration().redactor
    try:
        return str(intent) if redactor is None else str(redactor(intent))
    except Exception as error:
        return f"{intent.name}(<not shown: {type(error).__name__} was raised>)"


def where(intent: Intent) -> str:
    return intent.origin or "a place that was not recorded: turn on capture_origin (CAPTURE_ORIGIN in Django) to see it"
