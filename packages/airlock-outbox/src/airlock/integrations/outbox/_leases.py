"""The statements of a relay: it takes entries under a lease, and says what becomes of them."""

from __future__ import annotations

from datetime import timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from django.db import connections, transaction
from django.db.models import ExpressionWrapper, F, UUIDField

from airlock.integrations.outbox._pausing import REMEMBERED, paused_tasks
from airlock.integrations.outbox._settings import options
from airlock.integrations.outbox._states import BROKER_FAILS, DUE, LEFT, DatabaseNow
from airlock.integrations.outbox._table import OneOf, delete, storable
from airlock.integrations.outbox.models import VERSION, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from uuid import UUID

#: How often a relay looks at the whole table, and not only at what has become due lately, in seconds.
_SWEEP = 60
#: How long the statement that makes an entry due may take, in seconds, for it to be found before the next sweep; or how
#: long it may take a relay to hear that a task is not paused any more.
_MARGIN = REMEMBERED + 2


class Taken(NamedTuple):
    """What a relay reads of an entry that it takes. As a model, it would take twice as long."""

    id: UUID
    created: datetime
    held: bool
    lease: UUID | None
    #: How often a relay has tried before.
    attempts: int
    task: str
    payload: str
    error: str

    @property
    def failed_itself(self) -> bool:
        """Whether a relay has failed to dispatch it, perhaps with others. It was not the broker that failed."""
        return bool(self.error) and not self.error.startswith(LEFT)

    def __str__(self) -> str:
        return f"{self.task} ({self.id})"


class Frontier:
    """Where a relay begins to look for what is due, so that it does not walk over what it has deleted.

    Entries lie in an index, in the order in which they become due, and a relay takes them from its beginning. A busy
    PostgreSQL keeps those that were deleted there for a while, and to walk over all of them takes long:

        | deleted, deleted, deleted | the next batch | and so on | not due yet |
                                    ^ here it begins to look

    As long as it finds something, it begins where its last batch began. When there is nothing more from there on, it
    looks once from the beginning of the index. When there is nothing at all, it begins at the time of that look from
    then on, as all that was not due then becomes due later. Once a minute it starts anew from the beginning, for what
    had been due before it could be seen: because its transaction took long, for example.

    Args:
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._swept_at = -float(_SWEEP)
        #: When the first of the last batch became due, by the clock of the database.
        self._last_batch: datetime | None = None
        #: When there was nothing at all, by our clock.
        self._empty_at: float | None = None

    @property
    def begin(self) -> Any:
        """A time by the clock of the database, or how it finds out. `None`: the beginning of the index."""
        if self._empty_at is not None:
            return DatabaseNow() - timedelta(seconds=self._clock() - self._empty_at + _MARGIN)
        return self._last_batch

    def sweep_if_it_is_time(self) -> None:
        """Once a minute, start anew."""
        if self._clock() - self._swept_at >= _SWEEP:
            self._swept_at = self._clock()
            self._last_batch = self._empty_at = None

    def found(self, due: datetime) -> None:
        """Note when the first of a batch became due."""
        if self._empty_at is None:
            self._last_batch = due

    def found_nothing(self) -> bool:
        """Note that there was nothing from there on. Returns whether to look again, from further back."""
        if self._last_batch is not None:
            self._last_batch = None
            return True
        if self._empty_at is None:
            self._empty_at = self._swept_at = self._clock()
        return False


class Leases:
    """What a relay has taken of the entries of one database, or may take.

    It changes an entry only as long as it has its lease: that may have ended, and another relay may have taken it.

    Args:
        alias: the database.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, alias: str, clock: Callable[[], float]) -> None:
        self._alias = alias
        self._token = uuid4()
        self._frontier = Frontier(clock)

    def due(self) -> Any:
        """What may be taken, in order: all that is due, but for paused tasks and what a newer version has written."""
        due = Entry.objects.using(self._alias).filter(DUE, version__lte=VERSION)
        if (begin := self._frontier.begin) is not None:
            due = due.filter(due__gte=begin)
        paused = paused_tasks(self._alias)
        return (due.exclude(task__in=paused) if paused else due).order_by("due", "created")

    def age_of_oldest(self) -> float:
        """For how many seconds the oldest of what is due has been due."""
        for due, now in self.due().annotate(now=DatabaseNow()).values_list("due", "now")[:1]:
            return float((now - due).total_seconds())
        return 0.0

    # -- Taking --------------------------------------------------------------------------------------------------------

    def take(self) -> list[Taken]:
        """Take a batch of what is due, for the time of a lease, and commit that."""
        if not self._is_anything_due():
            return []
        connection = connections[self._alias]
        skips_locked = connection.features.has_select_for_update_skip_locked
        batch = [] if skips_locked else self._look(self.due())
        if connection.vendor == "mysql":  # under REPEATABLE READ it would lock out writers
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        with transaction.atomic(using=self._alias):
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    # Under SERIALIZABLE, relays would make each other fail.
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
                    # It knows little of a table that is mostly empty, and might sort all that is due for each batch.
                    cursor.execute("SET LOCAL enable_sort = off")
            if skips_locked:
                batch = self._look(self.due().select_for_update(skip_locked=True))
            # What is locked is still due. Without SKIP LOCKED, of two relays that want the same, the second finds that
            # it is not.
            entries = Entry.objects.using(self._alias) if skips_locked else self.due().order_by()
            # Django 4.2 does not know the type of an `F`.
            its_id = ExpressionWrapper(F("id"), output_field=UUIDField())
            taken = entries.filter(OneOf(its_id, [entry.id for entry in batch]))
            count = taken.update(lease=self._token, due=_end_of_lease(), attempts=F("attempts") + 1)
        if count < len(batch):
            batch = self._those_we_have(batch)
        return sorted(batch, key=lambda entry: entry.created)

    def _is_anything_due(self) -> bool:
        """Without a lock: on an empty table, MariaDB would lock out writers."""
        self._frontier.sweep_if_it_is_time()
        while (first := self.due().values_list("due", flat=True).first()) is None:
            if not self._frontier.found_nothing():
                return False
        self._frontier.found(first)
        return True

    def _look(self, due: Any) -> list[Taken]:
        """A batch of what is due. What a relay has left unfinished goes by itself: it may have killed the relay."""
        found = [Taken(*row) for row in due.values_list(*Taken._fields)[: options().batch_size]]
        return list(takewhile(lambda entry: not entry.attempts or entry.lease is None, found)) or found[:1]

    # -- What becomes of what was taken --------------------------------------------------------------------------------

    def _ours(self, entries: Iterable[Taken]) -> Any:
        ids = [entry.id for entry in entries]
        return Entry.objects.using(self._alias).filter(id__in=ids, lease=self._token)

    def _those_we_have(self, entries: list[Taken]) -> list[Taken]:
        ids = set(self._ours(entries).values_list("id", flat=True))
        return [entry for entry in entries if entry.id in ids]

    def renew(self, entries: list[Taken]) -> list[Taken]:
        """Keep entries for the time of another lease. Returns those that are still ours."""
        self._ours(entries).update(due=_end_of_lease())
        return self._those_we_have(entries)

    def delete(self, entries: list[Taken]) -> None:
        """They were dispatched."""
        delete(self._alias, [str(entry.id) for entry in entries], self._token)

    def give_back(self, entries: list[Taken], why: str) -> None:
        """They were not tried, as the broker fails: they are due again, and it costs them no attempt."""
        blameless = [entry for entry in entries if not entry.failed_itself]
        self._ours(blameless).update(error=storable(f"{LEFT}{BROKER_FAILS}: {why}"))
        self._ours(entries).update(lease=None, due=DatabaseNow(), attempts=F("attempts") - 1)

    def put_off(self, entry: Taken, seconds: float, why: str, attempts: int) -> None:
        """It has failed, so many times by now, and is to be tried again in so many seconds."""
        due = DatabaseNow() + timedelta(seconds=seconds)
        self._ours([entry]).update(lease=None, due=due, error=why, attempts=attempts)

    def park(self, entry: Taken, why: str) -> None:
        """Nobody is to try it again, unless asked to."""
        self._ours([entry]).update(lease=None, due=None, error=why)


def _end_of_lease() -> Any:
    return DatabaseNow() + timedelta(seconds=options().lease_seconds)
