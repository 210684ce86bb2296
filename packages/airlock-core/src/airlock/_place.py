"""Where code is: which policies are in force there, and whose intents are made there."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, TypeAlias

from airlock._errors import AirlockError, NoScopeError, PolicyEnqueueError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airlock._policies import Policy
    from airlock._scope import Scope


class Place:
    """What all intents enqueued at one place have in common.

    A scope has one place, and one more for every local policy inside it. Intents refer to their place and not to their
    scope: scopes refer to their intents, and what is left of either should be freed at once, without waiting for the
    cyclic garbage collector.
    """

    __slots__ = ("captured_by", "home", "left_to", "local_policies", "policies", "watched")

    def __init__(self, *, watched: bool = False) -> None:
        #: Whether somebody wants to know of each `enqueue` here: policies, or `capture_origin`.
        self.watched = watched
        self.local_policies: tuple[Policy, ...] = ()
        #: Every policy an intent enqueued here answers to, in the order in which they are asked, each of them once.
        self.policies: tuple[Policy, ...] = ()
        #: The place of the scope itself, if this one belongs to a local policy inside it.
        self.home: Place | None = None
        #: The place of the scope that took over the intents of this one.
        self.captured_by: Place | None = None
        #: Where to go from here, if this place belongs to a local policy that was left while code was still inside.
        self.left_to: Here | None = None

    def judge_by(self, local_policies: tuple[Policy, ...], scope_policies: tuple[Policy, ...]) -> None:
        self.local_policies = local_policies
        self.policies = joined(local_policies, scope_policies)
        self.watched = True


def joined(first: tuple[Policy, ...], then: tuple[Policy, ...]) -> tuple[Policy, ...]:
    """Both, in order, without repetition: by identity, as a policy may define equality and need not be hashable."""
    return tuple({id(policy): policy for policy in (*first, *then)}.values())


class NoScope:
    """Stands where a scope would, and takes nothing."""

    _state: Literal["no scope"] = "no scope"
    _scope_policies: tuple[Policy, ...] = ()

    def __init__(self, error: type[AirlockError], message: str) -> None:
        self._error = error
        self._message = message

    def _refusal(self, what: str) -> AirlockError:
        return self._error(self._message.format(what=what))


_NOWHERE = NoScope(
    NoScopeError,
    "{what} was enqueued outside of any scope, so nothing decides whether it happens. "
    "Put `with airlock.scope():` around the code that does.",
)
JUDGING = NoScope(
    PolicyEnqueueError,
    "{what} was asked for inside a policy. Policies judge intents and cause none: "
    "enqueue it where the judged intent was enqueued.",
)

#: The innermost scope and place of the running code. A tuple, so that both are read at once.
Here: TypeAlias = "tuple[Scope | NoScope, Place]"

#: Also the place of outermost scopes without policies, as nothing would set theirs apart.
PLAIN = Place()

NO_PLACE: Here = (_NOWHERE, PLAIN)
here: ContextVar[Here] = ContextVar("airlock", default=NO_PLACE)
# Bound once: where `here` is an imported name, Python would bind its methods anew for every call.
get_here = here.get
set_here = here.set


@contextmanager
def no_scope() -> Iterator[None]:
    """Let an executor run, in no scope, wherever the dispatch takes place."""
    outside = get_here()
    set_here(NO_PLACE)
    try:
        yield
    finally:
        set_here(outside)


@contextmanager
def judging(place: Place) -> Iterator[None]:
    """Let policies run, and nothing be enqueued by them."""
    outside = get_here()
    set_here((JUDGING, place))
    try:
        yield
    finally:
        set_here(outside)
