"""What Celery makes of a task or a canvas, and whose code publishes it."""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from celery import Task, group
from celery.canvas import Signature

if TYPE_CHECKING:
    from celery import Celery

#: Whether Airlock is publishing, and not user code.
by_airlock: ContextVar[bool] = ContextVar("airlock_publishes", default=False)

#: Options that say how to reach the broker. Who gives one of them gets a call of `apply_async` by itself.
UNBATCHED = {
    *("connection", "producer", "publisher", "retry", "retry_policy"),
    *("mandatory", "immediate", "timeout", "confirm_timeout"),
}


def task_of(called: Any) -> Task[..., Any] | None:
    """The task that a task or a plain signature stands for, if this process knows it."""
    if type(called) is Signature:
        called = called.app.tasks.get(called["task"])
    return called if isinstance(called, Task) else None


def overrides_apply_async(task: Task[..., Any]) -> bool:
    # Not of its `type`: the task may be a proxy.
    methods = [vars(cls)["apply_async"] for cls in task.__class__.__mro__ if "apply_async" in vars(cls)]
    return "apply_async" in vars(task) or not all(map(_is_celerys, methods))


def is_canvas(called: Any) -> bool:
    return isinstance(called, Signature) and type(called) is not Signature


def take_from_generators(signature: Signature[Any]) -> None:
    """Have a canvas, or a link to one, take tasks out of generators now: later, these may see other variables."""
    links = (signature.options.get(name) for name in ("link", "link_error"))
    # Of a signature that was made of a dictionary, they may be `None`.
    for value in (*(signature.args or ()), *(signature.kwargs or {}).values(), *links):
        for part in value if isinstance(value, (list, tuple)) else (value,):  # Celery's list of a generator is one, too
            if isinstance(part, Signature):
                take_from_generators(part)


def is_plain_canvas(called: Any) -> bool:
    """Whether a group or a chain is published by Celery's own code, as given options say, and workers are not told."""
    parts = _published_of(called)
    return (
        is_canvas(called)
        and all(UNBATCHED.isdisjoint(part.options) for part in (called, *parts))
        and all(type(part) is Signature and part.app == called.app for part in parts)
        and all(is_plain(called.app, task_of(part)) for part in parts)
    )


def _published_of(called: Any) -> list[Any]:
    """What of a canvas is published at once, and given its options. A chord is left whole: it stores them."""
    if isinstance(called, group):
        return [part for task in called.tasks for part in _published_of(task)]
    if isinstance(called, Signature) and called.task == "celery.chain":
        first = next(iter(called.kwargs["tasks"]), None)  # if that is a group, it becomes a chord
        return [first if type(first) is Signature else called]
    return [called]


def takes_retry_policy(called: Any) -> bool:
    """Whether it can be told how to retry, without telling workers: a chord would put that into its messages."""
    parts = _published_of(called)
    given = [part.options for part in (called, *parts) if isinstance(part, Signature)]
    return not any("retry_policy" in options for options in given) and all(map(takes_options, parts))


def takes_options(called: Any) -> bool:
    """Whether `apply_async` takes any option that Celery has, or is Celery's own."""
    if (task := task_of(called)) is None:
        return type(called) is Signature
    code = getattr(inspect.unwrap(task.apply_async), "__code__", None)
    return bool(code and code.co_flags & inspect.CO_VARKEYWORDS)


def is_plain(app: Celery, task: Task[..., Any] | None) -> bool:
    """Whether a task is published as Celery does it, and not run in place."""
    amqp = app.amqp  # to ask for it takes a while
    steps = (app.__class__.send_task, amqp.send_task_message, amqp.Producer.publish)
    is_celerys = "send_task" not in vars(app) and all(map(_is_celerys, steps))
    return is_celerys and not app.conf.task_always_eager and (task is None or not overrides_apply_async(task))


@lru_cache
def _is_celerys(function: Any) -> bool:
    """Whether a function is of Celery or Kombu, or ours, below what tools have wrapped around it."""
    module = getattr(inspect.unwrap(function), "__globals__", {}).get("__name__", "")
    # What Sentry has around Kombu's `publish` does not say what it wraps.
    return module.partition(".")[0] in ("airlock", "celery", "kombu", "sentry_sdk")
