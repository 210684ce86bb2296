"""The executor of an outbox scope: it records what is enqueued, and leaves the rest to the executor that it wraps."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from django.db import connections, router

from airlock import Intent, OutcomeUnknown
from airlock.ext import dispatch_one, run_in_context
from airlock.integrations.executors.celery import CeleryExecutor
from airlock.integrations.outbox import _holds, _table
from airlock.integrations.outbox._fast_path import Publication, breaker, publish
from airlock.integrations.outbox._record import Record, may_have_entries, write
from airlock.integrations.outbox._recording import read
from airlock.integrations.outbox._settings import options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airlock import Executor
    from airlock.ext import Fate, Outcome

logger = logging.getLogger("airlock")


class OutboxExecutor:
    """Records intents, and has another executor dispatch them.

    Args:
        inner: the executor that it wraps. Other processes must be able to find it by its name.
    """

    def __init__(self, inner: Executor) -> None:
        self.inner: Any = inner

    def accepts(self, task: object) -> bool:
        """As the executor that it wraps."""
        return hasattr(self.inner, "accepts") and self.inner.accepts(task)

    def check(self, intent: Intent, /) -> None:
        """As the executor that it wraps."""
        if hasattr(self.inner, "check"):
            self.inner.check(intent)

    def prepare(self, intent: Intent, fates: tuple[Fate, ...], /) -> Record:
        """Record an intent, to be written by the transactions it hangs on.

        Raises:
            UsageError: if it cannot be recorded.
            kombu.exceptions.EncodeError: if its arguments cannot be serialised.
        """
        record = Record(intent, self.inner, fates)
        record.wait_for(fates)
        return record

    def forget(self, intents: Iterable[Intent], /) -> None:
        """Delete what was written of intents that will not be dispatched."""
        records = [record for record in map(_record_of, intents) if record is not None]
        for record in records:
            record.is_forgotten = True
        _finish([record for record in records if record.may_have_been_committed], _table.let_go)
        _finish([record for record in records if not record.may_have_been_committed], _table.delete)

    def will_discard(self, intents: Iterable[Intent], /) -> None:
        """Note that their scope is about to be discarded."""
        for record in filter(None, map(_record_of, intents)):
            record.is_discarded = True

    def let_go(self, intents: Iterable[Intent], fates: tuple[Fate, ...], /) -> None:
        """Note that their scope has flushed, and that they hang on these fates, too."""
        records = [record for record in map(_record_of, intents) if record is not None]
        for record in records:
            record.is_let_go = True
            record.fates += fates
            record.wait_for(fates)
        if options().orphans == "park":  # else it makes no difference what becomes of them
            for alias, written in _by_alias(records).items():
                _has_done(_table.decide, alias, written)

    def __call__(self, intent: Intent, /) -> None:
        outcome = self.dispatch_many([intent])[0]
        if outcome is not None:
            raise outcome

    def dispatch_many(self, intents: Sequence[Intent], /) -> list[Outcome]:
        """Dispatch intents at once, if that does not take long, and leave the others to the relay.

        Returns:
            `None` for each that the database has, whatever becomes of it. For those that could not be recorded, as in a
            `TestCase`, what became of them.
        """
        _write_unwritten([record for record in map(_record_of, intents) if record is not None])
        outcomes: list[Outcome] = []
        for is_written, run in groupby(intents, _is_written):
            if is_written:
                outcomes += self._dispatch_written(list(run))
            else:
                outcomes += publish(self.inner, [_to_dispatch(intent) for intent in run])
            if outcomes.count(None) < len(outcomes):
                break
        return outcomes

    def _dispatch_written(self, intents: list[Intent]) -> list[Outcome]:
        records = _still_ours([record for record in map(_record_of, intents) if record is not None])
        done: list[Record] = []
        left: list[Record] = []
        for is_message, run in groupby(records, lambda record: record.message is not None):
            dispatch = self._publish_messages if is_message else self._make_calls
            batch = list(run)
            count = dispatch(batch)
            if count is None:  # a thread goes on with them
                continue
            done += batch[:count]
            left += batch[count:]
        _finish(done, _table.delete)
        _finish(left, _table.let_go)
        return [None] * len(intents)

    def _publish_messages(self, records: list[Record]) -> int | None:
        """Publish the first of these, and tell how many. `None`: it takes longer than a request may wait."""
        budget = options().fast_path_seconds
        if not budget or not breaker.allows():
            return 0
        publication = Publication(
            self.inner,
            [_to_dispatch(record.intent) for record in records],
            lambda outcomes: _finish_late(records, outcomes),
        )
        outcomes = publication.outcomes_within(budget)
        if outcomes is None:
            breaker.failed(f"it did not answer for {budget} seconds")
            return None
        return _count_and_tell(outcomes)

    def _make_calls(self, records: list[Record]) -> int:
        """Call what is to be called in this process, and tell how many went well."""
        for number, record in enumerate(records):
            goes_to_broker = isinstance(self.inner, CeleryExecutor) and self.inner.accepts(record.intent.task)
            if goes_to_broker and not (options().fast_path_seconds and breaker.allows()):
                return number
            # What was recorded, and not the intent itself: its arguments may have changed since.
            recorded, _ = read(record.payload, record.intent.id)
            outcome = run_in_context(record.intent, dispatch_one, self.inner, recorded)
            if outcome is None:
                continue
            error = outcome.error if isinstance(outcome, OutcomeUnknown) else outcome
            if not isinstance(error, Exception):
                raise error
            if goes_to_broker:
                breaker.failed(error)
            else:
                logger.error("%s failed and is left to the relay", record.intent, exc_info=error)
            return number
        return len(records)


def _record_of(intent: Intent) -> Record | None:
    return intent.prepared if isinstance(intent.prepared, Record) else None


def _is_written(intent: Intent) -> bool:
    record = _record_of(intent)
    return record is not None and record.alias is not None


def _to_dispatch(intent: Intent) -> Intent:
    record = _record_of(intent)
    if record is None or record.message is None:
        return intent
    return Intent(record.message, name=intent.name, dispatch_options={"task_id": record.message.task_id})


def _write_unwritten(records: Iterable[Record]) -> None:
    """In autocommit, write what no transaction has written."""
    from airlock.integrations.outbox.models import Entry

    unwritten = [record for record in records if record.alias is None]
    if not unwritten:
        return
    alias = router.db_for_write(Entry)
    # In a transaction that it does not hang on, as in a TestCase or in `detached()`, it is dispatched as it is.
    if connections[alias].in_atomic_block or not may_have_entries(alias):
        return
    try:
        write(alias, unwritten)
    except Exception:
        logger.exception("The outbox could not record %s intents, which are dispatched all the same", len(unwritten))


def _still_ours(records: list[Record]) -> list[Record]:
    """Those that nobody else may have taken. The hold of the others ended: a relay has them, or had."""
    soon = time.monotonic() + options().hold_seconds / 10
    lost: set[Record] = set()
    for alias, old in _by_alias(record for record in records if record.held_until < soon).items():
        lost.update(set(old).difference(_holds.renew(alias, old)))
    return [record for record in records if record not in lost]


def _count_and_tell(outcomes: list[Outcome]) -> int:
    """How many went well, before the first that did not."""
    failure = next((outcome for outcome in outcomes if outcome is not None), None)
    if failure is None:
        breaker.succeeded()
        return len(outcomes)
    breaker.failed(failure.error if isinstance(failure, OutcomeUnknown) else failure)
    return outcomes.index(failure)


def _finish_late(records: list[Record], outcomes: list[Outcome]) -> None:
    count = _count_and_tell(outcomes)
    _finish(records[:count], _table.delete)
    _finish(records[count:], _table.let_go)


def _finish(records: Iterable[Record], statement: _holds.Statement) -> None:
    for alias, written in _by_alias(records).items():
        # What is done in a transaction may be rolled back with it.
        if connections[alias].in_atomic_block or not _has_done(statement, alias, written):
            _holds.finish_later(written, statement)
        else:
            _holds.remove(written)


def _has_done(statement: _holds.Statement, alias: str, records: list[Record]) -> bool:
    try:
        statement(alias, [record.intent.id for record in records], _table.our_lease())
    except Exception:
        logger.exception("The outbox on %r could not be told what became of %s entries", alias, len(records))
        return False
    return True


def _by_alias(records: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.alias is not None:
            found[record.alias].append(record)
    return found
