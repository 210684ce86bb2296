"""Carry intents out as Django's tasks, and hold what a task enqueues until it succeeds.

For `django.tasks` of Django 6, and for its backport, the distribution `django-tasks`.
"""

from __future__ import annotations

import functools
import inspect
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

# First of our modules, as it tells Airlock from other projects, and says so.
from airlock.integrations.executors.sync import sync_executor

# isort: split
import airlock
import airlock.integrations.django

if TYPE_CHECKING:
    from collections.abc import Callable

    from airlock import Intent, Scope

__all__ = ["DjangoTasksExecutor", "airlock_task", "django_tasks_executor"]

_F = TypeVar("_F", bound="Callable[..., Any]")

#: The classes of tasks, and of the backend that runs them at once, and what makes arguments JSON. A project may have
#: tasks of both.
_found: list[tuple[type, type, Callable[[Any], object]]] = []
with suppress(ModuleNotFoundError):
    from django_tasks.backends.immediate import ImmediateBackend as _BackportImmediateBackend
    from django_tasks.base import Task as _BackportTask
    from django_tasks.utils import normalize_json as _normalize_for_backport

    _found.append((_BackportTask, _BackportImmediateBackend, _normalize_for_backport))
with suppress(ModuleNotFoundError):
    from django.tasks import Task as _Task
    from django.tasks.backends.immediate import ImmediateBackend as _ImmediateBackend
    from django.utils.json import normalize_json as _normalize

    _found.append((_Task, _ImmediateBackend, _normalize))
if not _found:
    raise ImportError("Django has tasks from version 6.0 on. For an older one, run: pip install django-tasks")
_TASKS = tuple(task for task, _, _ in _found)
_IMMEDIATE = tuple(backend for _, backend, _ in _found)
normalize_json = _found[-1][2]


class DjangoTasksExecutor:
    """Enqueues the intent's task on its backend, which gives it an id of its own.

    It takes what `@task` makes, and any other callable, which it calls in place. Dispatch options are those of `using`:
    `priority`, `queue_name`, `run_after` and `backend`.

    Raises:
        Exception: whatever the backend, or a callable, raises.
    """

    def accepts(self, task: object) -> bool:
        """A task, besides callables."""
        return isinstance(task, _TASKS)

    def check(self, intent: Intent, /) -> None:
        """Refuse what could not be enqueued.

        Raises:
            TypeError: if the arguments do not fit the task or are not JSON, or there is no such option.
            InvalidTask: of Django, or `InvalidTaskError` of the backport: if the backend refuses the options.
        """
        if self.accepts(intent.task):
            context = [None] if intent.task.takes_context else []
            inspect.signature(intent.task.func).bind(*context, *intent.args, **intent.kwargs)
            intent.task.using(**intent.dispatch_options)
            normalize_json([intent.args, intent.kwargs])

    def __call__(self, intent: Intent, /) -> None:
        if self.accepts(intent.task):
            intent.task.using(**intent.dispatch_options).enqueue(*intent.args, **intent.kwargs)
        else:
            sync_executor(intent)

    def runs_in_place(self, intent: Intent, /) -> bool:
        """A callable that is no task, and what goes to the `ImmediateBackend`."""
        if not self.accepts(intent.task):
            return True
        return isinstance(intent.task.using(**intent.dispatch_options).get_backend(), _IMMEDIATE)

    def __repr__(self) -> str:
        return "django_tasks_executor"


django_tasks_executor = DjangoTasksExecutor()


def airlock_task(function: _F) -> _F:
    """Run a task in a scope: what it enqueues goes out if the run succeeds, and only then.

        @task
        @airlock_task
        def process_order(order_id): ...

    For functions and coroutine functions. An exception discards. So if a backend makes several attempts, only the one
    that succeeds has effects. Follow-ups go out through the configured executor, or else through Django's tasks.

    Raises:
        TypeError: if it is above `@task`.
    """
    if isinstance(function, _TASKS):
        raise TypeError("Put @airlock_task below @task, right above the function.")
    around = _around_coroutines if inspect.iscoroutinefunction(function) else _around_calls
    return cast("_F", functools.wraps(function)(around(function)))


def _around_calls(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with _new_scope():
            return function(*args, **kwargs)

    return run


def _around_coroutines(function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        async with _new_scope():
            return await function(*args, **kwargs)

    return run


def _new_scope() -> Scope:
    is_configured = airlock.get_configuration().executor is not None
    return airlock.scope(executor=None if is_configured else django_tasks_executor)
