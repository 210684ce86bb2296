"""What integrations build on: the public way to everything in Airlock that applications do not need.

`docs/extending.md` shows each with an example. Besides this there are the hooks of `airlock.Scope`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airlock._api import when_no_scope
from airlock._configuration import Carrier, register_carrier, set_defaults
from airlock._context import JUDGING, SuspendedContext, current
from airlock._events import Event, Kind, Listener, is_heard, subscribe, tell
from airlock._executors import Outcome, dispatch_one, register_interruption, replace_executors, run_in_context
from airlock._fates import Fate, FateSource, State, Transaction, open_fates, refresh_fates, register_fates
from airlock._trace import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airlock._intent import Intent
    from airlock._scope import Scope

__all__ = [
    "Carrier",
    "Event",
    "Fate",
    "FateSource",
    "Kind",
    "Listener",
    "Outcome",
    "State",
    "SuspendedContext",
    "Transaction",
    "change_context",
    "dispatch_one",
    "fates_of",
    "is_heard",
    "is_judging",
    "label_of",
    "open_fates",
    "outside",
    "refresh_fates",
    "register_carrier",
    "register_fates",
    "register_interruption",
    "replace_executors",
    "run_in_context",
    "set_defaults",
    "shown",
    "subscribe",
    "suspend",
    "tell",
    "when_no_scope",
]


def suspend(scope: Scope) -> SuspendedContext:
    """Go on outside of a scope whose code will continue later, such as that of a response that streams its body.

        inside = suspend(scope)
        with inside:  # any number of times
            chunk = next(body)

    Args:
        scope: an active scope that the running code is in.

    Returns:
        A context manager that goes back to where the code left off, for one block at a time.
    """
    inside = SuspendedContext(current.get())
    current.set(scope._context.outer)
    return inside


@contextmanager
def outside(scope: Scope) -> Iterator[None]:
    """Run a block where the code was before it entered a scope.

    Args:
        scope: an active scope that the running code is in.
    """
    here = current.get()
    current.set(scope._context.outer)
    try:
        yield
    finally:
        current.set(here)


def change_context(intent: Intent, change: Callable[[], object]) -> None:
    """Change context variables for the dispatch of an intent, and for nothing else.

    For who hears that it was enqueued, and wants something to be current when it is dispatched, such as a span.

    Args:
        intent: one that waits to be dispatched. Nothing happens if it does not.
        change: called at once, in the context that the intent will be dispatched in.
    """
    if intent._context is not None:
        intent._context.run(change)


def fates_of(intent: Intent) -> tuple[Fate, ...]:
    """What an intent hangs on: what was open where it was enqueued. Nothing if it is detached."""
    return intent._fates


def label_of(scope: Scope) -> str:
    """What events and the log call a scope, such as `"DjangoScope 12"`."""
    return scope._label()


def is_judging() -> bool:
    """Whether the running code is a policy's, or listens to events: it may not enqueue."""
    return current.get() is JUDGING
