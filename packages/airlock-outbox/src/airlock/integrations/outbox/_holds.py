"""Renews the holds of entries whose scopes live long.

A thread of the process looks, a few times in the time of a hold, at what the process holds.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING
from weakref import WeakSet

from django.db import connections

from airlock.integrations.outbox import _table
from airlock.integrations.outbox._settings import options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airlock.integrations.outbox._record import Record

logger = logging.getLogger("airlock")

#: How often the thread looks, in the time of a hold.
_LOOKS = 4


class _Holds:
    def __init__(self) -> None:
        #: As long as somebody has their intents, and may dispatch them.
        self.records: WeakSet[Record] = WeakSet()
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None

    def renew_for_ever(self) -> None:
        while True:
            time.sleep(options().hold_seconds / _LOOKS)
            with self.lock:
                if not self.records:
                    self.thread = None
                    return
            self.renew()

    def renew(self) -> None:
        """Renew what was not written just now."""
        hold = options().hold_seconds
        soon = time.monotonic() + hold - hold / _LOOKS
        by_alias: dict[str, list[Record]] = defaultdict(list)
        with self.lock:
            for record in self.records:
                if record.alias is not None and record.held_until < soon:
                    by_alias[record.alias].append(record)
        for alias, records in by_alias.items():
            try:
                renew(alias, records)
            except Exception:
                logger.warning("Entries of the outbox on %r could not be held for longer", alias, exc_info=True)
        if by_alias:
            connections.close_all()


_holds = _Holds()


def add(records: Iterable[Record]) -> None:
    """Hold the entries of records until they are removed."""
    with _holds.lock:
        _holds.records.update(records)
        if _holds.thread is None:
            _holds.thread = threading.Thread(target=_holds.renew_for_ever, name="airlock-outbox-holds", daemon=True)
            _holds.thread.start()


def remove(records: Iterable[Record]) -> None:
    """Let go of the entries of records."""
    with _holds.lock:
        _holds.records.difference_update(records)


def renew(alias: str, records: list[Record]) -> list[Record]:
    """Hold entries for as long again, and tell which of them are still ours."""
    hold = options().hold_seconds
    held_until = time.monotonic() + hold
    ours = _table.renew(alias, [record.intent.id for record in records], _table.our_lease(), hold)
    still_ours = [record for record in records if record.intent.id in ours]
    for record in still_ours:
        record.held_until = held_until
    return still_ours


def forget_all() -> None:
    """Hold nothing, as in a forked child: what its parent holds is not its own."""
    global _holds
    _holds = _Holds()


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
    os.register_at_fork(after_in_child=forget_all)
