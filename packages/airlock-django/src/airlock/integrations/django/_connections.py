"""Which database connections the running code uses.

Django gives each thread its own connections. They are collected as Django opens them, because asking for all of them
takes as long as the rest of an `enqueue`.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from asgiref.sync import AsyncToSync
from django.conf import settings
from django.db import connections
from django.db.backends.signals import connection_created

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.backends.base.base import BaseDatabaseWrapper

_local = threading.local()
_of_thread: WeakKeyDictionary[threading.Thread, list[BaseDatabaseWrapper]] = WeakKeyDictionary()


def connections_here() -> Iterable[BaseDatabaseWrapper]:
    """The connections that the running code may have a transaction on.

    Those of this thread. In a coroutine also those of the thread that waits for it, as `async_to_sync` does: the ORM
    works on them, too.
    """
    here = connections_of_this_thread()
    if asyncio._get_running_loop() is None:  # noqa: SLF001 - as `get_running_loop`, and does not raise
        return here
    return [*here, *_connections_of_waiting_thread()]


def connections_of_this_thread() -> list[BaseDatabaseWrapper]:
    try:
        here: list[BaseDatabaseWrapper] = _local.connections
    except AttributeError:
        # Without settings there is no connection yet.
        here = _local.connections = list(connections.all(initialized_only=True)) if settings.configured else []
        _of_thread[threading.current_thread()] = here
    return here


def _connections_of_waiting_thread() -> Iterable[BaseDatabaseWrapper]:
    # Two internals of asgiref, read in 3.6 to 3.13: the thread in which an executor runs code, and whether that has
    # stopped waiting. test_async.py fails if they change.
    executor: Any = getattr(AsyncToSync.executors, "current", None)
    if executor is None or executor._broken:  # noqa: SLF001
        return ()
    return _of_thread.get(executor._work_thread, ())  # noqa: SLF001


def _remember(connection: BaseDatabaseWrapper, **_: Any) -> None:
    here = connections_of_this_thread()
    if connection not in here:
        here.append(connection)


connection_created.connect(_remember, dispatch_uid="airlock")
