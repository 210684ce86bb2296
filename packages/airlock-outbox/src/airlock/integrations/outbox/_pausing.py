"""Tasks that are not dispatched for the time being."""

from __future__ import annotations

import time

from airlock.integrations.outbox._states import DUE, DatabaseNow
from airlock.integrations.outbox._waking import notify
from airlock.integrations.outbox.models import Entry, PausedTask

#: How long a process goes by what it knows, in seconds.
REMEMBERED = 5

_known: dict[str, tuple[float, frozenset[str]]] = {}


def paused_tasks(alias: str) -> frozenset[str]:
    """The full names of the tasks that are paused on a database, as they were at most five seconds ago."""
    asked, tasks = _known.get(alias, (-float(REMEMBERED), frozenset()))
    if time.monotonic() - asked >= REMEMBERED:
        tasks = frozenset(PausedTask.objects.using(alias).values_list("task", flat=True))
        _known[alias] = time.monotonic(), tasks
    return tasks


def forget() -> None:
    """Ask again, the next time."""
    _known.clear()


def pause(alias: str, task: str) -> bool:
    """Do not dispatch a task any more. Its entries stay.

    Other processes hear of it within five seconds.

    Args:
        alias: the database.
        task: its full name.

    Returns:
        Whether it was not paused.
    """
    _, is_new = PausedTask.objects.using(alias).get_or_create(task=task)
    forget()
    return is_new


def resume(alias: str, task: str) -> int | None:
    """Dispatch a task again.

    Args:
        alias: the database.
        task: its full name.

    Returns:
        How many of its entries have become due meanwhile. `None` if it was not paused.
    """
    was_paused, _ = PausedTask.objects.using(alias).filter(task=task).delete()
    forget()
    if not was_paused:
        return None
    # Relays look at what has become due lately, so that has to be now.
    waiting = Entry.objects.using(alias).filter(DUE, task=task).order_by()
    count = waiting.update(due=DatabaseNow())
    notify(alias)
    return count
