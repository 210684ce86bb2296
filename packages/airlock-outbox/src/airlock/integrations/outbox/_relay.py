"""The relay: it dispatches what requests and tasks have left over.

It claims what is due under a lease, commits that, dispatches, and deletes what it still has the lease of. So several
may run, and any may die at any moment.
"""

from __future__ import annotations

import logging
import random
import time
from datetime import timedelta
from itertools import groupby, takewhile
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.db import InterfaceError, OperationalError, connections, router, transaction
from django.db.models import F
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from airlock import OutcomeUnknown
from airlock.ext import dispatch_one
from airlock.integrations.executors.celery import CeleryExecutor, Message
from airlock.integrations.outbox._fast_path import publish
from airlock.integrations.outbox._pausing import paused_tasks
from airlock.integrations.outbox._recording import UnreadablePayloadError, read
from airlock.integrations.outbox._settings import options
from airlock.integrations.outbox._table import DatabaseNow
from airlock.integrations.outbox.models import VERSION, Entry, InboxEntry

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Sequence

    from airlock import Executor, Intent
    from airlock.ext import Outcome

logger = logging.getLogger("airlock")

#: How often a relay looks at the whole table, and not only at what has become due lately, in seconds.
_SWEEP = 60
#: How long the COMMIT of a transaction may take, in seconds, for its entries to be found before the next sweep.
_MARGIN = 60
#: The shortest sleep of a relay that found nothing, in seconds. It doubles up to `POLL_SECONDS`.
_SHORTEST_SLEEP = 0.02
#: The longest sleep of a relay that waits for a broker or a database, in seconds.
_LONGEST_PAUSE = 30
#: How often what nobody needs any more is deleted, in seconds.
_HOUSEKEEPING = 3600


class BrokerDownError(Exception):
    """The broker cannot be reached."""

    def __init__(self, executor: CeleryExecutor, error: BaseException) -> None:
        super().__init__(str(error))
        self.executor = executor


class Relay:
    """Dispatches the entries of one database.

    Args:
        alias: the database.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._lease = uuid4()
        self._swept = -float(_SWEEP)
        self._low_water: Any = None

    def step(self) -> int:
        """Dispatch one batch of what is due.

        Returns:
            How many entries it has taken.

        Raises:
            BrokerDownError: if the broker is down. The entries are due again, and it costs none of them an attempt.
            django.db.DatabaseError: if the database is.
        """
        entries = self._claim()
        fresh = []
        for entry in entries:
            if entry.held and options().orphans == "park":
                self._park(entry, "Its scope never ended: the process died before it decided.")
            elif entry.attempts > options().max_attempts:
                self._park(entry, entry.error or "Relays died while they dispatched it.")
            else:
                fresh.append(entry)
        self._dispatch(fresh)
        return len(entries)

    # -- Claiming ------------------------------------------------------------------------------------------------------

    def _due(self) -> Any:
        due = Entry.objects.using(self.alias).filter(due__lte=DatabaseNow(), version__lte=VERSION)
        if self._low_water is not None:
            due = due.filter(due__gt=self._low_water)
        paused = paused_tasks(self.alias)
        return (due.exclude(task__in=paused) if paused else due).order_by("due", "created")

    def _claim(self) -> list[Entry]:
        """Take a batch of what is due, and commit that."""
        if time.monotonic() - self._swept > _SWEEP:
            self._low_water = None
        batch = self._look()
        if not batch and self._low_water is None:
            # What comes from now on is due later than this. A busy PostgreSQL keeps dead rows in the index, and to look
            # through those takes long.
            self._swept = time.monotonic()
            self._low_water = timezone.now() - timedelta(seconds=_MARGIN)
        if not batch:
            return []
        connection = connections[self.alias]
        if connection.vendor == "mysql":  # under REPEATABLE READ it would lock out writers
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        with transaction.atomic(using=self.alias):
            if connection.features.has_select_for_update_skip_locked:
                batch = self._look(skip_locked=True)
            # On other databases, of two relays that want the same, the second finds that it is not due any more.
            due = DatabaseNow() + timedelta(seconds=options().lease_seconds)
            claimed = self._due().order_by().filter(id__in=batch)
            claimed.update(lease=self._lease, due=due, attempts=F("attempts") + 1)
        ours = Entry.objects.using(self.alias).filter(id__in=batch, lease=self._lease)
        return list(ours.order_by("created"))

    def _look(self, *, skip_locked: bool = False) -> list[Any]:
        """The ids of a batch. What was tried before goes by itself: it may have killed the relay."""
        due = self._due().values_list("id", "attempts")
        if skip_locked:
            due = due.select_for_update(skip_locked=True)
        found = list(due[: options().batch_size])
        return [entry_id for entry_id, _ in takewhile(lambda row: not row[1], found)] or [row[0] for row in found[:1]]

    def age_of_oldest(self) -> float:
        """For how many seconds the oldest of what is due has been due, but for paused tasks."""
        oldest = self._due().values_list("due", flat=True)[:1]
        now = Entry.objects.using(self.alias).values_list(DatabaseNow(), flat=True)[:1]
        for due, at in zip(oldest, now, strict=False):
            return float((at - due).total_seconds())
        return 0.0

    # -- Dispatching ---------------------------------------------------------------------------------------------------

    def _dispatch(self, entries: Sequence[Entry]) -> None:
        work: list[tuple[Entry, Intent, Executor]] = []
        for entry in entries:
            try:
                work.append((entry, *read(entry.payload, str(entry.id))))
            except UnreadablePayloadError as error:
                self._park(entry, str(error))
        left = [entry for entry, _, _ in work]
        for (executor, is_message), run in groupby(work, lambda item: (item[2], isinstance(item[1].task, Message))):
            batch = [(entry, intent) for entry, intent, _ in run]
            dispatch = self._publish if is_message else self._call
            while batch:
                outcomes = dispatch(executor, batch)
                tried, batch = batch[: len(outcomes)], batch[len(outcomes) :]
                failed = [(entry, outcome) for (entry, _), outcome in zip(tried, outcomes, strict=True) if outcome]
                self._delete([entry for (entry, _), outcome in zip(tried, outcomes, strict=True) if outcome is None])
                left = left[len(tried) :]
                if failed and (down := _why_broker_is_down(executor, failed[0][1])):
                    self._release([*(entry for entry, _ in failed), *left])
                    raise down
                for entry, outcome in failed:
                    self._put_off(entry, outcome)

    def _publish(self, executor: Any, batch: Sequence[tuple[Entry, Intent]]) -> list[Outcome]:
        return publish(executor, [intent for _, intent in batch])

    def _call(self, executor: Any, batch: Sequence[tuple[Entry, Intent]]) -> list[Outcome]:
        _, intent = batch[0]
        # It may take long. While it runs, and for the time of a lease before, the others are ours.
        self._ours(entry for entry, _ in batch).update(due=DatabaseNow() + timedelta(seconds=options().lease_seconds))
        outcome = dispatch_one(executor, intent)
        if isinstance(outcome, OutcomeUnknown) and not isinstance(outcome.error, Exception):
            raise outcome.error
        return [outcome]

    # -- What becomes of entries: always fenced, as a lease may have ended ---------------------------------------------

    def _ours(self, entries: Iterable[Entry]) -> Any:
        ids = [entry.id for entry in entries]
        return Entry.objects.using(self.alias).filter(id__in=ids, lease=self._lease)

    def _delete(self, entries: Sequence[Entry]) -> None:
        if entries:
            self._ours(entries).delete()

    def _release(self, entries: Sequence[Entry]) -> None:
        self._ours(entries).update(lease=None, due=DatabaseNow(), attempts=F("attempts") - 1)

    def _put_off(self, entry: Entry, outcome: Outcome) -> None:
        error = outcome.error if isinstance(outcome, OutcomeUnknown) else outcome
        why = f"{type(error).__name__}: {error}"
        if entry.attempts >= options().max_attempts:
            self._park(entry, why)
            return
        longest = min(options().max_backoff_seconds, options().backoff_seconds * 2 ** (entry.attempts - 1))
        # Not all at once, whatever made them fail at once.
        wait = longest * random.uniform(0.5, 1)  # noqa: S311 - no secret
        logger.warning("%s (%s) failed, and is tried again in %.0f s: %s", entry.task, entry.id, wait, why)
        self._ours([entry]).update(lease=None, due=DatabaseNow() + timedelta(seconds=wait), error=why)

    def _park(self, entry: Entry, why: str) -> None:
        logger.error("%s (%s) is parked: %s", entry.task, entry.id, why)
        self._ours([entry]).update(lease=None, due=None, error=why)


def _why_broker_is_down(executor: Executor, outcome: Outcome) -> BrokerDownError | None:
    """Ask the broker, after a failure, whether it is there."""
    error = outcome.error if isinstance(outcome, OutcomeUnknown) else outcome
    if not isinstance(executor, CeleryExecutor) or not isinstance(error, (BrokerError, OSError)):
        return None
    return broker_error(executor)


def broker_error(executor: CeleryExecutor) -> BrokerDownError | None:
    """Connect to the broker, each of its URLs once. Returns why that fails, if it does."""
    try:
        with executor.app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=max(len(connection.alt) - 1, 0) or 1, interval_start=0)
    except Exception as error:
        return BrokerDownError(executor, error)
    return None


def databases() -> list[str]:
    """The aliases that the routers of the project allow the table on."""
    return [alias for alias in connections if router.allow_migrate_model(alias, Entry)]


def drain(relays: Sequence[Relay], stop: threading.Event, tell: Callable[[int], None] = lambda _: None) -> int:
    """Dispatch until nothing is due any more.

    Args:
        relays: those of the databases.
        stop: ends it after the batch in hand.
        tell: called with the number of entries after each batch.

    Returns:
        How many entries it has taken.

    Raises:
        BrokerDownError: if the broker is down.
        django.db.DatabaseError: if a database is.
    """
    total = 0
    for relay in relays:
        while not stop.is_set() and (taken := relay.step()):
            total += taken
            tell(taken)
    return total


def run(relays: Sequence[Relay], stop: threading.Event, sleep: Callable[[float], object] | None = None) -> None:
    """Dispatch whatever becomes due, until `stop` is set. Brokers and databases may go and come back.

    Args:
        relays: those of the databases.
        stop: ends it after the batch in hand.
        sleep: waits for so many seconds at most; by default for `stop`.
    """
    sleep = sleep or stop.wait
    idle, pause, tidied = _SHORTEST_SLEEP, 0.0, -float(_HOUSEKEEPING)
    while not stop.is_set():
        try:
            if time.monotonic() - tidied > _HOUSEKEEPING:
                tidied = time.monotonic()
                for relay in relays:
                    forget_old_runs(relay.alias)
            taken = sum(relay.step() for relay in relays)
        except (BrokerDownError, OperationalError, InterfaceError) as error:
            if not pause:
                logger.error("The relay waits: %s", error)  # noqa: TRY400 - a traceback would say no more
            pause = min(_LONGEST_PAUSE, pause * 2 or 0.5)
            _wait_out(error, relays, stop, pause)
            continue
        if pause:
            logger.info("The relay goes on")
            pause = 0.0
        if taken:
            idle = _SHORTEST_SLEEP
        else:
            sleep(idle)
            idle = min(idle * 2, options().poll_seconds)


def _wait_out(error: Exception, relays: Sequence[Relay], stop: threading.Event, pause: float) -> None:
    stop.wait(pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
    if isinstance(error, BrokerDownError):
        while not stop.is_set() and broker_error(error.executor):  # nothing is claimed that could not be dispatched
            pause = min(_LONGEST_PAUSE, pause * 2)
            stop.wait(pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
    else:
        for relay in relays:
            connections[relay.alias].close()


def forget_old_runs(alias: str) -> int:
    """Delete what the inbox need not remember any more. Returns how many rows."""
    old = timezone.now() - timedelta(days=options().inbox_days)
    deleted: int = InboxEntry.objects.using(alias).filter(created__lt=old).delete()[0]
    return deleted
