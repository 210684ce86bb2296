"""Carry intents out as tasks of Django-Q2, and hold what a task enqueues until it succeeds.

As with `django_q.tasks`, import it when Django is set up.
"""

from __future__ import annotations

import functools
import inspect
import pickle
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

# First of our modules, as it tells Airlock from other projects, and says so.
import airlock.integrations.executors.sync

# isort: split
from django.dispatch import receiver
from django_q.brokers import get_broker  # type: ignore[import-untyped]
from django_q.conf import Conf  # type: ignore[import-untyped]
from django_q.signals import pre_enqueue  # type: ignore[import-untyped]
from django_q.tasks import async_task  # type: ignore[import-untyped]

import airlock

if TYPE_CHECKING:
    from collections.abc import Callable

    from airlock import Intent

__all__ = ["DjangoQExecutor", "airlock_task", "django_q_executor"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

#: What `async_task` takes for itself. It drops any other option, and takes these out of a task's own arguments.
OPTIONS = {"ack_failure", "broker", "cached", "chain", "cluster", "group", "hook", "iter_cached", "iter_count", "save"}
OPTIONS |= {"sync", "task_name", "timeout"}

_id_to_give: ContextVar[str | None] = ContextVar("airlock_django_q_id", default=None)


class DjangoQExecutor:
    """Queues the intent's function; the id of the intent, without its dashes, becomes the id of the task.

    It takes functions that a worker can import, and dotted paths of functions. Dispatch options are the `q_options` of
    `async_task`.

    Raises:
        Exception: whatever the broker raises.
    """

    def accepts(self, task: object) -> bool:
        """A dotted path, besides callables."""
        return isinstance(task, str)

    def check(self, intent: Intent, /) -> None:
        """Refuse what a worker could not run.

        Raises:
            TypeError: if no worker could import the function, if the arguments do not fit it or have the name of an
                option, or if there is no such option.
            Exception: whatever `pickle` raises about the function or the arguments.
        """
        if unknown := sorted(intent.dispatch_options.keys() - OPTIONS):
            raise TypeError(f"Django-Q2 has no option {', '.join(unknown)}.")
        if taken := sorted(intent.kwargs.keys() & {*OPTIONS, "func", "q_options"}):
            raise TypeError(f"Django-Q2 would take the argument {', '.join(taken)} for itself. Give it by position.")
        if callable(intent.task):
            _check_is_importable(intent.task)
            inspect.signature(intent.task).bind(*intent.args, **intent.kwargs)
        pickle.dumps((intent.task, intent.args, dict(intent.kwargs)))

    def __call__(self, intent: Intent, /) -> None:
        _id_to_give.set(intent.id.replace("-", ""))  # as Django-Q2 has it: 32 characters
        async_task(intent.task, *intent.args, q_options=dict(intent.dispatch_options), **intent.kwargs)

    def runs_in_place(self, intent: Intent, /) -> bool:
        """What has the option `sync`, or all of it with the setting."""
        return bool(intent.dispatch_options.get("sync", Conf.SYNC))

    def why_down(self, intent: Intent, error: BaseException | None, /) -> str | None:
        """What the broker says if it cannot even say how many tasks wait."""
        try:
            (intent.dispatch_options.get("broker") or get_broker()).queue_size()
        except Exception as refusal:
            return str(refusal)
        return None

    def __repr__(self) -> str:
        return "django_q_executor"


def _check_is_importable(function: Any) -> None:
    name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", "")
    if "<" in name or module == "__main__":  # a lambda, or what a function has defined
        raise TypeError(
            f"No worker could import {module}.{name}. Enqueue a function at the top level of a module, and give it "
            "what it needs as arguments. If it is decorated, the decorator must use functools.wraps."
        )


@receiver(pre_enqueue)
def _give_id(task: dict[str, Any], **_: object) -> None:
    if (given := _id_to_give.get()) is not None:
        task["id"] = given
        _id_to_give.set(None)  # with `sync`, the task itself runs now, and may queue others


django_q_executor = DjangoQExecutor()


def airlock_task(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run a task in a scope: what it enqueues goes out if the run succeeds, and only then.

        @airlock_task
        def process_order(order_id): ...

    An exception discards, a time limit too. So of several attempts only the one that succeeds has effects. Follow-ups
    go out through the configured executor, or else through Django-Q2.
    """

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        is_configured = airlock.get_configuration().executor is not None
        with airlock.scope(executor=None if is_configured else django_q_executor):
            return function(*args, **kwargs)

    return run
