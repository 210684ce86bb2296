"""What operators do about entries. Nothing that a process or a relay has in hand is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airlock.integrations.outbox._states import FREE, PARKED, WAITING, DatabaseNow
from airlock.integrations.outbox._waking import notify

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from airlock.integrations.outbox.models import Entry


def retry(entries: QuerySet[Entry]) -> int:
    """Have a relay dispatch entries soon: those that are parked, and those that wait for their next attempt.

    They have as many attempts as new ones. They keep their last error until they are dispatched.

    Returns:
        How many there were.
    """
    stuck = entries.filter(PARKED | WAITING).order_by()
    # Who retries an orphan has decided about it.
    count = stuck.update(due=DatabaseNow(), attempts=0, held=False, lease=None)
    notify(entries.db)
    return count


def discard(entries: QuerySet[Entry]) -> int:
    """Delete entries, so that they are never dispatched.

    Returns:
        How many there were.
    """
    deleted: Any = entries.filter(FREE).order_by().delete()
    return int(deleted[0])
