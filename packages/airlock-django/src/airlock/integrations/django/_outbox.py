"""What the outbox holds, and why, if airlock-outbox is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import connections, router
from django.db.models import Q
from django.utils import timezone

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Of how many entries in one state more is said than how many there are.
_NEWEST = 5


def is_installed() -> bool:
    """Whether there is an outbox."""
    return apps.is_installed("airlock.integrations.outbox")


def look(task: str | None) -> dict[str, dict[str, Any]]:
    """Look at the outbox on each database that may have one.

    Args:
        task: the name of a task, simple or full: say more of its entries alone.

    Returns:
        For each database the `counts` of entries by their state, and the `newest` of those that nobody will dispatch
        for now.

    Raises:
        django.db.DatabaseError: if a database cannot be reached, or does not have the table.
    """
    from airlock.integrations.outbox import status

    entry: Any = apps.get_model("airlock_outbox", "Entry")
    of_task = Q() if task is None else Q(task=task) | Q(task__endswith=f".{task}")
    return {
        alias: {
            "counts": status(alias).as_dict(),
            "newest": [
                _facts(state, found)
                for state, condition in _states(alias).items()
                for found in entry.objects.using(alias).filter(of_task, condition).order_by("-created")[:_NEWEST]
            ],
        }
        for alias in connections
        if router.allow_migrate_model(alias, entry)
    }


def _states(alias: str) -> Mapping[str, Q]:
    paused: Any = apps.get_model("airlock_outbox", "PausedTask")
    now = timezone.now()
    return {
        "parked": Q(due__isnull=True),
        "paused": Q(due__lte=now, task__in=paused.objects.using(alias).values("task")),
        "waiting": Q(due__gt=now, lease__isnull=True),
        "held": Q(due__gt=now, lease__isnull=False, held=True, attempts=0),
    }


def _facts(state: str, entry: Any) -> dict[str, Any]:
    return {
        "state": state,
        "task": entry.task,
        "id": str(entry.pk),
        "enqueued": entry.created,
        "due": entry.due,
        "attempts": entry.attempts,
        "error": entry.error,
    }
