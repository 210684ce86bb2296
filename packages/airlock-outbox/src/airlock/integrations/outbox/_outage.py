"""A queue that takes nothing from anybody: what fails then is the fault of no entry."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airlock import OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airlock import Intent
    from airlock.ext import Outcome

logger = logging.getLogger("airlock")


class BrokerDownError(Exception):
    """The broker, or whatever the queue of an executor is, cannot be reached, or takes nothing from anybody."""

    def __init__(self, executor: Any, intent: Intent, why: str) -> None:
        super().__init__(f"The broker is down: {why}")
        self.executor = executor
        self.intent = intent
        self.why = why


def broker_error(executor: Any, intent: Intent, error: BaseException | None = None) -> BrokerDownError | None:
    """Ask an executor whether the queue of an intent is down, and is to blame for an error, if there is one."""
    try:
        why = executor.why_down(intent, error) if hasattr(executor, "why_down") else None
    except Exception:
        logger.exception("%r could not be asked whether its queue is down", executor)
        return None
    return None if why is None else BrokerDownError(executor, intent, why)


def blame_broker(executor: Any, intents: Sequence[Intent], outcomes: list[Outcome]) -> list[Outcome]:
    """Put a `BrokerDownError` in the place of the first failure, if that is what it is."""
    for number, outcome in enumerate(outcomes):
        if outcome is None:
            continue
        intent, error = intents[number], error_of(outcome)
        # Not of an interruption, such as Ctrl-C.
        may_be_outage = isinstance(error, Exception) and not runs_in_place(executor, intent)
        if may_be_outage and (down := broker_error(executor, intent, error)):
            outcomes[number] = down
        break
    return outcomes


def runs_in_place(executor: Any, intent: Intent) -> bool:
    """Whether an executor would run an intent, and not hand it to a queue."""
    with suppress(Exception):  # as when a queue is not there that an option names: the dispatch will say so
        return hasattr(executor, "runs_in_place") and bool(executor.runs_in_place(intent))
    return False


def error_of(outcome: BaseException) -> BaseException:
    """What was raised."""
    return outcome.error if isinstance(outcome, OutcomeUnknown) else outcome
