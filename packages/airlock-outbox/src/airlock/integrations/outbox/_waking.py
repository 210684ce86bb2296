"""What a relay sleeps with, and how `AIRLOCK["OUTBOX"]["NOTIFY"]` wakes it on PostgreSQL."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from django.db import connections

from airlock.integrations.outbox._settings import options

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANNEL = "airlock_outbox"


def notify(alias: str) -> None:
    """Wake the relays of a database, if that is configured."""
    connection = connections[alias]
    if options().notify and connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])


class Waker:
    """Lets a relay sleep, until it is stopped, or until there is something to do. Use it as a context manager.

    A signal handler may call `stop`. (An `Event` is not made for that: it can deadlock if it is set by a handler that
    interrupts its own `wait`.)

    Args:
        aliases: the databases whose notifications wake it.
    """

    def __init__(self, aliases: Sequence[str] = ()) -> None:
        self.is_stopped = False
        self._aliases = aliases
        self._stopping, self._stop = socket.socketpair()
        self._stop.setblocking(False)
        #: The connections of psycopg that listen.
        self._listening: dict[str, Any] = {}
        self._is_notified = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.close()
        self._stop.close()

    def stop(self, *_: object) -> None:
        """End whatever sleeps, now and later."""
        self.is_stopped = True
        with suppress(BlockingIOError):
            self._stop.send(b".")

    def pause(self, seconds: float) -> None:
        """Sleep for so many seconds, unless it is stopped."""
        select.select([self._stopping], [], [], seconds)

    def sleep(self, seconds: float) -> None:
        """Sleep for so many seconds, unless it is stopped or notified.

        Raises:
            django.db.DatabaseError: if a database cannot be listened to.
        """
        has_news = options().notify and self._listen()
        if not has_news and not self._is_notified:
            select.select([self._stopping, *self._listening.values()], [], [], seconds)
        self._is_notified = False

    def _listen(self) -> bool:
        """Listen to those connections that are new. What came before that is to be looked for."""
        has_news = False
        for alias in self._aliases:
            connection: Any = connections[alias]
            psycopg = connection.connection
            if not hasattr(psycopg, "add_notify_handler"):  # another database, psycopg 2, or not connected
                self._listening.pop(alias, None)
            elif self._listening.get(alias) is not psycopg:
                with connection.cursor() as cursor:
                    cursor.execute(f"LISTEN {CHANNEL}")
                psycopg.add_notify_handler(self._notified)
                self._listening[alias] = psycopg
                has_news = True
        return has_news

    def _notified(self, _: object) -> None:
        # It came with the answer to a query, which may have been asked before.
        self._is_notified = True
