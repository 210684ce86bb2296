"""Where the running code is: in which scope, and under which policies.

One context variable holds the innermost block that the code is in. Threads, asyncio tasks and greenlets each have their
own value of it, and an asyncio task starts with a copy of its parent's.
"""

from __future__ import annotations

import os
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from airlock._errors import NoScopeError, PolicyEnqueueError, ScopeStateError, UsageError
from airlock._policies import check_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from airlock._policies import Policy
    from airlock._scope import Scope

_T = TypeVar("_T")


class Judges:
    """The policies in force, in the order in which they are asked. Each is there once."""

    __slots__ = ("every", "local")

    def __init__(self, local: tuple[Policy, ...] = (), every: tuple[Policy, ...] = ()) -> None:
        #: Those of `with airlock.policy(...)` blocks, innermost first.
        self.local = local
        #: The local ones, then that of the scope, then those of the scopes around it.
        self.every = every


class EnqueueContext:
    """A block that code is in: a scope, or a local policy inside one. Each knows the block around it."""

    __slots__ = ("ended", "is_left", "judges", "outer", "scope")

    def __init__(self, scope: Scope | None, outer: EnqueueContext | None, judges: Judges) -> None:
        self.scope = scope
        #: The block around this one. `NOWHERE` is around all of them, and around itself.
        self.outer = outer or self
        self.judges = judges
        self.is_left = False
        #: The block that was current when this one was entered, if it was over by then, inside of one that was not.
        self.ended: EnqueueContext | None = None

    def is_over(self) -> bool:
        return self.is_left or (self.scope is not None and not self.scope.is_active)


#: How often this process was forked off another one.
forks = 0

#: The code is in no scope.
NOWHERE = EnqueueContext(None, None, Judges())
#: A policy is being asked.
JUDGING = EnqueueContext(None, NOWHERE, Judges())

current: ContextVar[EnqueueContext] = ContextVar("airlock", default=NOWHERE)


def innermost_open() -> EnqueueContext:
    """The innermost block around the running code that is not over.

    A background task that has outlived its request is still in the scope of that request, which is over.
    """
    return _nearest_open(current.get())


def _nearest_open(context: EnqueueContext) -> EnqueueContext:
    while context is not NOWHERE and context.is_over():
        context = context.outer
    return context


def leave(context: EnqueueContext) -> list[EnqueueContext]:
    """Restore what was current before `context` was entered.

    Nothing changes if the running code is not inside of it: async fixtures and servers may enter in one context and
    leave in another.

    Returns:
        The blocks that were entered inside and never left.
    """
    context.is_left = True
    inside = []
    here = current.get()
    while here is not context:
        if here is NOWHERE:
            context.ended = None
            return []
        inside.append(here)
        here = here.outer
    current.set(context.ended or _nearest_open(context.outer))
    context.ended = None
    return inside


def call_in(context: EnqueueContext, function: Callable[..., _T], *args: Any) -> _T:
    """Call a function as if the running code were in another place: in a copy of the context variables."""
    return copy_context().run(_call_in, context, function, args)


def _call_in(context: EnqueueContext, function: Callable[..., _T], args: tuple[Any, ...]) -> _T:
    current.set(context)
    return function(*args)


def judging_error(what: str) -> PolicyEnqueueError:
    return PolicyEnqueueError(
        f"{what} was asked for inside a policy, or by who listens to events. These judge intents or watch them, and "
        "cause none: enqueue it where the judged intent was enqueued."
    )


def no_scope_error(what: str) -> NoScopeError:
    return NoScopeError(
        f"{what} was enqueued outside of any scope, so nothing decides whether it happens. "
        "Put `with airlock.scope():` around the code that does."
    )


def ended_error(what: str, scope: Scope) -> ScopeStateError:
    return ScopeStateError(
        f"{what} was enqueued in {scope!r}, which has ended and takes nothing. A thread or asyncio task that "
        "outlives its scope must be waited for inside of it, or enter a scope of its own."
    )


def distinct(*policies: Policy) -> tuple[Policy, ...]:
    """The policies in order, each once. By identity: a policy may define equality, and need not be hashable."""
    return tuple({id(policy): policy for policy in policies}.values())


class policy:  # noqa: N801 - used like a function, as `contextlib.suppress` is
    """Let one more policy judge what is enqueued inside. It opens no new scope.

        with airlock.policy(BlockTasks({"send_email"})):
            import_orders()

    It ends with its block, and at the latest with the scope it was opened in.

    Args:
        policy: judges the intents, besides all other policies in force.

    Raises:
        TypeError: if it is no policy.
    """

    def __init__(self, policy: Policy, /) -> None:
        self._policy = check_policy(policy)
        self._context: EnqueueContext | None = None

    def __enter__(self) -> None:
        if self._context is not None:
            raise UsageError(f"This airlock.policy({self._policy!r}) is in use: make another one for another block.")
        outer = current.get()
        if outer is JUDGING:
            raise judging_error("A local policy")
        judges = Judges(distinct(self._policy, *outer.judges.local), distinct(self._policy, *outer.judges.every))
        self._context = EnqueueContext(outer.scope, outer, judges)
        if outer.is_over() and innermost_open() is not NOWHERE:
            self._context.ended = outer
        current.set(self._context)

    def __exit__(self, *error: object) -> None:
        context, self._context = self._context, None
        if context is None:
            return
        context.is_left = True
        # A scope that was entered inside and is still open stays the current one: this is no boundary.
        here = current.get()
        while here is not context and here is not NOWHERE and here.is_over():
            here = here.outer
        if here is context:
            leave(context)


class SuspendedContext:
    """The place where suspended code left off. `with` goes back in there, and out again at the end of the block.

    It can be entered any number of times, as for the steps of a generator or the chunks of a response.
    """

    def __init__(self, inside: EnqueueContext | None = None) -> None:
        self._inside = inside
        self._outside = NOWHERE

    def __enter__(self) -> None:
        self._outside = current.get()
        if self._inside is not None:
            current.set(self._inside)

    def __exit__(self, *error: object) -> None:
        self._inside = current.get()
        current.set(self._outside)


def _give_up_scopes_of_parent() -> None:
    """In a forked child: the scopes it was forked in are the parent's, and so are their intents."""
    global forks
    forks += 1
    here = current.get()
    while here is not NOWHERE:
        if here.scope is not None:
            here.scope._give_up()
        here = here.outer
    current.set(NOWHERE)


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
    os.register_at_fork(after_in_child=_give_up_scopes_of_parent)
