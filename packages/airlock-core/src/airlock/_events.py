"""What becomes of intents, told to whoever listens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import copy_context
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from airlock._context import JUDGING, current
from airlock._executors import interrupts
from airlock._trace import log, logger

if TYPE_CHECKING:
    from airlock._intent import Intent
    from airlock._policies import Policy

#: What may happen to an intent. `docs/observing.md` says who tells of which, and when.
Kind: TypeAlias = Literal[
    "enqueued",
    "captured",
    "dropped",
    "discarded",
    "rolled_back",
    "dispatched",
    "failed",
    "unknown",
    "stored",
    "relayed",
    "parked",
    "skipped",
]


class Event(NamedTuple):
    """Something that has happened to one intent."""

    kind: Kind
    intent: Intent
    #: The scope where it happened, such as `"DjangoScope 12"`: its class, and a number that no other scope of the
    #: process has. Empty outside of scopes.
    scope: str = ""
    #: Why, in words, where there is something to say.
    reason: str | None = None
    #: The policy that has dropped it.
    policy: Policy | None = None
    #: Why it failed, or why nobody can tell.
    error: BaseException | None = None
    #: Whether somebody takes care of that error: it is raised to the code around the scope, or a relay tries again.
    #: Else it is only told here, and the log has it as an error.
    is_handled: bool = False
    #: When the executor was given what it has dispatched or failed to dispatch, in nanoseconds since the epoch.
    began: int | None = None


#: Called with what happens at the same time, such as all that one flush has dispatched.
Listener: TypeAlias = Callable[[Sequence[Event]], object]

#: Replaced as a whole, so that those who read it need no lock.
listeners: tuple[Listener, ...] = ()


def subscribe(listener: Listener) -> Callable[[], None]:
    """Have a listener told of everything that happens to intents in this process, from now on.

        unsubscribe = subscribe(lambda events: print(*events, sep="\\n"))

    It is called where it happens: in the same thread, at once. So it should be quick. It is in no scope and cannot
    enqueue, and what it raises is logged, and changes nothing. Only what interrupts it, such as Ctrl-C, is raised.

    Args:
        listener: called with the events that belong together, in order: all that one flush has dispatched, for example.

    Returns:
        A function that ends it.

    Raises:
        TypeError: if the listener cannot be called, or is a coroutine function, which no call runs.
    """
    global listeners
    if iscoroutinefunction(listener) or not callable(listener):
        raise TypeError(f"A listener is a plain function that takes a list of events, and {listener!r} is none.")
    listeners = (*listeners, listener)
    is_subscribed = True

    def unsubscribe() -> None:
        global listeners
        nonlocal is_subscribed
        if is_subscribed:  # and whoever else has subscribed the same listener goes on being told
            is_subscribed = False
            at = next(at for at, other in enumerate(listeners) if other is listener)
            listeners = (*listeners[:at], *listeners[at + 1 :])

    return unsubscribe


def is_heard() -> bool:
    """Whether anybody listens, or the log is at DEBUG. What nobody hears need not be told, unless it is a failure."""
    return bool(listeners) or logger.isEnabledFor(logging.DEBUG)


def tell(events: Sequence[Event], *, is_logged: bool = True) -> None:
    """Tell the log, and all who listen, what has happened.

    Args:
        events: what belongs together.
        is_logged: whether to tell the log. It says nothing of what goes as it should, unless it is at DEBUG.
    """
    if not events:
        return
    if is_logged:
        log(events)
    for listener in listeners:
        try:
            copy_context().run(_hear, listener, events)
        except Exception as error:
            if interrupts(error):  # such as a time limit, which is over for the code around, too
                raise
            logger.exception("The listener %r failed", listener)


def _hear(listener: Listener, events: Sequence[Event]) -> None:
    # In a copy of the context, so that it ends here, wherever an interruption comes.
    current.set(JUDGING)
    listener(events)
