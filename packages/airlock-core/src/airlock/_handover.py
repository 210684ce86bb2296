"""How a nested scope that flushes hands its intents to the scopes around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airlock._errors import ScopeStateError, UsageError
from airlock._events import Event, is_heard, tell

if TYPE_CHECKING:
    from airlock._intent import Intent
    from airlock._scope import Scope


def hand_over(nested: Scope, parent: Scope) -> list[Intent]:
    """Have the enclosing scopes capture what a nested one holds.

    Returns:
        The intents that all of them let through. The nested scope dispatches those itself.

    Raises:
        ScopeStateError: if an enclosing scope has ended already.
        UsageError: if `before_descendant_flushes` returned something wrong.
    """
    held: list[tuple[Scope, Scope | list[Intent]]] = [(parent, nested)]
    passing: list[Intent] = []
    if not parent._captures_everything():
        held, passing = _shared_out(nested, parent)
    try:
        for scope, captured in held:
            _capture(scope, captured, nested)
        if is_heard():
            _tell_of_capture(nested, held)
        return passing  # noqa: TRY300 - here: an interruption on this very line takes it back, too
    except BaseException:  # an interruption, or one of them has ended: all of them, or none
        for scope, captured in held:
            if captured in scope._captured:
                scope._captured.remove(captured)
        raise


def _shared_out(nested: Scope, parent: Scope) -> tuple[list[tuple[Scope, Scope | list[Intent]]], list[Intent]]:
    """What each enclosing scope is to capture, and what all of them let through."""
    held: list[tuple[Scope, Scope | list[Intent]]] = []
    passing = nested.intents
    enclosing: Scope | None = parent
    while passing and enclosing is not None:
        let_through = _let_through(enclosing, nested, passing)
        kept = [intent for intent in passing if intent not in let_through]
        if kept:
            held.append((enclosing, kept))
        passing = [intent for intent in passing if intent in let_through]
        enclosing = enclosing._parent
    return held, passing


def _let_through(enclosing: Scope, nested: Scope, intents: list[Intent]) -> set[Intent]:
    if not enclosing.is_active:
        raise _too_late(nested, enclosing)
    chosen: object = enclosing.before_descendant_flushes(nested, list(intents))
    if not isinstance(chosen, list) or not set(intents).issuperset(chosen):
        raise UsageError(
            f"{type(enclosing).__name__}.before_descendant_flushes returned {chosen!r}. "
            "It must return a list of those of its intents to let through."
        )
    return set(chosen)


def _capture(enclosing: Scope, captured: Scope | list[Intent], nested: Scope) -> None:
    into = enclosing._captured  # before the look at the state: that of an ended scope is another list
    if enclosing.is_active:
        into.append(captured)
        if enclosing._state == "active" or enclosing._was_in_time(captured, into):
            return
    raise _too_late(nested, enclosing)


def _tell_of_capture(nested: Scope, held: list[tuple[Scope, Scope | list[Intent]]]) -> None:
    for scope, captured in held:
        intents = captured if isinstance(captured, list) else captured.intents
        tell([Event("captured", intent, nested._label(), f"captured by {scope._label()}") for intent in intents])


def _too_late(nested: Scope, enclosing: Scope) -> ScopeStateError:
    return ScopeStateError(
        f"{nested!r} ended after the scope that encloses it, {enclosing!r}, so nobody takes its intents: "
        "end nested scopes first. They are in undispatched_intents."
    )
