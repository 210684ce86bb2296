"""How an intent is carried out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from airlock._context import NOWHERE, call_in, current
from airlock._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from airlock._intent import Intent

_T = TypeVar("_T")


@runtime_checkable
class Executor(Protocol):
    """Carries out one intent: any callable that takes one `Intent`.

    It runs in the context of the `enqueue` call, and in no scope. What it returns is ignored. What it raises ends the
    flush of a plain `Scope`, and is logged by a `DjangoScope`.

    An executor may have three more methods:

    - `accepts(task) -> bool`, asked at the `enqueue` call about a task that is not callable. Without it, only callables
      are taken.
    - `check(intent)`, called at the `enqueue` call. It raises if the intent could never be carried out, because its
      arguments do not fit, for example.
    - `dispatch_many(intents) -> Sequence[Outcome]`, for several intents at the cost of one. A flush of two or more
      calls it with all of them, in order. It returns what became of each: `None` if it was carried out, the exception
      if it was not, and `OutcomeUnknown(exception)` if nobody can tell.

    `dispatch_many` may return fewer outcomes than it got intents, but at least one: it has not begun with the others.
    It should stop at a failure, before it tries the next. The scope calls it again with the others, unless it stops
    there too. If `dispatch_many` raises, the outcome of everything it was given is unknown. It does each intent's
    work in the context of its `enqueue` call by `airlock.ext.run_in_context`.
    """

    def __call__(self, intent: Intent, /) -> object: ...


class OutcomeUnknown:
    """What `dispatch_many` returns for an intent that may or may not have been carried out.

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


#: What became of an intent: it was carried out, it was not, or nobody can tell.
Outcome: TypeAlias = BaseException | OutcomeUnknown | None


def check_executor(executor: Executor) -> Executor:
    if not callable(executor):
        raise TypeError(f"An executor is a callable that takes one intent, and {executor!r} is not callable.")
    return executor


def wrong_task(task: object) -> TypeError:
    advice = "Give the task itself, not called yet, and then its arguments: enqueue(send_email, user_id)."
    if isinstance(task, str):
        advice = "Task names need the Celery executor."
    return TypeError(f"{task!r} ({type(task).__name__}) cannot be enqueued: the executor does not take it. {advice}")


def run_in_context(intent: Intent, function: Callable[..., _T], *args: Any) -> _T:
    """Call a function in the context that an intent was enqueued in, and in no scope.

    Context variables are as they were at the `enqueue` call, and what the carriers have brought is entered. That
    happens once for each intent: a second call finds the context it is called in.

    Args:
        intent: whose context it is.
        function: called with `args`.

    Returns:
        What the function returns.
    """
    context, intent._context = intent._context, None
    if context is None:
        return call_in(NOWHERE, function, *args)
    context.run(current.set, NOWHERE)
    carried = intent._details.carried
    return context.run(_run_with, carried, function, args) if carried else context.run(function, *args)


def _run_with(
    carried: tuple[AbstractContextManager[object], ...], function: Callable[..., _T], args: tuple[Any, ...]
) -> _T:
    with ExitStack() as entered:
        for manager in carried:
            entered.enter_context(manager)
        return function(*args)
    raise UsageError(f"One of the carriers {carried!r} swallowed what the dispatch raised. Let it through.")


def dispatch_one(executor: Executor, intent: Intent) -> Outcome:
    """Have an executor carry out one intent, in the context it was enqueued in.

    Returns:
        `None`, the exception it raised, or `OutcomeUnknown` if it was interrupted, by Ctrl-C for example: that may have
        been before or after the effect.
    """
    context = intent._context
    try:
        if context is None or intent._details.carried:
            result = run_in_context(intent, executor, intent)
        else:  # the same, without the detour
            intent._context = None
            context.run(current.set, NOWHERE)
            result = context.run(executor, intent)
        if result is not None:
            _check_is_no_coroutine(executor, result)
    except Exception as error:
        return error
    except BaseException as error:
        return OutcomeUnknown(error)
    return None


def outcomes_of(executor: Executor, intents: Sequence[Intent]) -> Sequence[Outcome]:
    """Have an executor carry out several intents: as many of them as it takes at a time."""
    dispatch_many: Any = executor.dispatch_many  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    if len(intents) == 1:
        return [dispatch_one(executor, intents[0])]
    try:
        return _checked(call_in(NOWHERE, dispatch_many, intents), executor, len(intents))
    except BaseException as error:
        return [OutcomeUnknown(error)] * len(intents)


def _checked(outcomes: object, executor: Executor, given: int) -> Sequence[Outcome]:
    if isinstance(outcomes, Sequence) and 0 < len(outcomes) <= given:
        return outcomes
    raise UsageError(
        f"dispatch_many of {executor!r} was given {given} intents and returned {outcomes!r}. It must return a list "
        "with None, an exception or an OutcomeUnknown for each of them, or for the first ones."
    )


def _check_is_no_coroutine(executor: Executor, result: object) -> None:
    if isinstance(result, (Coroutine, Generator, AsyncGenerator)):
        if isinstance(result, Coroutine):
            result.close()
        raise UsageError(
            f"{executor!r} returned a {type(result).__name__}, which nobody runs, so nothing was dispatched. "
            "An executor is a plain function, or an object with a plain __call__."
        )
