"""The executor of an outbox scope: it records what is enqueued, and leaves the rest to the executor that it wraps."""

from __future__ import annotations

import logging
import time
from functools import cached_property, partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from celery.app import app_or_default
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connections, router, transaction

from airlock import Intent
from airlock.ext import Event, dispatch_one, is_heard, refresh_fates, run_in_context, tell
from airlock.integrations.outbox import _holds, _table
from airlock.integrations.outbox._fast_path import Publication, breaker, publish
from airlock.integrations.outbox._log import facts_of
from airlock.integrations.outbox._outage import BrokerDownError, blame_broker, error_of, runs_in_place
from airlock.integrations.outbox._pausing import paused_tasks
from airlock.integrations.outbox._record import Record, may_have_entries, write
from airlock.integrations.outbox._recording import message_of, name_of_executor, payload_of, read
from airlock.integrations.outbox._settings import options
from airlock.integrations.outbox._settlement import Settlement, tell_of_stored
from airlock.integrations.outbox._states import BROKER_FAILS, LEFT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery import Celery

    from airlock import Executor
    from airlock.ext import Fate, Outcome

logger = logging.getLogger("airlock")


class OutboxExecutor:
    """Records intents, and has another executor dispatch them.

    Args:
        inner: the executor that it wraps. Other processes must be able to find it by its name.
    """

    #: Settlements tell of what was dispatched, and of what is left to the relay.
    tells_of_dispatched = True

    def __init__(self, inner: Executor) -> None:
        self.inner: Any = inner

    @cached_property
    def _name(self) -> str | None:
        """Where other processes find the executor that it wraps."""
        return name_of_executor(self.inner)

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
        message = message_of(intent, self.inner)
        record = Record(intent, message, payload_of(intent, self.inner, self._name, message), fates)
        record.wait_for(fates)
        return record

    def forget(self, intents: Iterable[Intent], rolled_back: bool, /) -> None:
        """Delete what was written of intents that will not be dispatched."""
        records = [record for record in map(_record_of, intents) if record is not None]
        for record in records:
            record.is_forgotten = True
        # If the connection was lost in its COMMIT, the database may have committed, and could not say so. Then the
        # entry is there, and right.
        refresh_fates({fate for record in records for fate in record.fates})
        undecided = {record for record in records if rolled_back and record.hangs_only_on_its_commit()}
        _holds.finish(undecided, _table.let_go)
        _holds.finish([record for record in records if record not in undecided], _table.delete)

    def decide(self, intents: Iterable[Intent], fates: tuple[Fate, ...], scope: str, /) -> None:
        """Note that a scope has flushed them, and that they hang on these fates, too."""
        records = [record for record in map(_record_of, intents) if record is not None]
        for record in records:
            record.is_decided, record.scope = True, scope
            record.fates += fates
            record.wait_for(fates)
        if options().orphans == "park":  # else it makes no difference what becomes of them
            _decide(records)

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
        for is_written, together in groupby(intents, _is_written):
            dispatch = self._dispatch_written if is_written else self._dispatch_unwritten
            outcomes += dispatch(list(together))
            if outcomes.count(None) < len(outcomes):
                break
        return outcomes

    def _dispatch_unwritten(self, intents: list[Intent]) -> list[Outcome]:
        began = time.time_ns()
        scopes = [_scope_of(intent) for intent in intents]  # not later: what is carried out forgets its record
        outcomes = publish(self.inner, [_to_dispatch(intent) for intent in intents])
        if is_heard():
            told = zip(intents, scopes, outcomes, strict=False)
            tell(
                [Event("dispatched", intent, scope, began=began) for intent, scope, outcome in told if outcome is None]
            )
        return outcomes

    def _dispatch_written(self, intents: list[Intent]) -> list[Outcome]:
        records = [record for record in map(_record_of, intents) if record is not None and not record.is_given_away]
        with Settlement(records) as settlement:
            for runs_here, run in groupby(self._ready(records, settlement), self._runs_here):
                dispatch = self._run if runs_here else self._publish
                dispatch(list(run), settlement)
        return [None] * len(intents)

    def _runs_here(self, record: Record) -> bool:
        """Whether to dispatch it is to run it. That belongs in the thread of the request, and takes its time."""
        return record.message is None and runs_in_place(self.inner, record.intent)

    def _ready(self, records: list[Record], settlement: Settlement) -> list[Record]:
        """Those to dispatch now. Whatever the relay publishes in a process of its own, RabbitMQ confirms."""
        confirms = getattr(self.inner, "confirms", lambda intent: True)
        ours = _still_ours(records)
        settlement.note_left(set(records).difference(ours), "its hold had ended")
        unpaused = _not_paused(ours)
        settlement.note_left(set(ours).difference(unpaused), "its task is paused")
        ready = [record for record in unpaused if record.message is not None or confirms(record.intent)]
        settlement.note_left(set(unpaused).difference(ready), "only there RabbitMQ confirms it")
        return ready

    def _publish(self, records: list[Record], settlement: Settlement) -> None:
        """Hand these to a queue in a thread, up to the first that fails, as long as it does not take too long."""
        budget = options().fast_path_seconds
        if not budget or not breaker.allows():
            if budget:
                settlement.note_failed(records, f"{BROKER_FAILS}: {breaker.why}")
            else:
                settlement.note_left(records, "FAST_PATH_SECONDS is 0")
            return
        publication = Publication(
            partial(_outcomes_of, app_or_default(), self.inner, records),
            lambda outcomes: _settle_late(records, outcomes),
        )
        settlement.give_away(records)  # to the thread, if this one is interrupted or cannot wait so long
        try:
            outcomes = publication.outcomes_within(budget)
        finally:
            _holds.remove(records)  # if the thread never ends, a relay takes them when their hold does
        if outcomes is None:
            silence = f"it did not answer for {budget} seconds"
            breaker.failed(silence)
            # The thread may still come through.
            tell_of_stored(dict.fromkeys(records, f"{LEFT}{BROKER_FAILS}: {silence}"))
            return
        settlement.take_back(records)
        _settle(records, outcomes, settlement)

    def _run(self, records: list[Record], settlement: Settlement) -> None:
        """Run these in this thread, up to the first that fails."""
        for record in records:
            outcome = _call(self.inner, record)
            if outcome is not None:
                error = error_of(outcome)
                if not isinstance(error, Exception) or isinstance(error, SoftTimeLimitExceeded):
                    raise error
                _note_failure(record, error, settlement)
                return
            settlement.note_dispatched([record])


def _not_paused(records: list[Record]) -> list[Record]:
    """Those to dispatch. The relay has the others when their tasks are resumed."""
    paused: dict[str, frozenset[str]] = {}
    for alias in {record.alias for record in records if record.alias is not None}:
        try:
            paused[alias] = paused_tasks(alias)
        except Exception:
            logger.exception("The outbox on %r could not be asked which tasks are paused", alias)
    return [record for record in records if record.intent.full_name[:255] not in paused.get(record.alias or "", ())]


def _record_of(intent: Intent) -> Record | None:
    return intent.prepared if isinstance(intent.prepared, Record) else None


def _scope_of(intent: Intent) -> str:
    record = _record_of(intent)
    return "" if record is None else record.scope


def _is_written(intent: Intent) -> bool:
    record = _record_of(intent)
    return record is not None and record.alias is not None


def _outcomes_of(app: Celery, executor: Executor, records: list[Record]) -> list[Outcome]:
    """Dispatch messages together, and calls one by one, up to the first that fails."""
    app.set_current()  # of this thread: Celery has another one for each
    outcomes: list[Outcome] = []
    for has_message, together in groupby(records, lambda record: record.message is not None):
        if has_message:
            messages = [_to_dispatch(record.intent) for record in together]
            outcomes += blame_broker(executor, messages, publish(executor, messages))
        else:
            for record in together:
                outcomes.append(_call(executor, record))
                if outcomes[-1] is not None:
                    break
        if outcomes.count(None) < len(outcomes):
            break
    return outcomes


def _call(executor: Executor, record: Record) -> Outcome:
    """Dispatch what was recorded, and not the intent itself: its arguments may have changed since."""
    try:
        recorded, _ = read(record.payload, record.intent.id)
        return run_in_context(record.intent, _dispatch, record, executor, recorded)
    except Exception as error:  # of a carrier, or of what cannot be read any more
        return error


def _dispatch(record: Record, executor: Executor, recorded: Intent) -> Outcome:
    with record.as_enqueued():
        # Here, as the broker has nothing to do with what a carrier raises.
        return blame_broker(executor, [recorded], [dispatch_one(executor, recorded)])[0]


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
    connection = connections[alias]
    if connection.in_atomic_block or not connection.get_autocommit() or not may_have_entries(alias):
        return
    try:
        with transaction.atomic(using=alias):  # all of them, or none
            write(alias, unwritten)
    except Exception:
        for record in unwritten:
            record.alias = None
        logger.exception("The outbox could not record %s intents, which are dispatched all the same", len(unwritten))


def _decide(records: list[Record]) -> None:
    for alias, written in _holds.by_alias(records).items():
        try:
            _table.decide(alias, [record.intent.id for record in written], _table.our_lease())
        except Exception:
            logger.exception("The outbox on %r could not be told that a scope has flushed", alias)


def _still_ours(records: list[Record]) -> list[Record]:
    """Those that nobody else may have taken. The hold of the others ended: a relay has them, or had."""
    soon = time.monotonic() + options().hold_seconds / 10
    lost: set[Record] = set()
    for alias, old in _holds.by_alias(record for record in records if record.held_until < soon).items():
        lost.update(set(old).difference(_holds.renew(alias, old)))
    return [record for record in records if record not in lost]


def _settle(records: list[Record], outcomes: list[Outcome], settlement: Settlement) -> None:
    """Note those that went well, before the first that did not. The log, or the breaker, hears of that one."""
    failure = next((outcome for outcome in outcomes if outcome is not None), None)
    if failure is None:
        breaker.succeeded()
        settlement.note_dispatched(records)
        return
    number, error = outcomes.index(failure), error_of(failure)
    settlement.note_dispatched(records[:number])
    if isinstance(error, BrokerDownError):
        breaker.failed(error.why)
        settlement.note_failed(records[number:], f"{BROKER_FAILS}: {breaker.why}")
    else:
        _note_failure(records[number], error, settlement)


def _settle_late(records: list[Record], outcomes: list[Outcome]) -> None:
    with Settlement(records) as settlement:
        _settle(records, outcomes, settlement)


def _note_failure(record: Record, error: BaseException, settlement: Settlement) -> None:
    intent, why = record.intent, repr(error)
    logger.error(
        "%s (id %s, enqueued at %s) failed and is left to the relay",
        intent.name,
        intent.id,
        intent.origin or "unknown origin",
        exc_info=error,
        extra=facts_of(Event("failed", intent, record.scope, f"{LEFT}{why}")),
    )
    settlement.note_failed([record], why, error)
