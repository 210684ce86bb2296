"""How a flush ends for the entries that it has dispatched, and for those that it has not."""

from __future__ import annotations

from functools import partial
from time import time_ns
from typing import TYPE_CHECKING, Self

from airlock.ext import Event, is_heard, tell
from airlock.integrations.outbox import _holds, _table
from airlock.integrations.outbox._states import LEFT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airlock.ext import Kind
    from airlock.integrations.outbox._record import Record


class Settlement:
    """Settles entries at the end of a block, also if that is interrupted.

    Those that were dispatched are deleted, and the others are left to the relay. Whoever listens is told of both.

        with Settlement(records) as settlement:
            settlement.note_dispatched(records[:1])

    Args:
        records: those of the entries. All of them have been written.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        #: Those to settle here, and whether they were dispatched.
        self._is_dispatched = dict.fromkeys(records, False)
        #: Why others were not, as far as that was noted.
        self._reasons: dict[Record, str] = {}
        #: Those of them that have failed, and the error if it is their own: their entries say why, too.
        self._failed: dict[Record, BaseException | None] = {}
        self._began = time_ns()

    def note_dispatched(self, records: Iterable[Record]) -> None:
        """Have these deleted in the end."""
        self._is_dispatched.update(dict.fromkeys(records, True))

    def note_left(self, records: Iterable[Record], why: str) -> None:
        """Say why these are left to the relay, those that are not dispatched after all."""
        for record in records:
            self._reasons.setdefault(record, why)

    def note_failed(self, records: Iterable[Record], why: str, error: BaseException | None = None) -> None:
        """Say why these could not be dispatched, for `airlock_explain` too; with the error if it is their own fault."""
        self._failed.update(dict.fromkeys(records, error))
        self.note_left(records, why)

    def give_away(self, records: Iterable[Record]) -> None:
        """Have somebody else settle these, who is about to dispatch them."""
        for record in records:
            record.is_given_away = True
            del self._is_dispatched[record]

    def take_back(self, records: Iterable[Record]) -> None:
        """Have these settled here after all. They are not dispatched yet."""
        for record in records:
            self._is_dispatched[record] = record.is_given_away = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        dispatched = [record for record, is_done in self._is_dispatched.items() if is_done]
        left = {
            record: f"{LEFT}{self._reasons.get(record, 'what went before it failed')}"
            for record, is_done in self._is_dispatched.items()
            if not is_done
        }
        errors = {record.intent.id: why for record, why in left.items() if record in self._failed}
        try:
            _holds.finish(dispatched, _table.delete)
        finally:  # an interruption may come here, too
            _holds.finish(left, partial(_table.let_go, errors=errors))
        if is_heard():
            tell([Event("dispatched", record.intent, record.scope, began=self._began) for record in dispatched])
            tell_of_stored(left, self._failed)


def tell_of_stored(reasons: Mapping[Record, str], failed: Mapping[Record, BaseException | None] | None = None) -> None:
    """Tell that the database has these, and why they are left to the relay: because they have failed, for example."""
    events = []
    for record, why in reasons.items():
        error = (failed or {}).get(record)
        kind: Kind = "stored" if error is None else "failed"
        events.append(Event(kind, record.intent, record.scope, why, error=error, is_handled=error is not None))
    tell(events)
