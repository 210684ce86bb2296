"""How: the one who carries an intent out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from airlock._errors import UsageError

if TYPE_CHECKING:
    from airlock._intent import Intent


class Executor(Protocol):
    """Carries out one intent: any callable that takes one `Intent`.

    What it returns is ignored. What it raises ends the flush of a plain `Scope`, and is logged by a `DjangoScope`.

    An executor may also have a method `accepts(task) -> bool`. It is asked at the `enqueue` call about a task that is
    not callable; without it, only callables are taken.

    And it may have a method `dispatch_many(intents) -> Sequence[Outcome]`, for several intents at the cost of one. A
    flush of two or more calls it with all of them, in order. It returns what became of each: `None` if it was carried
    out, the exception if it was not, and `OutcomeUnknown(exception)` if nobody can tell.

    The outcomes may be fewer than the intents, one at least: it then has not begun with the others. So it may take as
    many at a time as it likes, and should stop at one that fails before anything was tried with the next. The scope
    calls it again with the others, unless it stops at a failure. If `dispatch_many` itself raises, the outcome of all
    that it was given is unknown.
    """

    def __call__(self, intent: Intent, /) -> object: ...


class OutcomeUnknown:
    """What `dispatch_many` returns for an intent that may have been carried out, or not.

    As when a connection breaks after a message was written, and before the broker has answered. The intent is then in
    the scope's `undispatched_intents`, and in its `unknown_intents`: dispatching it again may have its effect twice.

    Args:
        error: why nobody can tell.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        return f"OutcomeUnknown({self.error!r})"


#: What became of an intent: it was carried out, was not, or nobody can tell.
Outcome: TypeAlias = BaseException | OutcomeUnknown | None


def check_executor(executor: Executor) -> None:
    if not callable(executor):
        raise TypeError(f"An executor is a callable that takes one intent, and {executor!r} is not callable.")


def outcomes_of(executor: Executor, intents: Sequence[Intent]) -> Sequence[Outcome]:
    """Have the first of the intents carried out: as many as the executor takes at a time."""
    dispatch_many = getattr(executor, "dispatch_many", None)
    if dispatch_many is None or len(intents) == 1:
        try:
            executor(intents[0])
        except BaseException as error:
            return [error]
        return [None]
    try:
        return _checked(dispatch_many(intents), len(intents), executor)
    except BaseException as error:
        return [OutcomeUnknown(error)] * len(intents)


def _checked(outcomes: object, given: int, executor: Executor) -> Sequence[Outcome]:
    if isinstance(outcomes, Sequence) and 0 < len(outcomes) <= given:
        return outcomes
    raise UsageError(
        f"dispatch_many of {executor!r} was given {given} intents and returned {outcomes!r}. It must return a list "
        "with None, an exception or an OutcomeUnknown for each of them, or for the first ones."
    )
