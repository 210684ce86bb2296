"""What intents hang on in Django: the open transactions and savepoints of the running thread.

A marker waits among Django's own `on_commit` callbacks for each transaction or savepoint in which something was
enqueued. Django calls it: committed. It neither waits any more nor was called: rolled back.

These internals of Django are read, the same in 4.2, 5.2, 6.0 and 6.1; test_transactions.py fails where they change. Of a
connection: `run_on_commit` (the callbacks that wait, with the ids of their savepoints), `savepoint_ids` (one for each open
`atomic()` block but the outermost), `atomic_blocks` (those of a `TestCase` are marked `_from_testcase`),
`in_atomic_block`, `commit_on_exit`, `needs_rollback`, `autocommit`, and `run_commit_hooks_on_set_autocommit_on` (true
from the COMMIT until the callbacks have run). Of asgiref (3.6 to 3.13): which thread waits for a coroutine.
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

from airlock import UsageError
from airlock.ext import register_fates

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from django.db.backends.base.base import BaseDatabaseWrapper

    from airlock.ext import Fate, State

_lock = threading.Lock()


class _Thread:
    """What is known of a thread. Django gives each its own connections."""

    __slots__ = ("awaited", "opened")

    def __init__(self) -> None:
        #: The connections that were ever used. Without settings, none was.
        self.opened: list[BaseDatabaseWrapper] = []
        if settings.configured:
            self.opened += connections.all(initialized_only=True)
        #: Transactions that a scope of this thread waits for.
        self.awaited: list[Marker] = []


_local = threading.local()
_opened_by: WeakKeyDictionary[threading.Thread, list[BaseDatabaseWrapper]] = WeakKeyDictionary()


def _this_thread() -> _Thread:
    try:
        thread: _Thread = _local.thread
    except AttributeError:
        thread = _local.thread = _Thread()
        _opened_by[threading.current_thread()] = thread.opened
    return thread


def _remember(connection: BaseDatabaseWrapper, **_: Any) -> None:
    opened = _this_thread().opened
    if connection not in opened:
        opened.append(connection)


connection_created.connect(_remember, dispatch_uid="airlock")


class Marker:
    """A fate: waits among the callbacks of a connection, for a transaction or for a savepoint in one."""

    def __init__(self, connection: BaseDatabaseWrapper, savepoints: tuple[Any, ...], whole: Marker | None) -> None:
        self.state: State = "open"
        self.connection = connection
        #: The savepoints that were open. Who rolls one of them back drops the marker.
        self.savepoints = savepoints
        #: That of the whole transaction, which is called after those of its savepoints.
        self.transaction = whole or self
        self.test_block = _outermost_block_in_test(connection)
        self._of_savepoints: list[Marker] = []
        self._to_tell: list[Callable[[], None]] = []
        self.transaction._of_savepoints.append(self)

    def __call__(self) -> None:
        """The transaction has committed."""
        if self.transaction is not self:
            self.state = "kept"
            return
        with _lock:
            self.state = "gone" if self._rolls_back_with_test() else "kept"
            to_tell, self._to_tell = self._to_tell, []
        for marker in self._of_savepoints:
            if marker.state == "open":  # it was not called, and it would have been called first
                marker.state = "gone"
        _call_all(to_tell)

    def when_over(self, tell: Callable[[], None]) -> None:
        with _lock:
            if self.state == "open":
                self._to_tell.append(tell)
                _this_thread().awaited.append(self)
                return
        tell()

    def look(self, waiting: Collection[Marker]) -> None:
        """Find out what became of it, given the markers that still wait on its connection."""
        if self in waiting:
            if self.test_block is not None and self.test_block not in self.connection.atomic_blocks:
                self._end_in_test()
        elif not self.connection.run_commit_hooks_on_set_autocommit_on:
            self.state = "gone"

    def _end_in_test(self) -> None:
        # The transaction of a `TestCase` never commits. The outermost block inside of it has ended, which counts.
        # A rolled-back savepoint has taken the marker along; without one, the test's transaction is to be rolled back.
        self.state = "gone" if self._rolls_back_with_test() else "kept"
        if self.state == "gone" or not self._to_tell:
            # Nobody else shall find it: `captureOnCommitCallbacks` gives all callbacks to the test. That calls it for
            # those who wait, as a commit does in production.
            self.connection.run_on_commit = [entry for entry in self.connection.run_on_commit if entry[1] is not self]

    def _rolls_back_with_test(self) -> bool:
        return self.test_block is not None and self.connection.needs_rollback and not self.test_block.savepoint

    def tell_if_gone(self) -> bool:
        if self.state == "open":
            self.look(_waiting(self.connection))
        if self.state == "gone":
            _call_all(self._to_tell)
        return self.state != "open"

    def __repr__(self) -> str:
        return f"<Marker on {self.connection.alias!r}: {self.state}>"


class Transactions:
    """The source of fates that airlock-django registers."""

    def open_fates(self) -> tuple[Fate, ...]:
        thread = _this_thread()
        if thread.awaited:
            _tell_of_rolled_back(thread)
        opened = thread.opened if asyncio._get_running_loop() is None else _opened_for_coroutine()
        fates: tuple[Fate, ...] = ()
        for connection in opened:
            if not connection.autocommit:  # as while a transaction is open, and before the first query
                fates += _markers_of(connection)
        return fates

    def refresh(self, fates: Collection[Fate]) -> None:
        thread = _this_thread()
        if thread.awaited:
            _tell_of_rolled_back(thread)
        waiting: dict[BaseDatabaseWrapper, set[Marker]] = {}
        for fate in fates:
            if isinstance(fate, Marker) and fate.state == "open":
                if fate.connection not in waiting:
                    waiting[fate.connection] = _waiting(fate.connection)
                fate.look(waiting[fate.connection])


register_fates(Transactions())


def is_in_test_case(connection: BaseDatabaseWrapper) -> bool:
    """Whether the innermost open block is one that a `TestCase` wraps its tests in."""
    blocks: list[Any] = connection.atomic_blocks
    return bool(blocks) and blocks[-1]._from_testcase


def callbacks_wait_in_test_case() -> bool:
    """Whether this may be `captureOnCommitCallbacks`, running what waits for a commit that never comes."""
    return any(
        is_in_test_case(connection) and any(not isinstance(entry[1], Marker) for entry in connection.run_on_commit)
        for connection in _this_thread().opened
    )


def _opened_for_coroutine() -> Iterable[BaseDatabaseWrapper]:
    """The connections of this thread, and of the thread that waits for this coroutine (`async_to_sync`)."""
    opened = _this_thread().opened
    executor: Any = getattr(AsyncToSync.executors, "current", None)
    if executor is None or executor._broken:
        return opened
    return [*opened, *_opened_by.get(executor._work_thread, ())]


def _markers_of(connection: BaseDatabaseWrapper) -> tuple[Marker, ...]:
    """The marker of what is open on a connection, made if there is none."""
    if not (connection.in_atomic_block and connection.commit_on_exit):
        if connection.connection is None:
            return ()
        raise UsageError(
            f"The connection {connection.alias!r} is in manual transaction management (autocommit is off), where Django "
            "tells nobody of a commit. Turn autocommit on and use atomic(), or put what must go out in any case into "
            "`with airlock.detached():`."
        )
    if is_in_test_case(connection):
        return ()
    savepoints = tuple(connection.savepoint_ids)
    callbacks: list[Any] = connection.run_on_commit
    in_test = _outermost_block_in_test(connection)
    # Before the callbacks of others, of which one might raise. In a test behind them, where `captureOnCommitCallbacks`
    # looks for what is new.
    newest = callbacks[-1 if in_test else 0][1] if callbacks else None
    if not isinstance(newest, Marker):
        newest = None
    if newest is not None and newest.test_block is in_test and newest.savepoints[: len(savepoints)] == savepoints:
        return (newest,)  # what it has waited for besides has ended, and was not rolled back
    if in_test:
        marker = Marker(connection, savepoints, None)
        callbacks.append((set(savepoints), marker, False))
        return (marker,)
    whole = newest.transaction if newest else Marker(connection, (), None)
    if newest is None:
        callbacks.insert(0, (set(), whole, False))
    if not savepoints:
        return (whole,)
    marker = Marker(connection, savepoints, whole)
    callbacks.insert(0, (set(savepoints), marker, False))
    return (marker,)


def _outermost_block_in_test(connection: BaseDatabaseWrapper) -> Any:
    """In a `TestCase`, the outermost `atomic()` block that is not its own: the transaction, as far as the test goes."""
    blocks: list[Any] = connection.atomic_blocks
    if not (blocks and blocks[0]._from_testcase):
        return None
    return next((block for block in blocks if not block._from_testcase), None)


def _waiting(connection: BaseDatabaseWrapper) -> set[Marker]:
    return {entry[1] for entry in list(connection.run_on_commit) if isinstance(entry[1], Marker)}


def _tell_of_rolled_back(thread: _Thread) -> None:
    # Nobody is called for a rollback. Who waits for a transaction hears of it the next time that anybody looks.
    awaited, thread.awaited = thread.awaited, []
    thread.awaited += [marker for marker in awaited if not marker.tell_if_gone()]


def _call_all(callbacks: Iterable[Callable[[], None]]) -> None:
    """Call each of them, whatever the others raise. What interrupts is raised first."""
    errors: list[BaseException] = []
    for callback in callbacks:
        try:
            callback()
        except BaseException as error:
            errors.append(error)
    if errors:
        raise min(errors, key=lambda error: isinstance(error, Exception))
