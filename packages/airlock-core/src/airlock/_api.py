"""The functions of the public interface."""

from __future__ import annotations

import sys
from contextvars import copy_context
from itertools import count
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from airlock import _events
from airlock._configuration import get_configuration, registered_carriers
from airlock._context import JUDGING, call_in, current, ended_error, innermost_open, judging_error, no_scope_error
from airlock._events import Event
from airlock._executors import check_accepts
from airlock._fates import sources
from airlock._intent import NO_DETAILS, Intent, details, full_name_of, recorded
from airlock._policies import AllowAll, tell_of_enqueue
from airlock._scope import Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airlock._executors import Executor
    from airlock._fates import Fate
    from airlock._policies import Policy

_P = ParamSpec("_P")
_ScopeT = TypeVar("_ScopeT", bound=Scope)


class _Task(Protocol[_P]):
    """What is not called, but enqueued, such as Django's tasks."""

    def enqueue(self, *args: _P.args, **kwargs: _P.kwargs) -> object: ...


#: Numbers intents in the order of enqueueing.
_next_number = count(1).__next__

#: What integrations do about an `enqueue` outside of any scope.
_no_scope_handlers: list[Callable[[str], Scope | None]] = []


@overload
def enqueue(
    task: Callable[..., object] | _Task[...] | str,
    /,
    *args: Any,
    _name: str | None,
    _origin: str | None = ...,
    _dispatch_options: Mapping[str, Any] | None = ...,
    **kwargs: Any,
) -> Intent: ...
@overload
def enqueue(
    task: Callable[..., object] | _Task[...] | str,
    /,
    *args: Any,
    _name: None = ...,
    _origin: str | None,
    _dispatch_options: Mapping[str, Any] | None = ...,
    **kwargs: Any,
) -> Intent: ...
@overload
def enqueue(
    task: Callable[..., object] | _Task[...] | str,
    /,
    *args: Any,
    _name: None = ...,
    _origin: None = ...,
    _dispatch_options: Mapping[str, Any] | None,
    **kwargs: Any,
) -> Intent: ...
@overload
def enqueue(task: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs) -> Intent: ...
@overload
def enqueue(task: _Task[_P], /, *args: _P.args, **kwargs: _P.kwargs) -> Intent: ...
@overload
def enqueue(task: str, /, *args: Any, **kwargs: Any) -> Intent: ...
def enqueue(
    task: Any,
    /,
    *args: Any,
    _name: Any = None,
    _origin: Any = None,
    _dispatch_options: Any = None,
    **kwargs: Any,
) -> Intent:
    """Record the wish that a task be run. Nothing is run here.

    The current scope keeps it until it flushes, and drops it if it is discarded. The task will be dispatched in a copy
    of the context variables of this call.

    Args:
        task: a callable, or what the executor takes besides: with Celery, tasks, signatures and task names, and with
            Django's tasks, those.
        *args: positional arguments for the task.
        _name: a name for people and policies, instead of the task's own.
        _origin: where this was asked for, instead of what `capture_origin` finds.
        _dispatch_options: options for the executor; with Celery, those of `apply_async`, such as `countdown` (seconds).
        **kwargs: keyword arguments for the task.

    Returns:
        The intent. Its `id` is known at once, and is the task's id in Celery and other queues.

    Raises:
        NoScopeError: outside of any scope.
        ScopeStateError: in a scope that has ended.
        PolicyEnqueueError: inside a policy.
        TypeError: if `task` is nothing the executor could carry out.
        UsageError: if an integration cannot tell whether a transaction is open.
        Exception: what a policy's `on_enqueue` raises, such as `PolicyViolation`, and what the executor raises about
            arguments that do not fit.
    """
    context = current.get()
    scope = context.scope
    if scope is None:
        with _scope_from_integrations(full_name_of(task)) as scope:
            if scope.capture_origin:
                _origin = _origin or _calling_line()
            return enqueue(task, *args, _name=_name, _origin=_origin, _dispatch_options=_dispatch_options, **kwargs)
    own = scope._own  # before the look at the state: the list of an ended scope is another one
    if scope._state != "active":
        raise ended_error(full_name_of(task), scope)
    if not callable(task):
        check_accepts(scope, task)
    if _origin is None and scope.capture_origin:
        _origin = _calling_line()
    judges = context.judges
    given = NO_DETAILS
    if _name is not None or _origin is not None or _dispatch_options is not None:
        given = details(_name, _origin, _dispatch_options)
    intent = recorded(task, args, kwargs, given, judges, _next_number())
    if scope._check is not None:
        scope._check(intent)
    if judges.every:
        call_in(JUDGING, tell_of_enqueue, judges.every, intent)
    if scope.transactional:
        for source in sources:
            intent._fates += source.open_fates()
    if registered_carriers or scope.carriers:
        carried = []
        for carrier in (*registered_carriers, *scope.carriers):
            if (manager := carrier()) is not None:
                carried.append(manager)  # noqa: PERF401 - faster than a comprehension, before Python 3.12
        if carried:
            intent._details = given._replace(carried=tuple(carried))
    intent._context = copy_context()
    own.append(intent)
    if scope._state != "active" and not scope._was_in_time(intent, own):  # type: ignore[unreachable]
        raise ended_error(full_name_of(task), scope)
    if _events.listeners or scope._is_logged:
        _events.tell([Event("enqueued", intent, scope._label())], is_logged=scope._is_logged)
    if scope._prepare is not None:
        _prepare(scope._prepare, scope, intent, own)
    return intent


def _prepare(
    prepare: Callable[[Intent, tuple[Fate, ...]], object], scope: Scope, intent: Intent, own: list[Intent]
) -> None:
    try:
        prepared = (intent._context or copy_context()).run(prepare, intent, intent._fates)
        intent._details = intent._details._replace(prepared=prepared)
    except BaseException as error:
        own.remove(intent)
        intent._details = intent._details._replace(prepared=None)
        if _events.listeners or scope._is_logged:
            why = f"refused by the executor: {type(error).__name__}"
            _events.tell([Event("failed", intent, scope._label(), why, error=error, is_handled=True)])
        raise


def _calling_line() -> str:
    caller = sys._getframe(2)
    return f"{caller.f_code.co_filename}:{caller.f_lineno}"


def _scope_from_integrations(what: str) -> Scope:
    if current.get() is JUDGING:
        raise judging_error(what)
    for handler in _no_scope_handlers:
        scope = handler(what)
        if scope is not None:
            return scope
    raise no_scope_error(what)


def when_no_scope(handler: Callable[[str], Scope | None]) -> None:
    """Have an integration decide about an `enqueue` outside of any scope.

    Args:
        handler: called with the name of the task. It may raise an error of its own that says what to do, or return a
            scope (not yet entered) for this one intent, or `None` to leave it to others.
    """
    _no_scope_handlers.append(handler)


@overload
def scope(
    policy: Policy | None = None, *, executor: Executor | None = None, _cls: type[_ScopeT], **scope_kwargs: Any
) -> _ScopeT: ...
@overload
def scope(
    policy: Policy | None = None,
    *,
    executor: Executor | None = None,
    _cls: Callable[..., Scope] | None = None,
    **scope_kwargs: Any,
) -> Scope: ...
def scope(
    policy: Policy | None = None, *, executor: Executor | None = None, _cls: Any = None, **scope_kwargs: Any
) -> Any:
    """Buffer what is enqueued inside, and let it go at the end of the block if that ends well.

        with airlock.scope():
            place_order()

    Args:
        policy: judges the intents; by default the configured one.
        executor: carries them out; by default the configured one.
        _cls: makes the scope, instead of the configured class.
        **scope_kwargs: further arguments for it, besides the configured ones if it is of the configured class.

    Returns:
        The scope: a context manager that yields itself, for `with` and `async with`, to be used once.

    Raises:
        TypeError: if the policy or the executor is of the wrong kind.
    """
    if _cls is None:
        defaults = get_configuration()
        _cls = defaults.scope_cls or Scope
        if defaults.scope_kwargs:
            scope_kwargs = {**defaults.scope_kwargs, **scope_kwargs}
    # Only what was given: a constructor need not take all of them. A scope reads the configuration itself.
    if policy is not None:
        scope_kwargs["policy"] = policy
    if executor is not None:
        scope_kwargs["executor"] = executor
    return _cls(**scope_kwargs) if scope_kwargs else _cls()


def detached() -> Scope:
    """Dispatch what is enqueued inside at the end of the block, whatever becomes of the scopes and transactions around.

        with airlock.detached():
            airlock.enqueue(warn_about_failed_login, user.id)
        raise PermissionDenied

    For the few effects that must go out also if everything around them fails: a security alert, an audit record. The
    policies around it judge them as ever. Transactions inside of it do not count either. A block that raises discards.

    Returns:
        The scope: a context manager that yields itself, for `with` and `async with`, to be used once.
    """
    around = innermost_open().scope
    if around is None:
        new = scope()
    else:
        new = scope(AllowAll(), executor=around._outermost_given)  # the policies around it are enough
        new.capture_origin, new.carriers = around.capture_origin, around.carriers
    new.capturable = False
    new.transactional = False
    return new


def get_current_scope() -> Scope | None:
    """The innermost scope the running code is in, or `None`.

    A thread or asyncio task that outlived its scope still gets it; `is_active` tells that it has ended.
    """
    return current.get().scope
