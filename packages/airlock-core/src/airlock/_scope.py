"""When intents are dispatched: the boundaries that buffer them, and how they leave.

A scope has a list of the intents enqueued in it, and the nested scopes that it captured. When it ends well it flushes:
it hands itself over to the scope around it. The outermost one collects everything, in the order of enqueueing, asks the
policies, waits for open transactions, and gives the rest to the executor.
"""

from __future__ import annotations

import logging
import threading
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, Self

from airlock._configuration import get_configuration
from airlock._context import (
    JUDGING,
    NOWHERE,
    EnqueueContext,
    Judges,
    current,
    distinct,
    innermost_open,
    judging_error,
    leave,
)
from airlock._dispatch import Dispatch
from airlock._errors import ScopeStateError, UsageError
from airlock._events import Event, tell
from airlock._executors import check_executor, executor_in_use, forget
from airlock._handover import hand_over
from airlock._policies import check_policy
from airlock._trace import logger
from airlock.integrations.executors.sync import sync_executor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from airlock._executors import Executor
    from airlock._intent import Intent
    from airlock._policies import Policy

_numbers = count(1)


class Scope:
    """A boundary: it buffers the intents enqueued inside, and dispatches or drops them when it is left.

    Use it through `airlock.scope()`, or call `enter()`, `exit()`, and then either `flush()` or `discard()`, each once.
    Subclasses decide by overriding `should_flush`, `before_descendant_flushes` and `dispatch_all`.

    Args:
        policy: judges the intents, besides the policies of enclosing scopes and of `airlock.policy()` blocks;
            by default the configured one.
        executor: carries them out, unless an enclosing scope captures them; by default the configured one.

    Raises:
        TypeError: if either is of the wrong kind.
    """

    #: What a failed dispatch does: `"stop"` there and raise, `"log"` it and go on, or go on and `"raise"` the first
    #: failure after all were tried.
    dispatch_errors: Literal["stop", "log", "raise"] = "stop"
    #: Whether an enclosing scope captures its intents. Set it before the scope is entered.
    capturable: bool = True
    #: Whether its intents hang on the transactions that are open around them.
    transactional: bool = True
    #: Why it will be discarded, for the log. By default that is what the block raised.
    discard_reason: str | None = None

    #: The scope that captures this one.
    _parent: Scope | None = None
    #: What became of the intents, from the moment that enclosing scopes have captured them or let them through.
    _dispatch: Dispatch | None = None
    _known_label: str | None = None

    def __init__(self, policy: Policy | None = None, *, executor: Executor | None = None) -> None:
        defaults = get_configuration()
        self._policy = defaults.policy if policy is None else check_policy(policy)
        # Not `or`: an executor may be false, such as an empty list that collects.
        default = sync_executor if defaults.executor is None else defaults.executor
        given = default if executor is None else check_executor(executor)
        self._executor = executor_in_use(given)
        # Those of the outermost scope, which will dispatch unless one in between lets something through.
        self._outermost_executor = self._executor
        self._outermost_given = given  # for scopes that are made with it: a test replaces it again
        self._check = getattr(self._executor, "check", None)
        self._prepare = getattr(self._executor, "prepare", None)
        #: Whether to record where intents are enqueued.
        self.capture_origin = defaults.capture_origin
        self._is_logged = logger.isEnabledFor(logging.DEBUG)
        #: Called at each `enqueue`; what they return is entered around the dispatch.
        self.carriers = defaults.carriers
        self._number = next(_numbers)
        self._state: Literal["not entered", "active", "left", "flushed", "discarded", "given up"] = "not entered"
        #: Held while the content is fixed, and by another thread that was late with something for it.
        self._lock = threading.Lock()
        self._own: list[Intent] = []
        #: Nested scopes, each captured whole, or those of its intents that were not let through.
        self._captured: list[Scope | list[Intent]] = []

    # -- The life of a scope ---------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Make this the current scope of the running thread, asyncio task or greenlet.

        Raises:
            ScopeStateError: if it was entered before.
            PolicyEnqueueError: inside a policy's method.
        """
        if self._state != "not entered":
            raise ScopeStateError(f"{self!r} was entered before. A scope is used once: make another one.")
        before = outer = current.get()
        if outer is not NOWHERE:
            outer = innermost_open()
            if outer is JUDGING:
                raise judging_error("A scope")
            if self.capturable and outer.scope is not None:
                self._parent = parent = outer.scope
                self._check, self._prepare = parent._check, parent._prepare
                self._outermost_executor = parent._outermost_executor
                self._outermost_given = parent._outermost_given
                if not parent.transactional:  # the parent dispatches at the end of its block, as `detached()` does
                    self.transactional = False
        judges = outer.judges
        if self._policy is not None:
            judges = Judges(judges.local, distinct(*judges.local, self._policy, *judges.every))
        self._context = EnqueueContext(self, outer, judges)
        if before is not outer and outer is not NOWHERE:
            self._context.ended = before
        self._state = "active"
        current.set(self._context)

    def exit(self) -> None:
        """Stop taking intents, and restore the scope that was current before.

        Raises:
            ScopeStateError: if it is not active.
        """
        if self._state == "given up":
            return
        if self._state != "active":
            raise ScopeStateError(f"{self!r} cannot be left: it is not active. Enter a scope once, and leave it once.")
        # In this order: if it is interrupted, it can be called again.
        inside = leave(self._context)
        self._state = "left"
        self._context = NOWHERE  # it refers to the scope, and would keep it alive
        for forgotten in inside:
            if forgotten.scope is not None and forgotten.scope.is_active:
                logger.warning("%r was entered inside %r and never left: its intents are lost", forgotten.scope, self)

    def flush(self) -> list[Intent]:
        """Let the intents go: to the enclosing scope, or through the policies to the executor.

        Returns:
            The intents that were dispatched by now, in order. An empty list if an enclosing scope captured them.

        Raises:
            ScopeStateError: if the scope was not left yet, was flushed or discarded before, or if the scope that
                encloses it has ended.
            Exception: what a policy or the executor raises; `dispatched_intents` and `undispatched_intents` then tell
                what happened.
        """
        if self._state != "left":
            return self._end_too_early_or_twice()
        self._state = "flushed"
        if not (self._own or self._captured):
            return []
        self._fix()
        dispatch = Dispatch(self, [])
        if self._parent is None:
            dispatch.due, self._dispatch = self.intents, dispatch
        else:  # In one step, as an interruption may come after it. The parent refers to this scope now.
            dispatch.due, self._dispatch, self._parent = hand_over(self, self._parent), dispatch, None
        if dispatch.due:
            self.dispatch_all(dispatch.allowed())
        return self.dispatched_intents

    def discard(self) -> list[Intent]:
        """Drop the intents.

        Returns:
            The intents that were dropped, in order of enqueueing.

        Raises:
            ScopeStateError: if the scope was not left yet, or was flushed or discarded before.
        """
        if self._state != "left":
            return self._end_too_early_or_twice()
        self._state = "discarded"
        self._fix()
        intents = self.intents
        forget(self._outermost_executor, intents)
        why = f"discarded, because {self.discard_reason or 'the scope decided so'}"
        tell([Event("discarded", intent, self._label(), why) for intent in intents])
        return intents

    def _end_too_early_or_twice(self) -> list[Intent]:
        if self._state == "given up":
            return []
        if self._state in ("not entered", "active"):
            raise ScopeStateError(f"{self!r} cannot be flushed or discarded yet: call enter() and exit() first.")
        raise ScopeStateError(f"{self!r} has ended: a scope is flushed or discarded once.")

    def _give_up(self) -> None:
        """Leave the scope to the process that this one was forked from."""
        self._state = "given up"
        self._own, self._captured = [], []

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.exit()
        if self._ends_well(error):
            self.flush()
        else:
            self.discard()

    async def __aenter__(self) -> Self:
        self.enter()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.exit()
        if self._ends_well(error):
            await self.aflush()
        else:
            self.discard()

    async def aflush(self) -> list[Intent]:
        """What `async with` calls instead of `flush`. Override it where a flush would block the event loop."""
        return self.flush()

    def _ends_well(self, error: BaseException | None) -> bool:
        if error is not None and self.discard_reason is None:
            self.discard_reason = f"{type(error).__name__} was raised"
        try:
            flushes: object = self.should_flush(error)
            if flushes is not True and flushes is not False:
                _refuse_answer(self, flushes)
        except BaseException:
            self.discard()
            raise
        return flushes is True

    # -- Hooks -----------------------------------------------------------------------------------------------------

    def should_flush(self, error: BaseException | None) -> bool:
        """Decide whether leaving the scope flushes it (true) or discards it (false).

        Args:
            error: what the block raised, `None` if it ended normally. It propagates in either case.
        """
        return error is None

    def before_descendant_flushes(self, exiting_scope: Scope, intents: list[Intent]) -> list[Intent]:
        """Choose which intents of a nested scope go out at its end, instead of being captured by this one.

        Asked of every enclosing scope, nearest first, each about what the nearer ones let through. What all of them
        let through is dispatched by the nested scope, after every policy in force was asked.

        Args:
            exiting_scope: the nested scope that flushes.
            intents: what it would hand over, in order of enqueueing.

        Returns:
            Those of `intents` to let through; by default none.
        """
        return []

    def dispatch_all(self, intents: Sequence[Intent]) -> None:
        """Hand the intents to the executor, in order; those that hang on open transactions, when these have committed.

        An override may dispatch later, or in parts, by calling this with some of them. Whenever it does, what was
        rolled back is dropped, and what is open is waited for. After a flush that failed or was interrupted, call it
        with `undispatched_intents` to try again.

        Args:
            intents: what the policies allowed.

        Raises:
            Exception: what the executor raises, with a note that names the intent.
        """
        if self._dispatch is None:
            self._dispatch = Dispatch(self, intents)
        self._dispatch.dispatch(intents)

    # -- What it holds ---------------------------------------------------------------------------------------------

    @property
    def intents(self) -> list[Intent]:
        """The intents enqueued in this scope or captured from nested ones, in order of enqueueing."""
        if not self._captured:
            return list(self._own)
        found: list[Intent] = []
        holders: list[Scope | list[Intent]] = [self]
        while holders:
            holder = holders.pop()
            if isinstance(holder, Scope):
                found += holder._own
                holders += holder._captured
            else:
                found += holder
        found.sort(key=attrgetter("_number"))
        return found

    @property
    def own_intents(self) -> list[Intent]:
        """The intents enqueued directly in this scope."""
        return list(self._own)

    @property
    def captured_intents(self) -> list[Intent]:
        """The intents taken over from nested scopes."""
        own = set(self._own)
        return [intent for intent in self.intents if intent not in own]

    @property
    def dispatched_intents(self) -> list[Intent]:
        """The intents this scope has handed to the executor, successfully and in this order."""
        return [] if self._dispatch is None else self._dispatch.dispatched

    @property
    def undispatched_intents(self) -> list[Intent]:
        """The intents this scope still owes: not dispatched, handed over, dropped, rolled back or discarded."""
        if self._dispatch is not None:
            return self._dispatch.undispatched
        return [] if self._state == "discarded" else self.intents

    @property
    def unknown_intents(self) -> list[Intent]:
        """Those of the undispatched intents that may have gone out all the same.

        The executor cannot tell, or was interrupted before it could.
        """
        return [] if self._dispatch is None else self._dispatch.unknown

    @property
    def rolled_back_intents(self) -> list[Intent]:
        """The intents that will not be dispatched, because a transaction they hang on was rolled back."""
        return [] if self._dispatch is None else self._dispatch.rolled_back

    @property
    def is_active(self) -> bool:
        """Whether it takes intents: it was entered and not yet left."""
        return self._state == "active"

    @property
    def is_flushed(self) -> bool:
        """Whether it ended in a flush."""
        return self._state == "flushed"

    @property
    def is_discarded(self) -> bool:
        """Whether it ended in being discarded."""
        return self._state == "discarded"

    def _label(self) -> str:
        """What events and the log call it: its class, and a number that no other scope of the process has."""
        if self._known_label is None:
            self._known_label = f"{type(self).__name__} {self._number}"
        return self._known_label

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state}, {len(self.intents)} intents>"

    # -- The way of an intent: in, over to the scope around, out -----------------------------------------------------

    def _captures_everything(self) -> bool:
        return type(self).before_descendant_flushes is Scope.before_descendant_flushes

    def _was_in_time(self, taken: Any, into: list[Any]) -> bool:
        """Whether what was appended to `_own` or `_captured` counts, though another thread has just left the scope."""
        with self._lock:
            if into is self._own or into is self._captured:  # not fixed yet: take it back
                into.remove(taken)
                return False
            return any(taken is fixed for fixed in (*self._own, *self._captured))

    def _fix(self) -> None:
        """From now on, what a late thread appends is not in the scope."""
        with self._lock:
            self._own = self._own.copy()
            self._captured = self._captured.copy()


def _refuse_answer(scope: Scope, answer: object) -> None:
    raise UsageError(f"{type(scope).__name__}.should_flush returned {answer!r}. It must return True or False.")
