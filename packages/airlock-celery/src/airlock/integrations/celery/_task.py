"""A Celery task that is a boundary."""

from __future__ import annotations

import functools
import inspect
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from celery import Task
from celery.exceptions import Ignore, Retry

import airlock
from airlock._place import here
from airlock.integrations.executors.celery import celery_executor

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from airlock import Executor, Policy, Scope
    from airlock._place import Here

    _Task = Task[..., Any]
else:
    _Task = Task


class _Run:
    """A run of a task, what is around it, and what it has come to."""

    def __init__(self, request: object, scope: Scope) -> None:
        self.request = request
        self.scope = scope
        self.outside: Here = here.get()
        self.outer = _current_run.get()
        #: The `Retry` or `Ignore` that says that another run does the work, though this one may go on and return.
        self.handed_on: BaseException | None = None
        self.flushes = False

    def attempt(self, run: Callable[[], Any], should_flush: Callable[[BaseException | None], bool]) -> Any:
        try:
            result = run()
        except BaseException as error:
            self.flushes = should_flush(error)
            raise
        if isinstance(result, Retry):  # for which Celery makes another attempt, in `apply()` too
            self.handed_on = result
        self.flushes = should_flush(self.handed_on)
        return result

    def leave(self) -> None:
        """Make current what was so before the run."""
        here.set(self.outside)
        _current_run.set(self.outer)


#: The innermost run. Not kept on the request: Celery copies the attributes of one to another, and has none in a bare
#: `task.run()`.
_current_run: ContextVar[_Run | None] = ContextVar("airlock_celery", default=None)


def _run_of(task: Any) -> _Run | None:
    """The current run, if it is one of this task: `autoretry_for` asks for a retry outside of it."""
    run = _current_run.get()
    return run if run is not None and run.request is task.request_stack.top else None


def noting_retries(retry: Callable[..., Any]) -> Callable[..., Any]:
    """Make a run that goes on after `retry()` known as what it is: an attempt that failed."""

    @functools.wraps(retry)
    def noting_retry(task: Any, *args: Any, **kwargs: Any) -> Any:
        run = _run_of(task)
        if run is None or task.request.called_directly or task.request.is_eager:
            return retry(task, *args, **kwargs)  # which publishes nothing: what it raises counts, if the run does
        try:
            run.handed_on = retried = retry(task, *args, **kwargs)
        except Retry as error:  # which the run may catch
            run.handed_on = error
            raise
        return retried

    return noting_retry


def noting_replacements(on_replace: Callable[..., Any]) -> Callable[..., Any]:
    """Make a run that goes on after `replace()` known as replaced, and its replacement a run beside it.

    In a worker, the replacement is another message, and `replace()` raises `Ignore`. In `apply()`, it is run by
    `replace()`, which returns its result: its effects are its own there, too, and not those of the run it replaces.
    """

    @functools.wraps(on_replace)
    def noting_replacement(task: Any, replacement: Any) -> Any:
        run = _run_of(task)
        if run is None:
            return on_replace(task, replacement)
        inside = here.get()
        if task.request.is_eager:
            run.handed_on = Ignore("Replaced by new task")
        try:
            run.leave()
            return on_replace(task, replacement)
        except Ignore as error:  # which the run may catch
            run.handed_on = error
            raise
        finally:
            here.set(inside)
            _current_run.set(run)

    return noting_replacement


class AirlockTask(_Task):
    """A task with a scope around each run: what it enqueues goes out if the run succeeds, and only then.

        @app.task(base=AirlockTask)
        def charge(order_id): ...

    An exception discards: a failure, `Retry`, `Ignore`, `Reject`, a soft time limit. So of several attempts only the
    one that succeeds has effects. In a configured Django with airlock-django installed the scope is a `DjangoScope`.

    Subclasses decide more by overriding `get_policy`, `get_executor` and `should_flush`.
    """

    abstract = True

    def get_policy(self) -> Policy | None:
        """The policy for this run; by default `None`, which stands for the configured one."""
        return None

    def get_executor(self) -> Executor | None:
        """The executor for this run; by default `None`, which stands for the configured one, or else Celery's."""
        return None

    def should_flush(self, error: BaseException | None) -> bool:
        """Decide whether the effects of this run go out. By default the scope decides: if there was no error.

        The scope is still the current one, and `self.request` that of the run.

        Args:
            error: what the run raised, which propagates in either case; or the `Retry` or `Ignore` of a run that goes
                on after `retry()` or `replace()`; `None` if it succeeded.
        """
        scope: Any = airlock.get_current_scope()
        return bool(scope.should_flush(error))

    retry = noting_retries(Task.retry)
    on_replace = noting_replacements(Task.on_replace)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # As early as that, for `autoretry_for`, which may take the `run` before Celery binds the task.
        super().__init_subclass__(**kwargs)
        wrap_runs(cls, _run_airlock_task)

    @classmethod
    def bind(cls, app: Celery) -> Celery:
        """As in Celery, which calls it when it registers the task."""
        bound = super().bind(app)
        wrap_runs(cls, _run_airlock_task)  # once more: `task_annotations` may have set another `run`
        return bound


def _run_airlock_task(task: AirlockTask, run: Callable[[], Any]) -> Any:
    return run_in_scope(task, run, lambda: new_scope(task.get_policy(), task.get_executor()), task.should_flush)


def run_in_scope(
    task: _Task,
    run: Callable[[], Any],
    make_scope: Callable[[], Scope],
    should_flush: Callable[[BaseException | None], bool] | None = None,
) -> Any:
    """Run a task in a scope, and flush that if `should_flush` says so; by default it decides itself."""
    request: Any = task.request_stack.top
    around = _current_run.get()
    if around is not None and request is not None and around.request is request and around.scope.is_active:
        return run()  # the `run` of a class called by that of its subclass, and both are wrapped
    scope = make_scope()
    should_flush = should_flush or scope.should_flush
    current = _Run(request, scope)
    # A soft time limit strikes between any two lines, and a run may enter scopes and forget them. What stayed current
    # would capture all that later runs in this worker enqueue. (Nothing is caught at a line that reads just `try:`.)
    try:
        try:
            scope.enter()
            _current_run.set(current)
            result = current.attempt(run, should_flush)
        finally:
            if scope.is_active:
                scope.exit()
                current.leave()
                if current.flushes:
                    scope.flush()
                else:
                    scope.discard()
    finally:
        current.leave()
    return result


def wrap_runs(task_cls: Any, wrapper: Callable[[Any, Callable[[], Any]], Any]) -> tuple[Any, Any]:
    """Put `wrapper(task, run)` around every run of the tasks of a class.

    Returns:
        What was the attribute `run` of the class, and what it is now.
    """
    # Around `run`, and not around `__call__`: with a `__call__` of its own a task would cover the request of the run
    # with an empty one in `apply()` (celery/app/trace.py, _install_stack_protection, in 5.4 to 5.7).
    run = inspect.getattr_static(task_cls, "run")
    task_cls.run = wrapped = run if isinstance(run, _WrappedRun) else _WrappedRun(run, wrapper)
    return run, wrapped


class _WrappedRun:
    """The attribute `run` of a task class, as a method or a static method, whatever it was."""

    def __init__(self, run: Any, wrapper: Callable[[Any, Callable[[], Any]], Any]) -> None:
        self._run = run
        self._wrapper = wrapper

    def __get__(self, task: Any, task_cls: Any = None) -> Any:
        run = self._run.__get__(task, task_cls)
        if task is None:
            return run

        return wrapped_run(task, run, self._wrapper)


def wrapped_run(
    task: Any, run: Callable[..., Any], wrapper: Callable[[Any, Callable[[], Any]], Any]
) -> Callable[..., Any]:
    @functools.wraps(run)
    def wrapped_run(*args: Any, **kwargs: Any) -> Any:
        return wrapper(task, functools.partial(run, *args, **kwargs))

    return wrapped_run


def new_scope(policy: Policy | None = None, executor: Executor | None = None) -> Scope:
    """A scope for a task: a `DjangoScope` in a configured Django, with Celery's executor if none is configured."""
    scope = airlock.scope(policy, executor=executor, _cls=_scope_cls_of_django())
    if scope._executor is None:
        scope._executor = celery_executor
    return scope


def _scope_cls_of_django() -> Any:
    if airlock.get_configuration().scope_cls is not None:
        return None
    django_conf = sys.modules.get("django.conf")
    if django_conf is None or not django_conf.settings.configured:
        return None
    try:
        from airlock.integrations.django import make_scope
    except ModuleNotFoundError:  # a Celery project in Django, without airlock-django
        return None
    return make_scope
