"""From `.delay()` to `airlock.enqueue()`: existing calls go through airlock, and say where they are.

A call in a scope is the user's, unless Celery makes it. Celery publishes retries, callbacks, chains and replacements
itself, and says so: such a call names the task whose child it is, or one of its own tasks makes it. What else it
publishes, it does in few places, which are marked. Airlock's own dispatch runs in no scope.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import TYPE_CHECKING, Any

from celery import Celery, Task, _state, current_task
from celery.backends.base import Backend
from celery.beat import Scheduler
from celery.canvas import Signature, chunks, xmap, xstarmap

import airlock
from airlock.ext import is_judging
from airlock.integrations.celery._task import (
    AirlockTask,
    by_celery,
    calling_as_celery,
    new_scope,
    noting_replacements,
    noting_retries,
    run_in_scope,
    wrap_runs,
    wrapped_run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

    from celery.result import AsyncResult

#: Packages whose lines are not the user's.
_NOT_THE_USERS = {
    *("airlock", "asgiref", "celery", "contextlib", "django", "functools", "kombu"),
    *("ddtrace", "elasticapm", "newrelic", "opentelemetry", "scout_apm", "sentry_sdk", "wrapt"),
}

#: Options that say how to publish now, and mean nothing to a dispatch later on.
_OF_THE_MOMENT = {"connection", "producer", "publisher"}

#: Every kind of signature that has an `apply_async` of its own.
_CANVASES: list[Any] = [
    cls
    for cls in dict.fromkeys(base for kind in Signature.TYPES.values() for base in kind.__mro__)
    if "apply_async" in vars(cls)
]


def _is_in_scope() -> bool:
    scope = airlock.get_current_scope()
    return not by_celery.get() and (is_judging() or (scope is not None and scope.is_active))


def _is_celerys(called: Any, options: dict[str, Any]) -> bool:
    """Whether Celery itself calls `apply_async`: it says whose child the task is, or has a task of its own do it."""
    if isinstance(called, Signature):
        options = {**called.options, **options}
    elif _is_celerys_task(called):
        return True
    return bool(options.get("root_id") or options.get("parent_id") or _is_celerys_task(current_task))


def _is_celerys_task(task: Any) -> bool:
    return bool(task) and task.__module__.partition(".")[0] == "celery"


def _deferring(apply_async: Callable[..., Any], concerns: Callable[[Any], bool]) -> Any:
    """Make an `apply_async` that enqueues the whole call, if user code makes it in a scope."""

    @functools.wraps(apply_async)
    def deferring(called: Any, *args: Any, **kwargs: Any) -> Any:
        if not (concerns(called) and _is_in_scope()):
            return apply_async(called, *args, **kwargs)
        if not _is_celerys(called, kwargs):
            return _enqueue(called, *args, **kwargs)
        if isinstance(called, Signature) and type(called) is not Signature:
            return calling_as_celery(apply_async)(called, *args, **kwargs)  # and so are its parts
        return apply_async(called, *args, **kwargs)

    return deferring


class LegacyTaskShim(AirlockTask):
    """An `AirlockTask` that can still be called the old way: in a scope, `.delay()` and `.apply_async()` enqueue.

    The call gets a `DeprecationWarning` at its line, and returns the `AsyncResult` of the task that will run. The whole
    call is deferred: an `apply_async` of a subclass, or of another base class, is called when the task is dispatched.
    What Celery itself publishes - retries, chains, chords, `replace`, beat - is left alone, and so are calls outside of
    any scope.
    """

    abstract = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        owner, below, *_ = (base for base in cls.__mro__ if "apply_async" in vars(base))
        defers_already = owner is not cls and issubclass(owner, LegacyTaskShim)
        if not defers_already or (owner is LegacyTaskShim and below is not Task):
            cls.apply_async = _deferring(vars(owner)["apply_async"], _always)  # type: ignore[method-assign]

    def apply_async(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        """As in Celery, but for calls of user code in a scope."""
        if not _is_in_scope() or _is_celerys(self, kwargs):
            return super().apply_async(*args, **kwargs)
        return _enqueue(self, *args, **kwargs)


def _always(_: object) -> bool:
    return True


_installed: _Intercept | None = None


def install_global_intercept(app: Celery | None = None, *, wrap_task_execution: bool = True) -> None:
    """Route every `.delay()` and `.apply_async()` that user code calls in a scope through airlock.

    For tasks, signatures, chains, groups and chords, without touching a line of their code. The call gets a
    `DeprecationWarning` at its line, and returns the `AsyncResult` of the task that will run. The whole call is
    deferred: an `apply_async` that a task overrides is called when the task is dispatched. What Celery itself
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
        #: The classes whose `apply_async` is ours.
        self._deferred: set[Any] = set()
        self._patches: list[tuple[Any, str, Any, Any]] = []

    def install(self, wrap_task_execution: bool) -> None:
        self._active = True
        self._wraps_runs = wrap_task_execution
        for cls in (Task, *_CANVASES):
            self._defer_calls(cls)
        for cls, name in ((Scheduler, "apply_async"), (Backend, "mark_as_done")):
            self._patch(cls, name, calling_as_celery(vars(cls)[name]))
        # Tasks are bound when they are registered: some by now, the others later on.
        self._patch(Task, "bind", _Binding(vars(Task)["bind"], self._take_over))
        for name, noting in (
            ("retry", noting_retries),
            ("on_replace", noting_replacements),
            ("add_to_chord", calling_as_celery),
        ):
            self._patch(Task, name, noting(vars(Task)[name]))
        state: Any = _state
        apps: Any = state._get_active_apps() if self._app is None else [self._app]  # noqa: SLF001 - no public list of apps
        for app in apps:
            for task in app._tasks.values():  # noqa: SLF001 - `app.tasks` would finalize the app
                self._take_over(task)

    def uninstall(self) -> None:
        self._active = False  # for those whose patch lies over ours
        for cls, name, original, patch in reversed(self._patches):
            if vars(cls).get(name) is not patch:
                continue
            if original is None:  # it was inherited
                delattr(cls, name)
            else:
                setattr(cls, name, original)

    def wraps_run_of(self, task: Task[..., Any]) -> bool:
        return self._wraps_runs and self._concerns(task) and not isinstance(task, AirlockTask)

    def _concerns(self, called: Task[..., Any] | Signature[Any]) -> bool:
        return self._active and (self._app is None or called.app == self._app)  # either may be a proxy

    def _patch(self, cls: Any, name: str, patch: Any) -> None:
        self._patches.append((cls, name, vars(cls).get(name), patch))
        setattr(cls, name, patch)

    def _defer_calls(self, cls: Any) -> None:
        if cls not in self._deferred and not issubclass(cls, LegacyTaskShim):
            self._deferred.add(cls)
            self._patch(cls, "apply_async", _deferring(vars(cls)["apply_async"], self._concerns))

    def _take_over(self, task: Any) -> None:
        for cls in type(task).__mro__:
            if issubclass(cls, Task) and "apply_async" in vars(cls):
                self._defer_calls(cls)
        if self._wraps_runs:
            self._wrap_runs(task)

    def _wrap_runs(self, task: Any) -> None:
        cls = type(task)
        if issubclass(cls, AirlockTask) or _is_celerys_task(task):
            return
        before = vars(cls).get("run")
        wrap_runs(cls, _run_intercepted)
        self._patches.append((cls, "run", before, vars(cls)["run"]))
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


def _enqueue(called: Any, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
    task_args, task_kwargs, options = _given(*args, **kwargs)
    name = airlock.Intent(called).name
    named = "signature" if isinstance(called, Signature) else name
    caller = calling_line(called)
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
    if isinstance(called, Signature):
        called = _copy(called)  # the caller may go on to change it
    intent = airlock.enqueue(
        called, *task_args, _origin=f"{filename}:{line}", _dispatch_options=options or None, **task_kwargs
    )
    result: AsyncResult[Any] = called.app.AsyncResult(options.get("task_id") or intent.id)
    return result


def _given(
    args: Any = None, kwargs: Any = None, *positional: Any, **options: Any
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """The arguments for the task, and the options, of a call of `apply_async`."""
    options.update(zip(("task_id", "producer", "link", "link_error", "shadow"), positional, strict=False))
    options = {name: value for name, value in options.items() if name not in _OF_THE_MOMENT}
    return tuple(args or ()), dict(kwargs or {}), options


def _copy(signature: Any) -> Any:
    if isinstance(signature, (chunks, xmap, xstarmap)):  # of which `clone` makes plain signatures
        return type(signature).from_dict(signature, app=signature.app)
    return signature.clone()


def calling_line(called: Any = None) -> FrameType:
    """The nearest line that is not of a tool, of a wrapper around the call, or of the task's own `delay()`.

    Only to be reported: nothing is decided by it.
    """
    methods = (vars(cls).get(name) for cls in type(called).__mro__ for name in ("apply_async", "delay"))
    wrappers = {code for method in methods for code in _codes_of(method)}
    frame: Any = inspect.currentframe()
    while frame.f_back is not None and (frame.f_code in wrappers or _package_of(frame) in _NOT_THE_USERS):
        frame = frame.f_back
    found: FrameType = frame
    return found


def _package_of(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0]


def _codes_of(function: Any) -> Iterator[CodeType]:
    """The code of a function, and of those that it wraps."""
    while function is not None:
        called = function if inspect.isfunction(function) else type(function).__call__
        if inspect.isfunction(called):
            yield called.__code__
        function = getattr(function, "__wrapped__", None)
