"""Finds tasks that are published directly, where Airlock was to decide about them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

from celery import current_task
from celery.signals import before_task_publish

import airlock
from airlock.ext import open_fates
from airlock.integrations.celery._migration import calling_line
from airlock.integrations.celery._task import by_celery
from airlock.integrations.executors.celery._tasks import by_airlock

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("airlock")

_raises = False
#: The lines that were reported.
_reported: set[tuple[str, int]] = set()


def report_bypasses(how: Literal["ignore", "warn", "raise"]) -> None:
    """Report tasks that are published directly inside a scope or an open transaction, in this process from now on.

    Such a task goes out whatever becomes of the scope or the transaction. What Airlock dispatches is left alone, and so
    is what Celery publishes itself: retries, callbacks, chains, replacements.

    Args:
        how: `"warn"` logs a warning with the line of the call, once for each line. `"raise"` has the call raise a
            `kombu.exceptions.EncodeError` that says the same, and nothing is published. `"ignore"` ends it.
    """
    global _raises
    _raises = how == "raise"
    _reported.clear()
    if how == "ignore":
        before_task_publish.disconnect(_look_at)
    else:
        before_task_publish.connect(_look_at, weak=False)


def _look_at(sender: str, headers: dict[str, Any], body: Any, **_: Any) -> None:
    if by_airlock.get() or by_celery.get() or _is_celerys(sender, headers):
        return
    where = _boundary()
    if where is None:
        return
    caller = calling_line()
    line = caller.f_code.co_filename, caller.f_lineno
    if not _raises and line in _reported:
        return
    _reported.add(line)
    message = (
        f"{sender} was published directly at {line[0]}:{line[1]}, inside {where}, so it goes out whatever becomes of "
        "that. Write airlock.enqueue(task, ...)."
    )
    if _raises:
        # Celery logs what a receiver raises, and goes on. So it is the message that cannot be sent.
        _part_of_celery(body)["airlock"] = _Refusal(message)
    else:
        logger.warning(message)


def _boundary() -> str | None:
    scope = airlock.get_current_scope()
    if scope is not None and scope.is_active:
        return type(scope).__name__
    try:
        return "an open transaction" if open_fates() else None
    except airlock.UsageError:  # one that is managed by hand
        return "an open transaction"


def _is_celerys(name: str, headers: Mapping[str, Any]) -> bool:
    """Whether Celery publishes something of its own: a retry, a replacement, a part of a chord that is running."""
    if name.startswith("celery.") or headers.get("retries"):
        return True
    task: Any = current_task  # a proxy, of nothing perhaps
    if not task:
        return False
    running = task.request
    group: str | None = headers.get("group")
    return (group is not None and group == running.group) or bool(headers.get("id") == running.id)


def _part_of_celery(body: Any) -> dict[str, Any]:
    """What Celery itself adds to a message. In the old protocol that is all of it."""
    added: dict[str, Any] = body if isinstance(body, dict) else body[2]
    return added


class _Refusal(dict[str, Any]):
    """What no serializer can write."""

    def __init__(self, message: str) -> None:
        super().__init__(airlock=message)
        self._message = message

    def items(self) -> Any:
        raise airlock.UsageError(self._message)

    def __reduce_ex__(self, protocol: object) -> Any:
        raise airlock.UsageError(self._message)
