"""Looks after what the process holds in the outbox, in a thread, a few times in the time of a hold.

It renews the holds of scopes that live long, and does what could not be done at once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from django.db import connections

from airlock.integrations.outbox import _table
from airlock.integrations.outbox._settings import options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from airlock.integrations.outbox._record import Record

    #: Does something about entries: the database, their ids, our lease.
    Statement = Callable[[str, Iterable[str], UUID], None]

logger = logging.getLogger("airlock")

#: How often the thread looks, in the time of a hold.
_LOOKS = 4


class _Holds:
    def __init__(self) -> None:
        #: With what is still to be done about them. `None`: nobody knows yet.
        self.records: dict[Record, Statement | None] = {}
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None

    def renew_for_ever(self) -> None:
        while True:
            time.sleep(options().hold_seconds / _LOOKS)
            with self.lock:
                if not self.records:
                    self.thread = None
                    return
            self.look()

    def look(self) -> None:
        hold = options().hold_seconds
        soon = time.monotonic() + hold - hold / _LOOKS
        work: dict[tuple[str, Statement | None], list[Record]] = defaultdict(list)
        with self.lock:
            for record, statement in self.records.items():
                if record.alias is not None and (statement or record.held_until < soon):
                    work[record.alias, statement].append(record)
        for (alias, statement), records in work.items():
            try:
                if statement is None:
                    renew(alias, records)
                else:
                    statement(alias, [record.intent.id for record in records], _table.our_lease())
                    remove(records)
            except Exception:
                logger.warning("The outbox on %r cannot be reached", alias, exc_info=True)
        if work:
            connections.close_all()


_holds = _Holds()


def add(records: Iterable[Record]) -> None:
    """Hold the entries of records until they are removed."""
    with _holds.lock:
        _holds.records.update(dict.fromkeys(records))
        if _holds.thread is None:
            _holds.thread = threading.Thread(target=_holds.renew_for_ever, name="airlock-outbox-holds", daemon=True)
            _holds.thread.start()


def remove(records: Iterable[Record]) -> None:
    """Let go of the entries of records."""
    with _holds.lock:
        for record in records:
            _holds.records.pop(record, None)


def finish_later(records: Iterable[Record], statement: Statement) -> None:
    """Have the thread do something about entries, which could not be done now."""
    with _holds.lock:
        _holds.records.update(dict.fromkeys(records, statement))


def renew(alias: str, records: list[Record]) -> list[Record]:
    """Hold entries for as long again, and tell which of them are still ours."""
    hold = options().hold_seconds
    held_until = time.monotonic() + hold
    ours = _table.renew(alias, [record.intent.id for record in records], _table.our_lease(), hold)
    still_ours = [record for record in records if record.intent.id in ours]
    for record in still_ours:
        record.held_until = held_until
    return still_ours


def _forget_those_of_parent() -> None:
    global _holds
    _holds = _Holds()


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
    os.register_at_fork(after_in_child=_forget_those_of_parent)
