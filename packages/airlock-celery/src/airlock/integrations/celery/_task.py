"""A Celery task that is a boundary."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from celery import Task
from celery.exceptions import Ignore, Retry, SoftTimeLimitExceeded

import airlock
from airlock.ext import outside
from airlock.integrations.executors.celery import celery_executor

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery
    from celery.contrib.django.task import DjangoTask

    from airlock import Executor, Policy, Scope

    _Task = DjangoTask[..., Any]
else:
    try:
        from celery.contrib.django.task import DjangoTask as _Task  # what Celery gives a Django project
    except ImportError:  # no Django
        _Task = Task

logger = logging.getLogger("airlock")

#: Whether Celery is publishing something of its own, and not user code.
by_celery: ContextVar[bool] = ContextVar("airlock_celery_publishes", default=False)


def calling_as_celery(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark what a function of Celery's publishes as not the user's."""

    @functools.wraps(function)
    def calling(*args: Any, **kwargs: Any) -> Any:
        before = by_celery.set(True)
        try:
            return function(*args, **kwargs)
        finally:
            by_celery.reset(before)

    return calling


class _Run:
    """A run of a task: its scope, and whether another run does the work instead."""

    def __init__(self, request: object, scope: Scope) -> None:
        self.request = request
        self.scope = scope
        self.outer = _current_run.get()
        self._was_by_celery = by_celery.get()
        #: The `Retry` or `Ignore` that says that another run does the work, though this one may go on and return.
        self.handed_on: BaseException | None = None
        #: Whether nothing is left to do but to flush.
        self.has_succeeded = False

    def begin(self) -> None:
        """Enter the scope. What is called from now on is called by user code."""
        self.scope.enter()
        _current_run.set(self)
        by_celery.set(False)

    def _restore(self) -> None:
        _current_run.set(self.outer)
        by_celery.set(self._was_by_celery)

    def end(self, should_flush: Callable[[BaseException | None], bool], error: BaseException | None) -> None:
        """Leave the scope, and flush or discard it."""
        flushes: object = should_flush(error)
        if flushes is not True and flushes is not False:
            raise airlock.UsageError(f"should_flush returned {flushes!r} for a task: return True or False.")
        self._restore()
        self.scope.exit()
        if flushes:
            self.has_succeeded = error is None
            self.scope.flush()
        else:
            if error is not None:
                self.scope.discard_reason = f"the run of the task ended with {type(error).__name__}"
            self.scope.discard()

    def finish_flush_despite(self, error: BaseException) -> bool:
        """Finish the flush if `error` is an interruption that came when effects may have been out."""
        scope = self.scope
        is_interruption = not isinstance(error, Exception) or isinstance(error, SoftTimeLimitExceeded)
        # If they are not owed any more, they are out, or an enclosing scope has captured them.
        is_begun = len(scope.undispatched_intents) < len(scope.intents) or bool(scope.unknown_intents)
        if not (self.has_succeeded and is_interruption and is_begun):
            return False
        scope.dispatch_all(scope.undispatched_intents)  # what nobody knows of is sent again, with the same id
        logger.warning("%r came when a task's run had succeeded and its effects were going out: ignored", error)
        return True

    def give_up(self) -> None:
        """Leave nothing behind, wherever the run was broken off."""
        self._restore()
        if self.scope.is_active:
            self.scope.exit()
        with suppress(airlock.ScopeStateError):  # it was never entered, or has ended
            self.scope.discard_reason = self.scope.discard_reason or "the run of the task did not come to its end"
            self.scope.discard()


#: The innermost run. Not kept on the request: Celery copies the attributes of one to another, and has none in a bare
#: `task.run()`.
_current_run: ContextVar[_Run | None] = ContextVar("airlock_celery", default=None)


def _runs_of(task: Any) -> list[_Run]:
    """The current runs of this task, innermost first: more than one if `self.run()` was called.

    None if the current run is another one's: `autoretry_for` asks for a retry outside of it.
    """
    runs = []
    run = _current_run.get()
    while run is not None and run.request is task.request_stack.top:
        runs.append(run)
        run = run.outer
    return runs


def noting_retries(retry: Callable[..., Any]) -> Callable[..., Any]:
    """Make a run that goes on after `retry()` known as what it is: an attempt that failed."""
    retry = calling_as_celery(retry)

    @functools.wraps(retry)
    def noting_retry(task: Any, *args: Any, **kwargs: Any) -> Any:
        runs = _runs_of(task)
        if not runs or task.request.called_directly or task.request.is_eager:
            return retry(task, *args, **kwargs)  # which publishes nothing: what it raises counts, if the run does
        try:
            retried = retry(task, *args, **kwargs)
        except Retry as error:  # which the run may catch
            _hand_on(runs, error)
            raise
        _hand_on(runs, retried)
        return retried

    return noting_retry


def _hand_on(runs: list[_Run], to: BaseException) -> None:
    for run in runs:
        run.handed_on = to


def noting_replacements(on_replace: Callable[..., Any]) -> Callable[..., Any]:
    """Make a run that goes on after `replace()` known as replaced, and its replacement a run beside it.

    In a worker, the replacement is another message, and `replace()` raises `Ignore`. In `apply()`, it is run by
    `replace()`, which returns its result: its effects are its own there, too, and not those of the run it replaces.
    """

    publish = calling_as_celery(on_replace)

    @functools.wraps(on_replace)
    def noting_replacement(task: Any, replacement: Any) -> Any:
        runs = _runs_of(task)
        replace = on_replace if task.request.is_eager else publish
        if not runs:
            return replace(task, replacement)
        if task.request.is_eager:
            _hand_on(runs, Ignore("Replaced by new task"))
        innermost, outermost = runs[0], runs[-1]
        try:
            with outside(outermost.scope):
                _current_run.set(outermost.outer)
                return replace(task, replacement)
        except Ignore as error:  # which the run may catch
            _hand_on(runs, error)
            raise
        finally:
            _current_run.set(innermost)

    return noting_replacement


class AirlockTask(_Task):
    """A task with a scope around each run: what it enqueues goes out if the run succeeds, and only then.

        @app.task(base=AirlockTask)
        def charge(order_id): ...

    An exception discards: a failure, `Retry`, `Ignore`, `Reject`, a soft time limit. So of several attempts only the
    one that succeeds has effects. In a configured Django with airlock-django installed the scope is a `DjangoScope`.

    Subclasses decide more by overriding `get_policy`, `get_executor`, `around_run` and `should_flush`.
    """

    abstract = True

    def get_policy(self) -> Policy | None:
        """The policy for this run; by default `None`, which stands for the configured one."""
        return None

    def get_executor(self) -> Executor | None:
        """The executor for this run; by default `None`, which stands for the configured one, or else Celery's."""
        return None

    def around_run(self, run: Callable[[], Any]) -> Any:
        """Carry out the run, in its scope. Override it to do something around that before effects go out.

            def around_run(self, run):
                with transaction.atomic():
                    return super().around_run(run)

        `self.request` is that of the run, and `self.handed_on` tells whether another run is to do its work.

        Args:
            run: what carries it out, and returns the result. If it is not called, there is nothing to be done.

        Returns:
            The result of the run.
        """
        return run()

    @property
    def handed_on(self) -> BaseException | None:
        """The `Retry` or `Ignore` by which the run has left its work to another one, though it goes on; or `None`."""
        runs = _runs_of(self)
        return runs[0].handed_on if runs else None

    def should_flush(self, error: BaseException | None) -> bool:
        """Decide whether the effects of this run go out. By default the scope decides: if there was no error.

        The scope is still the current one, and `self.request` that of the run.

        Args:
            error: what the run raised, which propagates in either case; or the `Retry` or `Ignore` of a run that goes
                on after `retry()` or `replace()`; `None` if it succeeded.
        """
        scope: Any = airlock.get_current_scope()
        flushes: bool = scope.should_flush(error)
        return flushes

    retry = noting_retries(Task.retry)
    on_replace = noting_replacements(Task.on_replace)
    add_to_chord = calling_as_celery(Task.add_to_chord)

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
    around = functools.partial(task.around_run, run)
    return run_in_scope(task, around, lambda: new_scope(task.get_policy(), task.get_executor()), task.should_flush)


def run_in_scope(
    task: Task[..., Any],
    run: Callable[[], Any],
    make_scope: Callable[[], Scope],
    should_flush: Callable[[BaseException | None], bool] | None = None,
) -> Any:
    """Run a task in a scope, and flush that if `should_flush` says so; by default it decides itself."""
    scope = make_scope()
    current = _Run(task.request_stack.top, scope)
    should_flush = should_flush or scope.should_flush
    result = None
    # A soft time limit, or Ctrl-C, may come between any two lines. Before the first effect it fails the run, which then
    # has none. From then on it comes too late.
    try:
        current.begin()
        try:
            result = run()
        except BaseException as error:
            current.end(should_flush, error)
            raise
        if isinstance(result, Retry):  # for which Celery makes another attempt, in `apply()` too
            current.handed_on = result
        current.end(should_flush, current.handed_on)
        return result  # noqa: TRY300 - here: what interrupts on this very line comes too late, too
    except BaseException as error:
        if current.finish_flush_despite(error):
            return result
        current.give_up()
        raise


def wrap_runs(task_cls: Any, wrapper: Callable[[Any, Callable[[], Any]], Any]) -> None:
    """Put `wrapper(task, run)` around every run of the tasks of a class."""
    # Around `run`, and not around `__call__`: with a `__call__` of its own a task would cover the request of the run
    # with an empty one in `apply()` (celery/app/trace.py, _install_stack_protection, in 5.4 to 5.7).
    run = inspect.getattr_static(task_cls, "run")
    task_cls.run = run if isinstance(run, _WrappedRun) else _WrappedRun(run, wrapper)


class _WrappedRun:
    """The attribute `run` of a task class, as a method or a static method, whatever it was."""

    def __init__(self, run: Any, wrapper: Callable[[Any, Callable[[], Any]], Any]) -> None:
        self._run = run
        self._wrapper = wrapper

    def __get__(self, task: Any, task_cls: Any = None) -> Any:
        run = self._run.__get__(task, task_cls)
        if task is None or inspect.getattr_static(type(task), "run") is not self:
            return run  # that of the class itself, or that of a base class: `super().run()` is a part of the same run
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
    _make_django_known()
    if executor is None and airlock.get_configuration().executor is None:
        executor = celery_executor
    return airlock.scope(policy, executor=executor)


def _make_django_known() -> None:
    """In a configured Django, have `airlock.scope()` respect its settings and transactions."""
    django_conf = sys.modules.get("django.conf")
    if django_conf is not None and django_conf.settings.configured:
        with suppress(ModuleNotFoundError):  # a Celery project in Django, without airlock-django
            import airlock.integrations.django  # noqa: F401
