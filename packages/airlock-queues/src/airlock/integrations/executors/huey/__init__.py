"""Carry intents out as tasks of Huey, and hold what a task enqueues until it succeeds."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

# First of our modules, as it tells Airlock from other projects, and says so.
from airlock.integrations.executors.sync import sync_executor

# isort: split
from huey.api import TaskWrapper  # type: ignore[import-untyped]
from huey.exceptions import TaskTimeout  # type: ignore[import-untyped]

import airlock
from airlock.ext import register_interruption

if TYPE_CHECKING:
    from collections.abc import Callable

    from airlock import Intent

__all__ = ["HueyExecutor", "airlock_task", "huey_executor"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

register_interruption(TaskTimeout)


class HueyExecutor:
    """Enqueues the intent's task; the id of the intent becomes the id of the task.

    It takes tasks of any `Huey`, and any other callable, which it calls in place. Dispatch options are those of
    `schedule`: `delay` or `eta`, `priority`, `retries`, `retry_delay`, `expires` and so on.

    Raises:
        Exception: whatever the storage, or a callable, raises.
    """

    def check(self, intent: Intent, /) -> None:
        """Refuse what the task could not be called with.

        Raises:
            TypeError: if the arguments do not fit, or there is no such option.
            Exception: whatever the serializer of the `Huey` raises about the arguments: `pickle`, by default.
        """
        task = intent.task
        if isinstance(task, TaskWrapper):
            added = {"task": None} if task.context else {}
            inspect.signature(task.func).bind(*intent.args, **added, **intent.kwargs)
            inspect.signature(task.schedule).bind(**_options_of(intent))
            task.huey.serialize_task(task.task_class(intent.args, dict(intent.kwargs)))

    def __call__(self, intent: Intent, /) -> None:
        task, options = intent.task, _options_of(intent)
        if not isinstance(task, TaskWrapper):
            sync_executor(intent)
        elif options.keys() & {"delay", "eta"}:
            task.schedule(intent.args, dict(intent.kwargs), **options)
        else:
            task.huey.enqueue(task.task_class(intent.args, dict(intent.kwargs), **options))

    def runs_in_place(self, intent: Intent, /) -> bool:
        """A callable that is no task, and what belongs to a `Huey` with `immediate`."""
        return not isinstance(intent.task, TaskWrapper) or bool(intent.task.huey.immediate)

    def why_down(self, intent: Intent, error: BaseException | None, /) -> str | None:
        """What the storage says if it cannot even keep a word for a moment."""
        huey = intent.task.huey
        try:
            huey.put("airlock", "")
            huey.delete("airlock")
        except Exception as refusal:
            return str(refusal)
        return None

    def __repr__(self) -> str:
        return "huey_executor"


def _options_of(intent: Intent) -> dict[str, Any]:
    return {"id": intent.id, **intent.dispatch_options}


huey_executor = HueyExecutor()


def airlock_task(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run a task in a scope: what it enqueues goes out if the run succeeds, and only then.

        @huey.task(retries=3)
        @airlock_task
        def process_order(order_id): ...

    An exception discards: a failure, `RetryTask`, `CancelExecution`, a time limit. So of several attempts only the one
    that succeeds has effects. Follow-ups go out through the configured executor, or else through Huey.

    Raises:
        TypeError: if it is above `@huey.task()`, where it would be around the call that enqueues.
    """
    if isinstance(function, TaskWrapper):
        raise TypeError("Put @airlock_task below @huey.task(), right above the function.")

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        is_configured = airlock.get_configuration().executor is not None
        with airlock.scope(executor=None if is_configured else huey_executor):
            return function(*args, **kwargs)

    return run
