"""What a process knows of an intent that it has recorded, and when that is written."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from django.db import router

from airlock.ext import refresh_fates
from airlock.integrations.django import remember_language
from airlock.integrations.outbox import _holds, _table
from airlock.integrations.outbox._settings import options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airlock import Intent
    from airlock.ext import Fate
    from airlock.integrations.django import DjangoTransaction
    from airlock.integrations.executors.celery import Message


class Record:
    """An intent, its payload, and the database that has it."""

    __slots__ = (
        "__weakref__",
        "alias",
        "as_enqueued",
        "fates",
        "held_until",
        "intent",
        "is_decided",
        "is_forgotten",
        "is_given_away",
        "message",
        "payload",
        "scope",
        "transaction",
    )

    def __init__(self, intent: Intent, message: Message | None, payload: str, fates: tuple[Fate, ...]) -> None:
        self.intent = intent
        self.message = message
        self.payload = payload
        self.fates = fates
        #: Makes active what was so at `enqueue`, and is no context variable. A message has it already.
        self.as_enqueued = nullcontext if message is not None else remember_language()
        #: The database that its entry was written to.
        self.alias: str | None = None
        #: The transaction that has written it; `None` in autocommit.
        self.transaction: DjangoTransaction | None = None
        #: Until when nobody else takes that, by the monotonic clock.
        self.held_until = 0.0
        #: Whether its scope has flushed, and which one that was, for who listens.
        self.is_decided = False
        self.scope = ""
        #: Whether it will not be dispatched.
        self.is_forgotten = False
        #: Whether a thread dispatches it, so that nobody else does.
        self.is_given_away = False

    def wait_for(self, fates: Iterable[Fate]) -> None:
        """Be written with the transactions that these fates are part of: by the one that commits last."""
        for transaction in {fate.transaction for fate in fates}:
            before_commit = getattr(transaction, "before_commit", None)  # others than Django's have none
            if transaction.state == "open" and before_commit is not None:
                before_commit(Writer).records[self] = None

    def is_due_with(self, transaction: DjangoTransaction) -> bool:
        """Whether it is to be written by the COMMIT of a transaction."""
        if self.is_forgotten or self.alias is not None or self.intent.prepared is not self:
            return False
        if any(fate.state == "gone" for fate in self.fates):
            return False
        return not any(fate.transaction.state == "open" for fate in self.fates if fate.transaction is not transaction)

    def hangs_only_on_its_commit(self) -> bool:
        """Whether it is to be dispatched, if the transaction that has written it has committed."""
        undecided = [fate for fate in self.fates if fate.state != "kept"]
        return bool(undecided) and all(fate.transaction is self.transaction for fate in undecided)


class Writer:
    """Writes the records of a transaction right before its COMMIT."""

    def __init__(self, transaction: DjangoTransaction) -> None:
        self._transaction = transaction
        #: In order, each once.
        self.records: dict[Record, None] = {}

    def __call__(self) -> None:
        records = list(self.records)
        refresh_fates({fate for record in records for fate in record.fates})
        due = [record for record in records if record.is_due_with(self._transaction)]
        alias = self._transaction.connection.alias
        if due and may_have_entries(alias):
            write(alias, due, self._transaction)


def may_have_entries(alias: str) -> bool:
    """Whether the routers of the project allow the table on a database."""
    from airlock.integrations.outbox.models import Entry

    return router.allow_migrate_model(alias, Entry)


def write(alias: str, records: Sequence[Record], transaction: DjangoTransaction | None = None) -> None:
    """Write records, which are ours for the time of a hold."""
    hold = options().hold_seconds
    held_until = time.monotonic() + hold
    _table.insert(alias, records, _table.our_lease(), hold)
    for record in records:
        record.alias, record.transaction = alias, transaction
        record.held_until = held_until
    _holds.add(records)
