"""How a flush ends for the entries that it has dispatched, and for those that it has not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from airlock.integrations.outbox import _holds, _table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airlock.integrations.outbox._record import Record


class Settlement:
    """Settles entries at the end of a block, also if that is interrupted.

    Those that were dispatched are deleted, and the others are left to the relay.

        with Settlement(records) as settlement:
            settlement.note_dispatched(records[:1])

    Args:
        records: those of the entries. All of them have been written.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        #: Those to settle here, and whether they were dispatched.
        self._is_dispatched = dict.fromkeys(records, False)

    def note_dispatched(self, records: Iterable[Record]) -> None:
        """Have these deleted in the end."""
        self._is_dispatched.update(dict.fromkeys(records, True))

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
        try:
            _holds.finish([record for record, is_done in self._is_dispatched.items() if is_done], _table.delete)
        finally:  # an interruption may come here, too
            _holds.finish([record for record, is_done in self._is_dispatched.items() if not is_done], _table.let_go)
