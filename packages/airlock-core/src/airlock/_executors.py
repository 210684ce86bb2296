"""How an intent is carried out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from contextlib import ContextDecorator, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from airlock._context import NOWHERE, call_in, current
from airlock._errors import UsageError
from airlock._intent import forget_contexts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from airlock._intent import Intent
    from airlock._scope import Scope

_T = TypeVar("_T")


@runtime_checkable
class Executor(Protocol):
    """Carries out one intent: any callable that takes one `Intent`.

    It runs in the context of the `enqueue` call, and in no scope. What it returns is ignored. What it raises ends the
    flush of a plain `Scope`, and is logged by a `DjangoScope`: the intent was not carried out, or, if it is an
    `OutcomeUnknown`, nobody can tell. What interrupts it, such as Ctrl-C, ends any flush.

    An executor that leaves intents to somebody else, and tells by itself of those that were dispatched, has an
    attribute `tells_of_dispatched` that is true. And it may have seven more methods:

    - `accepts(task) -> bool`, asked at the `enqueue` call about a task that is not callable. Without it, only callables
      are taken.
    - `check(intent)`, called at the `enqueue` call. It raises if the intent could never be carried out, because its
      arguments do not fit, for example.
    - `prepare(intent, fates)`, called at the end of the `enqueue` call, when all policies have accepted the intent.
      What it returns is `intent.prepared`; if it raises, nothing was enqueued. The fates are what the intent hangs on.
    - `forget(intents, rolled_back)`, called with intents that will not be dispatched, because they were rolled back, or
      else because they were discarded or dropped by a policy. It must not raise.
    - `dispatch_many(intents) -> Sequence[Outcome]`, for several intents at the cost of one. A flush calls it with all
      intents, in order, instead of calling the executor. It returns what became of each: `None` if it was carried out,
      the exception if it was not, and `OutcomeUnknown(exception)` if nobody can tell.
    - `runs_in_place(intent) -> bool`: whether to carry it out is to run it, here and now. Otherwise it is handed to a
      queue, which may be done in another thread.
    - `why_down(intent, error) -> str | None`, called with what it has raised, or with `None` to ask again: why the
      queue of the intent takes nothing from anybody just now, in words. `None` if it does take something: then the
      intent has failed. Whoever keeps intents to try them again, such as the outbox, waits for a queue that is down.

    `dispatch_many` may return fewer outcomes than it got intents, but at least one: it has not begun with the others.
    It should stop at a failure, before it tries the next. The scope calls it again with the others, unless it stops
    there too. If `dispatch_many` raises, the outcome of everything it was given is unknown. It does each intent's
    work in the context of its `enqueue` call by `airlock.ext.run_in_context`.
    """

    def __call__(self, intent: Intent, /) -> object: ...


class OutcomeUnknown(Exception):  # noqa: N818 - an outcome first of all
    """What `dispatch_many` returns, or an executor raises, for an intent that may or may not have been carried out.

    As when a connection breaks after a message was written, and before the broker has answered. The intent is then in
    the scope's `undispatched_intents`, and in its `unknown_intents`: dispatching it again may have its effect twice.
    What the flush raises, or logs, is `error`.

    Args:
        error: why nobody can tell.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error

    def __repr__(self) -> str:
        return f"OutcomeUnknown({self.error!r})"


#: What became of an intent: it was carried out, it was not, or nobody can tell.
Outcome: TypeAlias = BaseException | OutcomeUnknown | None

_interruptions: list[type[Exception]] = []


def register_interruption(error: type[Exception]) -> None:
    """Treat an exception as an interruption, like Ctrl-C, and not as a failed dispatch.

        register_interruption(SoftTimeLimitExceeded)

    This is for exceptions that a signal handler raises: they may come at any moment. An intent that the executor was
    given, and that it has not finished, is then in `unknown_intents`. The flush stops and raises the exception, even in
    a scope that logs failures. What is not an `Exception`, such as `KeyboardInterrupt`, always interrupts.

    Args:
        error: the class of the exception. Its subclasses count, too.
    """
    _interruptions.append(error)


def interrupts(error: BaseException) -> bool:
    return not isinstance(error, Exception) or isinstance(error, tuple(_interruptions))


def check_executor(executor: Executor) -> Executor:
    if not callable(executor):
        raise TypeError(f"An executor is a callable that takes one intent, and {executor!r} is not callable.")
    return executor


_replace: Callable[[Executor], Executor] | None = None


@contextmanager
def replace_executors(make: Callable[[Executor], Executor]) -> Iterator[None]:
    """Have all scopes that are made meanwhile, in all threads, use other executors: in tests, for example.

    Args:
        make: called with the executor that a scope would use. Returns the one to use instead.
    """
    global _replace
    before, _replace = _replace, make
    try:
        yield
    finally:
        _replace = before


def executor_in_use(executor: Executor) -> Executor:
    """What a scope uses that was given this one."""
    return executor if _replace is None else check_executor(_replace(executor))


def check_accepts(scope: Scope | None, task: object) -> None:
    """Refuse what is not callable, unless one of the executors that may get it can do something with it."""
    while scope is not None:
        accepts = getattr(scope._executor, "accepts", None)
        if accepts is not None and accepts(task) is True:
            return
        scope = scope._parent
    advice = "Give the task itself, not called yet, and then its arguments: enqueue(send_email, user_id)."
    if isinstance(task, str):
        advice = "Task names need the Celery executor."
    raise TypeError(f"{task!r} ({type(task).__name__}) cannot be enqueued: the executor does not take it. {advice}")


def run_in_context(intent: Intent, function: Callable[..., _T], *args: Any) -> _T:
    """Call a function in the context that an intent was enqueued in, and in no scope.

    Context variables are as they were at the `enqueue` call, and what the carriers have brought is entered. That
    happens once each time that a scope dispatches the intent: a second call finds the context it is called in.

    Args:
        intent: whose context it is.
        function: called with `args`.

    Returns:
        What the function returns.
    """
    context = intent._context
    if context is None or intent._is_context_used:
        return call_in(NOWHERE, function, *args)
    intent._is_context_used = True
    context.run(current.set, NOWHERE)
    carried = intent._details.carried
    return context.run(_run_with, carried, function, args) if carried else context.run(function, *args)


def _run_with(
    carried: tuple[AbstractContextManager[object], ...], function: Callable[..., _T], args: tuple[Any, ...]
) -> _T:
    returned: list[_T] = []

    def innermost() -> None:
        returned.append(function(*args))

    call: Callable[[], None] = innermost
    for manager in reversed(carried):
        call = _inside(manager, call)
    call()
    if not returned:
        raise UsageError(f"One of the carriers {carried!r} swallowed what the dispatch raised. Let it through.")
    return returned[0]


def _inside(manager: AbstractContextManager[object], call: Callable[[], None]) -> Callable[[], None]:
    if isinstance(manager, ContextDecorator):
        # What `contextmanager` makes can be entered once, but decorates any number of calls: an intent may be
        # dispatched again.
        return manager(call)

    def inside() -> None:
        with manager:
            call()

    return inside


def dispatch_one(executor: Executor, intent: Intent) -> Outcome:
    """Have an executor carry out one intent, in the context it was enqueued in.

    Returns:
        `None`, the exception it raised, or `OutcomeUnknown` if it was interrupted, by Ctrl-C for example: that may have
        been before or after the effect.
    """
    outcomes: list[Outcome] = []
    try:
        carry_out(executor, intent, outcomes)
        return outcomes.pop()
    except BaseException as interruption:
        return OutcomeUnknown(interruption)


# An interruption may come between any two lines. So the line that calls an executor also notes the outcome.


def carry_out(executor: Executor, intent: Intent, outcomes: list[Outcome]) -> None:
    """Have an executor carry out one intent, in the context it was enqueued in, and append the outcome.

    An interruption propagates. If there is no outcome then, nobody can tell.
    """
    begin = len(outcomes)
    try:
        context = intent._context
        if context is None or intent._is_context_used or intent._details.carried:
            result = run_in_context(intent, _call, executor, intent, outcomes)
        else:  # the same, without the detour
            intent._is_context_used = True
            context.run(current.set, NOWHERE)
            outcomes.append((result := context.run(executor, intent), None)[1])
        if result is not None:
            _check_is_no_coroutine(executor, result, outcomes)
    except BaseException as error:
        if interrupts(error):
            raise
        # If the executor has returned, it was a carrier that failed.
        outcomes[begin:] = [OutcomeUnknown(error) if len(outcomes) > begin else error]
    else:
        forget_contexts((intent,))


def _call(executor: Executor, intent: Intent, outcomes: list[Outcome]) -> object:
    outcomes.append((result := executor(intent), None)[1])
    return result


def _check_is_no_coroutine(executor: Executor, result: object, outcomes: list[Outcome]) -> None:
    if isinstance(result, (Coroutine, Generator, AsyncGenerator)):
        outcomes.pop()
        if isinstance(result, Coroutine):
            result.close()
        raise UsageError(
            f"{executor!r} returned a {type(result).__name__}, which nobody runs, so nothing was dispatched. "
            "An executor is a plain function, or an object with a plain __call__."
        )


def carry_out_many(executor: Executor, intents: Sequence[Intent], outcomes: list[Outcome]) -> None:
    """Have an executor carry out several intents, as many of them as it takes at a time, and append their outcomes.

    An interruption propagates. If there are no outcomes then, nobody can tell.
    """
    begin = len(outcomes)
    try:
        call_in(NOWHERE, _call_many, executor, intents, outcomes)
    except BaseException as error:
        if interrupts(error):
            raise
        outcomes[begin:] = [OutcomeUnknown(error)] * len(intents)
    forget_contexts([intent for intent, outcome in zip(intents, outcomes[begin:], strict=False) if outcome is None])


def _call_many(executor: Any, intents: Sequence[Intent], outcomes: list[Outcome]) -> None:
    outcomes.extend(answer if isinstance(answer := executor.dispatch_many(intents), (list, Sequence)) else ())
    if not isinstance(answer, Sequence) or not 0 < len(answer) <= len(intents):
        raise UsageError(
            f"dispatch_many of {executor!r} was given {len(intents)} intents and returned {answer!r}. It must return a "
            "list with None, an exception or an OutcomeUnknown for each of them, or for the first ones."
        )
    del answer  # the traceback of an error in it refers to this frame


def forget(executor: Any, intents: list[Intent], *, rolled_back: bool = False) -> None:
    """Tell an executor of intents that will not be dispatched, and free what they have captured."""
    if intents and hasattr(executor, "forget"):
        executor.forget(intents, rolled_back)
    forget_contexts(intents)
