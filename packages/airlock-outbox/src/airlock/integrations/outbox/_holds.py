"""Looks after what the process has in the outbox, in a thread, a few times in the time of a hold.

It renews the holds of scopes that live long, and does what could not be done at once.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections

from airlock.integrations.outbox import _table
from airlock.integrations.outbox._settings import options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from uuid import UUID

    from airlock.integrations.outbox._record import Record

    #: Does something about entries: on which database, their ids, our lease.
    Statement = Callable[[str, Iterable[str], UUID], None]

logger = logging.getLogger("airlock")

#: How often the thread looks, in the time of a hold.
_LOOKS = 4


class _Holds:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        #: Wakes the thread, for what is unfinished.
        self.is_due = threading.Event()
        #: Their holds are renewed, as long as somebody has their intents, and may still decide.
        self.undecided: WeakSet[Record] = WeakSet()
        #: What is still to be done about entries.
        self.unfinished: dict[Record, Statement] = {}

    def see_to(self) -> None:
        """Have the thread run; with the lock held."""
        if self.thread is None:
            thread = threading.Thread(target=self.look_for_ever, name="airlock-outbox-holds", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the process has too many; the next one to hold something tries again
                logger.exception("Nobody looks after what this process has in the outbox")
            else:
                self.thread = thread

    def look_for_ever(self) -> None:
        while True:
            self.is_due.wait(options().hold_seconds / _LOOKS)
            self.is_due.clear()
            with self.lock:
                if not (self.undecided or self.unfinished):
                    self.thread = None
                    return
            self.look()

    def look(self) -> None:
        hold = options().hold_seconds
        soon = time.monotonic() + hold - hold / _LOOKS
        with self.lock:
            old = [record for record in self.undecided if record.held_until < soon]
            unfinished = dict(self.unfinished)
        for alias, records in by_alias(old).items():
            with _logging(alias):
                renew(alias, records)
        for statement in set(unfinished.values()):
            records = [record for record in unfinished if unfinished[record] is statement]
            for alias, of_alias in by_alias(records).items():
                with _logging(alias):
                    _do(statement, alias, of_alias)
                    with self.lock:
                        for record in of_alias:
                            self.unfinished.pop(record, None)
        with _logging("all databases"):
            connections.close_all()


@contextmanager
def _logging(alias: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        logger.warning("The outbox on %r cannot be reached", alias, exc_info=True)


_holds = _Holds()


def add(records: Iterable[Record]) -> None:
    """Hold the entries of records until something else is said of them."""
    with _holds.lock:
        _holds.undecided.update(records)
        _holds.see_to()


def remove(records: Iterable[Record]) -> None:
    """Hold the entries of records no longer than they are held now."""
    with _holds.lock:
        _holds.undecided.difference_update(records)


def finish(records: Iterable[Record], statement: Statement) -> None:
    """Do something about entries, after which they are not ours: now, or else as soon as it can be done."""
    for alias, written in by_alias(records).items():
        remove(written)
        for record in written:
            record.held_until = 0  # who comes with it once more asks the database whether it is still ours
        try:
            if not connections[alias].in_atomic_block:  # with whose transaction it might be rolled back
                _do(statement, alias, written)
                continue
        except SynchronousOnlyOperation:
            pass  # on an event loop, which is not to wait for it
        except Exception:
            logger.exception("The outbox on %r could not be told what became of its entries, yet", alias)
        with _holds.lock:
            _holds.unfinished.update(dict.fromkeys(written, statement))
            _holds.see_to()
            _holds.is_due.set()


def _finish_at_exit() -> None:
    """Do what is left to be done, as the thread ends with the process."""
    if _holds.unfinished:
        _holds.look()


atexit.register(_finish_at_exit)


def _do(statement: Statement, alias: str, records: Iterable[Record]) -> None:
    statement(alias, [record.intent.id for record in records], _table.our_lease())


def renew(alias: str, records: list[Record]) -> list[Record]:
    """Hold entries for as long again, and tell which of them are still ours."""
    hold = options().hold_seconds
    held_until = time.monotonic() + hold
    ours = _table.renew(alias, [record.intent.id for record in records], _table.our_lease(), hold)
    still_ours = [record for record in records if record.intent.id in ours]
    for record in still_ours:
        record.held_until = held_until
    return still_ours


def by_alias(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records that are written, by the database that has them."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.alias is not None:
            found[record.alias].append(record)
    return found


def forget_all() -> None:
    """Hold nothing, as in a forked child: what its parent holds is not its own."""
    global _holds
    _holds = _Holds()


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
    os.register_at_fork(after_in_child=forget_all)
