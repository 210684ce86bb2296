"""From `.delay()` to `airlock.enqueue()`: existing calls go through airlock, and say where they are.

Celery calls `apply_async` itself, for retries, chains, chords, `replace` and beat, in frames between those of user
code: a retry comes from the task's own body. So what counts is who calls. A call is the user's if the caller is no
module of Celery's, and Celery is not in the middle of an `apply_async` of its own.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import TYPE_CHECKING, Any

from celery import Celery, Task, _state
from celery.backends.base import Backend
from celery.beat import Scheduler
from celery.canvas import Signature, chunks, xmap, xstarmap

import airlock
from airlock.ext import is_judging
from airlock.integrations.celery._task import (
    AirlockTask,
    new_scope,
    noting_replacements,
    noting_retries,
    run_in_scope,
    wrap_runs,
    wrapped_run,
)
from airlock.integrations.executors.celery import CeleryExecutor, TaskBelowOverride

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from celery.result import AsyncResult

#: Packages whose calls of `apply_async` are the machinery's, not the user's.
_MACHINERY = {"airlock", "billiard", "celery", "kombu", "vine"}

#: Options that say how to publish now, and mean nothing to a dispatch later on.
_OF_THE_MOMENT = {"connection", "producer", "publisher"}

#: What passes a user's call on to `apply_async`: `delay()`, and calls of chains, groups and chords.
_SHORTCUTS: set[Any] = {
    function.__code__
    for function in (
        Task.delay,
        Signature.delay,
        *(vars(kind)["__call__"] for kind in Signature.TYPES.values() if "__call__" in vars(kind)),
    )
}

#: Every class that has an `apply_async` of its own.
_PUBLISHERS: list[Any] = [
    cls
    for cls in (Task, *dict.fromkeys(base for kind in Signature.TYPES.values() for base in kind.__mro__))
    if "apply_async" in vars(cls)
]

#: What publishes. If one of these called a wrapper that called `apply_async`, the call is still not the user's.
_PUBLISHING = {
    function.__code__
    for function in (
        *(cls.apply_async for cls in _PUBLISHERS),
        Backend.fallback_chord_unlock,
        Scheduler.apply_async,
        CeleryExecutor._publish,  # noqa: SLF001 - our own
    )
}


class LegacyTaskShim(AirlockTask):
    """An `AirlockTask` that can still be called the old way: in a scope, `.delay()` and `.apply_async()` enqueue.

    The call gets a `DeprecationWarning` at its line, and returns the `AsyncResult` of the task that will run. What
    Celery itself publishes - retries, chains, chords, `replace`, beat - is left alone, and so are calls outside of
    any scope.
    """

    abstract = True

    def apply_async(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        # A call of `task.s().delay()` is the user's call of this task, too.
        caller = _calling_user(self, _SHORTCUTS | {Signature.apply_async.__code__})
        if caller is None:
            return super().apply_async(*args, **kwargs)
        overridden = type(self).apply_async is not LegacyTaskShim.apply_async
        return _enqueue(TaskBelowOverride(self, super().apply_async) if overridden else self, args, kwargs, caller)


_installed: _Intercept | None = None


def install_global_intercept(app: Celery | None = None, *, wrap_task_execution: bool = True) -> None:
    """Route every `.delay()` and `.apply_async()` that user code calls in a scope through airlock.

    For tasks, signatures, chains, groups and chords, without touching a line of their code. The call gets a
    `DeprecationWarning` at its line, and returns the `AsyncResult` of the task that will run. What Celery itself
    publishes - retries, chains, chords, `replace`, beat - is left alone, and so are calls out of any scope.

    Installing again replaces what was installed before.

    Args:
        app: only this app's tasks; by default those of all apps.
        wrap_task_execution: also put a scope around the runs of tasks that are no `AirlockTask`, so that their calls
            wait for their success. A worker that runs already goes on without: install before it starts.
    """
    global _installed
    uninstall_global_intercept()
    _installed = _Intercept(app)
    _installed.install(wrap_task_execution)


def uninstall_global_intercept() -> None:
    """Undo `install_global_intercept`; does nothing if it is not installed."""
    global _installed
    if _installed is not None:
        _installed.uninstall()
        _installed = None


class _Intercept:
    def __init__(self, app: Celery | None) -> None:
        self._app = app
        self._active = False
        self._wraps_runs = False
        self._patches: list[tuple[Any, str, Any, Any]] = []

    def install(self, wrap_task_execution: bool) -> None:
        self._active = True
        self._wraps_runs = wrap_task_execution
        for cls in _PUBLISHERS:
            self._patch(cls, "apply_async", self._intercepting(cls, vars(cls)["apply_async"]))
        if wrap_task_execution:
            # Tasks are bound when they are registered: some by now, the others later on.
            self._patch(Task, "bind", _Binding(vars(Task)["bind"], self._wrap_runs))
            self._patch(Task, "retry", noting_retries(vars(Task)["retry"]))
            self._patch(Task, "on_replace", noting_replacements(vars(Task)["on_replace"]))
            state: Any = _state
            apps: Any = state._get_active_apps() if self._app is None else [self._app]  # noqa: SLF001 - no public list of apps
            for app in apps:
                for task in app._tasks.values():  # noqa: SLF001 - `app.tasks` would finalize the app
                    self._wrap_runs(task)

    def uninstall(self) -> None:
        self._active = False  # for those whose patch lies over ours
        for cls, name, original, patch in reversed(self._patches):
            if vars(cls)[name] is patch:
                setattr(cls, name, original)

    def _patch(self, cls: Any, name: str, patch: Any) -> None:
        self._patches.append((cls, name, inspect.getattr_static(cls, name), patch))
        setattr(cls, name, patch)

    def wraps_run_of(self, task: Task[..., Any]) -> bool:
        return self._wraps_runs and self._concerns(task) and not isinstance(task, AirlockTask)

    def _concerns(self, task: Task[..., Any] | Signature[Any]) -> bool:
        return self._active and (self._app is None or task.app == self._app)  # either may be a proxy

    def _intercepting(self, cls: type, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def apply_async(task: Any, *args: Any, **kwargs: Any) -> Any:
            caller = _calling_user(task, _SHORTCUTS) if self._concerns(task) else None
            if caller is None:
                return original(task, *args, **kwargs)
            if isinstance(task, Signature):
                task = _copy(task)  # the caller may go on to change it
            elif type(task).apply_async is not cls.apply_async:  # type: ignore[attr-defined]
                task = TaskBelowOverride(task, functools.partial(original, task))
            return _enqueue(task, args, kwargs, caller)

        return apply_async

    def _wrap_runs(self, task: Any) -> None:
        cls = type(task)
        if issubclass(cls, AirlockTask) or task.name.startswith("celery."):
            return
        self._patches.append((cls, "run", *wrap_runs(cls, _run_intercepted)))
        if "_orig_run" in vars(task):  # autoretry has taken the `run` of before
            self._patch(task, "_orig_run", wrapped_run(task, task._orig_run, _run_intercepted))  # noqa: SLF001 - no other way


class _Binding:
    """The class method `Task.bind`, telling of each task that Celery binds, and so registers."""

    def __init__(self, bind: Any, bound: Callable[[Any], None]) -> None:
        self._bind = bind
        self._bound = bound

    def __get__(self, task: Any, task_cls: Any = None) -> Any:
        bind = self._bind.__get__(task, task_cls)

        @functools.wraps(bind)
        def bind_and_tell(app: Celery) -> Any:
            result = bind(app)
            if task is not None:
                self._bound(task)
            return result

        return bind_and_tell


def _run_intercepted(task: Task[..., Any], run: Callable[[], Any]) -> Any:
    # Asks what is installed now, as Celery's autoretry keeps a `run` for good.
    if _installed is None or not _installed.wraps_run_of(task):
        return run()
    return run_in_scope(task, run, new_scope)


def _copy(signature: Any) -> Any:
    if isinstance(signature, (chunks, xmap, xstarmap)):  # of which `clone` makes plain signatures
        return type(signature).from_dict(signature, app=signature.app)
    return signature.clone()


def _calling_user(task: Any, shortcuts: set[Any]) -> FrameType | None:
    """The frame of the user code in a scope that calls `apply_async`, or `None` if it is not called so."""
    scope = airlock.get_current_scope()
    if not is_judging() and (scope is None or not scope.is_active):
        return None
    caller = called_by_machinery = None
    for frame in _outward():
        if frame.f_code in shortcuts:
            caller = None  # what it called was in between: an override of apply_async, or a wrapper around it
        elif _is_machinery(frame):
            entry = getattr(type(task).apply_async, "__code__", None)
            if frame.f_code in _PUBLISHING or (called_by_machinery and called_by_machinery.f_code is entry):
                return None
            return caller
        else:
            caller = caller or frame
            called_by_machinery = frame
    return caller


def _outward() -> Iterator[FrameType]:
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals is not globals():
            yield frame
        frame = frame.f_back


def _is_machinery(frame: FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] in _MACHINERY


def _enqueue(task: Any, args: tuple[Any, ...], kwargs: dict[str, Any], caller: FrameType) -> AsyncResult[Any]:
    task_args, task_kwargs, options = _given(*args, **kwargs)
    called: Any = task.task if isinstance(task, TaskBelowOverride) else task
    check_arguments = getattr(called, "__header__", None)
    if check_arguments is not None and called.typing:
        check_arguments(*task_args, **task_kwargs)  # as `apply_async` does: wrong arguments fail where they are given
    name = airlock.Intent(task).name
    named = "signature" if isinstance(task, Signature) else name
    filename, line = caller.f_code.co_filename, caller.f_lineno
    warnings.warn_explicit(
        f"{name} was called with .delay() or .apply_async() in a scope, and is enqueued instead: "
        f"write airlock.enqueue({named}, ...).",
        DeprecationWarning,
        filename,
        line,
        module=caller.f_globals.get("__name__"),
        registry=caller.f_globals.setdefault("__warningregistry__", {}),
    )
    intent = airlock.enqueue(
        task, *task_args, _origin=f"{filename}:{line}", _dispatch_options=options or None, **task_kwargs
    )
    result: AsyncResult[Any] = task.app.AsyncResult(options.get("task_id") or intent.id)
    return result


def _given(
    args: Any = None, kwargs: Any = None, *positional: Any, **options: Any
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """The arguments for the task, and the options, of a call of `apply_async`."""
    options.update(zip(("task_id", "producer", "link", "link_error", "shadow"), positional, strict=False))
    options = {name: value for name, value in options.items() if name not in _OF_THE_MOMENT}
    return tuple(args or ()), dict(kwargs or {}), options
