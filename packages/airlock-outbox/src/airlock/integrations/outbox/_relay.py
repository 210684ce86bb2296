"""The relay: it dispatches what requests and tasks have left over.

It claims what is due under a lease, commits that, dispatches, and deletes what it still has the lease of. So several
may run, and any may die at any moment.
"""

from __future__ import annotations

import gc
import logging
import random
import time
import traceback
from collections import Counter
from datetime import timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import InterfaceError, InternalError, OperationalError, connections, router
from django.utils import timezone

from airlock import Intent, OutcomeUnknown
from airlock.ext import Event, is_heard, tell
from airlock.integrations.executors.celery import Message
from airlock.integrations.outbox._fast_path import publish
from airlock.integrations.outbox._leases import Leases, Taken
from airlock.integrations.outbox._log import facts_of
from airlock.integrations.outbox._outage import BrokerDownError, blame_broker, broker_error, error_of
from airlock.integrations.outbox._recording import UnreadablePayloadError, read
from airlock.integrations.outbox._settings import options
from airlock.integrations.outbox._states import BROKER_FAILS, LEFT
from airlock.integrations.outbox._table import storable
from airlock.integrations.outbox.models import Entry, InboxEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airlock.integrations.outbox._waking import Waker

logger = logging.getLogger("airlock")

#: The shortest sleep of a relay that found nothing, in seconds. It doubles up to `POLL_SECONDS`.
_SHORTEST_SLEEP = 0.02
#: The shortest and the longest sleep of a relay that waits for a broker or a database, in seconds.
_PAUSES = 0.5, 30.0
#: How often what nobody needs any more is deleted, in seconds.
_HOUSEKEEPING = 3600


class Work(NamedTuple):
    """An entry, and what to do about it."""

    entry: Taken
    intent: Intent
    executor: Any


class Relay:
    """Dispatches the entries of one database.

    Args:
        alias: the database.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, alias: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.alias = alias
        self.leases = Leases(alias, clock)
        #: How many entries were dispatched, put off and parked.
        self.done: Counter[str] = Counter()
        self._clock = clock

    def step(self) -> int:
        """Dispatch one batch of what is due.

        Returns:
            How many entries it has taken.

        Raises:
            BrokerDownError: if the broker is down. The entries are due again, and it costs none of them an attempt.
            django.db.DatabaseError: if the database is.
        """
        claimed_at = self._clock()
        entries = self.leases.take()
        orphans, max_attempts = options().orphans, options().max_attempts
        work = []
        for entry in entries:
            if entry.held and orphans == "park":
                self._park(entry, "Its scope never ended: the process died before it decided.")
            elif entry.attempts >= max_attempts:
                died = "Each relay that dispatched it died, or lost its database."
                self._park(entry, entry.error if entry.failed_itself else died)
            elif readable := self._read(entry):
                work.append(readable)
        self._dispatch(work, claimed_at)
        return len(entries)

    def _read(self, entry: Taken) -> Work | None:
        try:
            return Work(entry, *read(entry.payload, str(entry.id)))
        except UnreadablePayloadError as error:
            self._park(entry, str(error))
        except Exception as error:  # what it names is not there: perhaps not yet, as during a deployment
            self._put_off(entry, error)
        return None

    def _dispatch(self, work: list[Work], claimed_at: float) -> None:
        """Dispatch in order, messages together and calls one by one. A failure is that of its entry alone."""
        while work:
            batch = _first_batch(work)
            work = work[len(batch) :]
            if self._clock() - claimed_at > options().lease_seconds / 10:  # calls may take long
                ours = set(self.leases.renew([item.entry for item in batch]))
                batch = [item for item in batch if item.entry in ours]
            if not batch:
                continue
            executor, intents = batch[0].executor, [item.intent for item in batch]
            outcomes = blame_broker(executor, intents, publish(executor, intents))
            work = batch[len(outcomes) :] + work
            self._delete([item.entry for item, outcome in zip(batch, outcomes, strict=False) if outcome is None])
            failed = [
                (item, error_of(outcome)) for item, outcome in zip(batch, outcomes, strict=False) if outcome is not None
            ]
            # What fails together may be the fault of one. Next time each goes by itself.
            is_its_own = len(failed) == 1 or not any(isinstance(outcome, OutcomeUnknown) for outcome in outcomes)
            for item, error in failed:
                if not isinstance(error, Exception):  # Ctrl-C, for example
                    raise error
                if isinstance(error, BrokerDownError):
                    untried = [*(item.entry for item, _ in failed), *(item.entry for item in work)]
                    self.leases.give_back(untried, error.why)
                    raise error
                self._put_off(item.entry, error, is_its_own)

    def _delete(self, entries: list[Taken]) -> None:
        if entries:
            self.leases.delete(entries)
            self.done["dispatched"] += len(entries)
            if is_heard():
                tell([Event("relayed", _intent_of(entry), reason=_why_late(entry)) for entry in entries])

    def _put_off(self, entry: Taken, error: Exception, is_its_own: bool = True) -> None:
        why = _text_of(error)
        if is_its_own and entry.attempts + 1 >= options().max_attempts:
            self._park(entry, why, error)
            return
        longest = min(options().max_backoff_seconds, options().backoff_seconds * 2 ** min(entry.attempts, 30))
        # Not all at once, whatever made them fail at once.
        wait = longest * random.uniform(0.5, 1)  # noqa: S311 - no secret
        again = f"the relay tries again in {wait:.0f} s: {why}"
        event = Event("failed", _intent_of(entry), reason=again, error=error, is_handled=True)
        logger.warning("%s failed, and is tried again in %.0f s: %s", entry, wait, why, extra=facts_of(event))
        self.leases.put_off(entry, wait, why, attempts=entry.attempts + is_its_own)
        self.done["put off"] += 1
        if is_heard():
            tell([event])

    def _park(self, entry: Taken, why: str, error: Exception | None = None) -> None:
        self.leases.park(entry, why)
        self.done["parked"] += 1
        tell([Event("parked", _intent_of(entry), reason=why, error=error)])


def _intent_of(entry: Taken) -> Intent:
    """An intent for who listens. Its arguments are not there: they may not be readable here."""
    return Intent(entry.task, id=str(entry.id))


def _why_late(entry: Taken) -> str | None:
    """Why it was not dispatched at once, if something went wrong. What the error says may be user data."""
    if entry.held:
        return "its process did not finish: the relay took it over and sent it"
    if entry.error.startswith(LEFT + BROKER_FAILS):
        return "the broker failed: the relay sent it when the broker was back"
    return "it had failed before: the relay tried again and sent it" if entry.error else None


def _first_batch(work: list[Work]) -> list[Work]:
    """The messages that one executor may publish together, or one call, or one message that has failed before."""
    executor = work[0].executor
    return list(takewhile(lambda item: _is_fresh_message(item) and item.executor is executor, work)) or work[:1]


def _is_fresh_message(item: Work) -> bool:
    # On RabbitMQ, one that is refused can take down those beside it: because it is too large, for example.
    return isinstance(item.intent.task, Message) and not item.entry.failed_itself


def _text_of(error: Exception) -> str:
    """What a traceback ends with."""
    return storable("".join(traceback.format_exception_only(error)).strip())


def databases() -> list[str]:
    """The aliases that the routers of the project allow the table on, but for replicas, which are mirrors in tests."""
    return [
        connection.alias
        for connection in connections.all()
        if router.allow_migrate_model(connection.alias, Entry) and not connection.settings_dict["TEST"].get("MIRROR")
    ]


def drain(
    relays: Sequence[Relay],
    is_stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[int], object] = lambda _: None,
) -> int:
    """Dispatch until nothing is due any more.

    Args:
        relays: those of the databases.
        is_stopped: whether to end, asked after each batch.
        progress: called with the number of entries after each batch.

    Returns:
        How many entries it has taken.

    Raises:
        BrokerDownError: if the broker is down.
        django.db.DatabaseError: if a database is.
    """
    total = 0
    for relay in relays:
        while not is_stopped() and (taken := relay.step()):
            total += taken
            progress(taken)
    return total


def run(relays: Sequence[Relay], waker: Waker) -> None:
    """Dispatch whatever becomes due, until the waker is stopped. Brokers and databases may go and come back.

    Args:
        relays: those of the databases.
        waker: what to sleep with.
    """
    gc.freeze()  # what Django has loaded is not to be looked through every few thousand entries
    idle, pause, tidied = _SHORTEST_SLEEP, 0.0, -float(_HOUSEKEEPING)
    while not waker.is_stopped:
        try:
            if time.monotonic() - tidied >= _HOUSEKEEPING:
                tidied = time.monotonic()
                for relay in relays:
                    forget_old_runs(relay.alias)
            taken = sum(relay.step() for relay in relays)
            if pause:
                logger.info("The relay goes on")
                pause = 0.0
            if taken:
                idle = _SHORTEST_SLEEP
            else:
                waker.sleep(idle)
                idle = min(idle * 2, options().poll_seconds)
        # Internal: of a PostgreSQL that is read-only, as after a failover.
        except (BrokerDownError, OperationalError, InterfaceError, InternalError) as error:
            if not pause:
                logger.error("The relay waits: %s", error)  # noqa: TRY400 - a traceback would say no more
            pause = _wait_out(error, relays, waker, pause)


def _wait_out(error: Exception, relays: Sequence[Relay], waker: Waker, pause: float) -> float:
    """Wait for a database for a while, and for a broker until it can be reached. Returns how long it has slept last."""
    while True:
        shortest, longest = _PAUSES
        pause = min(longest, max(shortest, pause * 2))
        waker.pause(pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
        if not isinstance(error, BrokerDownError):
            for relay in relays:
                connections[relay.alias].close()
            return pause
        if waker.is_stopped or not broker_error(error.executor, error.intent):
            return pause


def forget_old_runs(alias: str) -> int:
    """Delete what the inbox need not remember any more. Returns how many rows."""
    old = timezone.now() - timedelta(days=options().inbox_days)
    deleted: int = InboxEntry.objects.using(alias).filter(created__lt=old).delete()[0]
    return deleted
