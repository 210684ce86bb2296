"""What is in the outbox."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from django.db.models import Count, Max, Min, Q
from django.utils import timezone

from airlock.integrations.outbox._relay import databases
from airlock.integrations.outbox._states import IN_FLIGHT, DatabaseNow, state
from airlock.integrations.outbox.models import Entry


@dataclass(frozen=True)
class Status:
    """How many entries the outbox has, and for how long."""

    #: Their scope has not ended, so nobody has decided about them yet.
    held: int = 0
    #: They should have been dispatched by now.
    due: int = 0
    #: A process or a relay is dispatching them.
    in_flight: int = 0
    #: A relay has failed to dispatch them, and will try again.
    waiting: int = 0
    #: Nobody will try again, unless asked to.
    parked: int = 0
    #: They are due, and their task is paused.
    paused: int = 0
    #: All of these.
    total: int = 0
    #: For how long the oldest of those that are due has been so, in seconds. 0 if there are none.
    oldest_due_seconds: float = 0.0
    #: How long ago the oldest of those that are parked was enqueued, in seconds. 0 if there are none.
    oldest_parked_seconds: float = 0.0

    def as_dict(self) -> dict[str, int | float]:
        """The figures by their names."""
        return asdict(self)


def status(using: str | None = None) -> Status:
    """Look at what is in the outbox, with one query for each database.

    For metrics, and for alerts: on what is parked, and on what has been due for longer than a relay needs.

        >>> status().oldest_due_seconds
        0.0

    Args:
        using: the alias of one database. By default all that may have the table, as far as the routers say, are summed.

    Raises:
        django.db.DatabaseError: if a database cannot be reached, or does not have the table.
    """
    counts: Counter[str] = Counter()
    ages: dict[str, Any] = {"oldest_due_seconds": 0.0, "oldest_parked_seconds": 0.0}
    for alias in databases() if using is None else [using]:
        for row in _by_state(alias):
            counts[row["state"].replace(" ", "_")] += row["count"]
            counts["total"] += row["count"]
            if row["state"] == "due":
                age, oldest = row["now"] - row["first_due"], "oldest_due_seconds"
            elif row["state"] == "parked":
                # `created` is by the clock of a process, and not by that of the database.
                age, oldest = timezone.now() - row["first_created"], "oldest_parked_seconds"
            else:
                continue
            ages[oldest] = max(ages[oldest], age.total_seconds())
    return Status(**counts, **ages)


def _by_state(alias: str) -> Any:
    return (
        Entry.objects.using(alias)
        .order_by()
        .annotate(state=state())
        .values("state")
        .annotate(count=Count("id"), first_due=Min("due"), first_created=Min("created"), now=Max(DatabaseNow()))
    )


#: The states, in the order in which one wants to know of them.
_KEPT = ("parked", "paused", "waiting", "due", "held", IN_FLIGHT)
#: Which entries are not worth a word: those that go out in the ordinary way.
_ORDINARY = Q(state=IN_FLIGHT, error="", held=False)


def kept_entries(task: str | None = None, newest: int = 5) -> dict[str, list[dict[str, Any]]]:
    """The entries that are still there: parked, paused, waiting for another attempt, due, or held.

    And those in flight that have failed before, or that a process has left which did not finish.

    Args:
        task: the name of a task, simple or full, to look at its entries alone.
        newest: how many of each state.

    Returns:
        For each database that may have the table, the newest of each state: `state`, `task`, `id`, `enqueued` and `due`
        (both `datetime`, the latter `None` if parked), `attempts`, `error`, and `is_orphan`: whether the process
        that enqueued it did not finish. Never arguments.

    Raises:
        django.db.DatabaseError: if a database cannot be reached, or does not have the table.
    """
    of_task = Q() if task is None else Q(task=task) | Q(task__endswith=f".{task}")
    return {
        alias: [
            {
                "state": kept,
                "task": entry.task,
                "id": str(entry.pk),
                "enqueued": entry.created,
                "due": entry.due,
                "attempts": entry.attempts,
                "error": entry.error,
                "is_orphan": kept != "held" and entry.held,
            }
            for kept in _KEPT
            for entry in Entry.objects.using(alias)
            .annotate(state=state())
            .filter(of_task, state=kept)
            .exclude(_ORDINARY)
            .order_by("-created")[:newest]
        ]
        for alias in databases()
    }
