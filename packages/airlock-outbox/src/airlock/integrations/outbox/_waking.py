"""Waking the relay by NOTIFY on PostgreSQL, with `AIRLOCK["OUTBOX"]["NOTIFY"]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connections

from airlock.integrations.outbox._settings import options

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from airlock.integrations.outbox._relay import Relay

CHANNEL = "airlock_outbox"


def notify(alias: str) -> None:
    """Wake the relays of a database, if that is configured."""
    connection = connections[alias]
    if options().notify and connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])


class Waker:
    """Sleeps until an entry is left to the relay, if that is configured, or for a time.

    With several databases it sleeps for a time: nobody can listen to all of them at once.
    """

    def __init__(self, relays: Sequence[Relay], stop: threading.Event) -> None:
        self._alias = relays[0].alias
        self._stop = stop
        self._listens = options().notify and len(relays) == 1 and connections[self._alias].vendor == "postgresql"
        self._listening: Any = None

    def sleep(self, seconds: float) -> None:
        """Sleep for so many seconds at most."""
        connection = connections[self._alias]
        psycopg: Any = connection.connection
        if not self._listens or not hasattr(psycopg, "notifies"):  # not configured, or psycopg 2
            self._stop.wait(seconds)
            return
        if self._listening is not psycopg:
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            self._listening = psycopg
            return  # what came before that is to be looked for
        for _ in psycopg.notifies(timeout=seconds, stop_after=1):
            pass
