"""Tasks that are not dispatched for the time being."""

from __future__ import annotations

import time

from airlock.integrations.outbox.models import PausedTask

#: How long a process goes by what it knows, in seconds.
_REMEMBERED = 5

_known: dict[str, tuple[float, frozenset[str]]] = {}


def paused_tasks(alias: str) -> frozenset[str]:
    """The full names of the tasks that are paused on a database, as they were at most five seconds ago."""
    asked, tasks = _known.get(alias, (-float(_REMEMBERED), frozenset()))
    if time.monotonic() - asked >= _REMEMBERED:
        tasks = frozenset(PausedTask.objects.using(alias).values_list("task", flat=True))
        _known[alias] = time.monotonic(), tasks
    return tasks
