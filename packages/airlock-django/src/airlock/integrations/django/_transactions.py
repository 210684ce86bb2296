"""What intents hang on in Django: open transactions and savepoints.

For each transaction or savepoint in which something is enqueued, a marker waits among Django's `on_commit` callbacks.

- Django calls it: the transaction has committed.
- It waits no longer, and was not called: Django has dropped it, because of a rollback.

It reads these internals of a connection, the same in Django 4.2, 5.2, 6.0 and 6.1. test_transactions.py fails if one of
them changes.

- `run_on_commit`: the callbacks that wait, each with the ids of the savepoints it was registered in.
- `savepoint_ids`: one for each open `atomic()` block but the outermost; `None` for a block without a savepoint.
- `atomic_blocks`: the open blocks. Those of a `TestCase` are marked `_from_testcase`.
- `in_atomic_block`, `commit_on_exit`, `needs_rollback`, `autocommit`.
- `run_commit_hooks_on_set_autocommit_on`: true from the COMMIT until the callbacks have run.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from django.db import DatabaseError, Error

from airlock import UsageError
from airlock.ext import Transaction, register_fates
from airlock.integrations.django._connections import connections_here, connections_of_this_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from django.db.backends.base.base import BaseDatabaseWrapper

    from airlock.ext import Fate, State

_CallbackT = TypeVar("_CallbackT", bound="Callable[[], None]")

_lock = threading.Lock()


class Marker:
    """A fate: waits among the callbacks of a connection, for a transaction or for a savepoint in one."""

    def __init__(self, connection: BaseDatabaseWrapper, savepoints: tuple[Any, ...], whole: Marker | None) -> None:
        self.state: State = "open"
        self.connection = connection
        #: The ids of the savepoints that were open. If one of them is rolled back, Django drops the marker.
        self.savepoints = savepoints
        #: The marker of the whole transaction. Django calls it after those of its savepoints.
        self.transaction = whole or self
        #: In a `TestCase`, the block that stands for the transaction.
        self.test_block = _outermost_block_in_test(connection)
        self._to_tell: list[Callable[[], None]] = []
        self._before_commit: dict[Callable[..., object], Any] = {}
        #: In the marker of a whole transaction: those of its savepoints.
        self.savepoint_markers: list[Marker] = []
        if whole is not None:
            whole.savepoint_markers.append(self)

    def __call__(self) -> None:
        """Called by Django: the transaction has committed."""
        with _lock:
            self.state = "gone" if self._is_rolled_back_with_test() else "kept"
            to_tell, self._to_tell = self._to_tell, []
        for marker in self.savepoint_markers:
            if marker.state == "open":  # Django would have called it before this one
                marker.state = "gone"
        _call_all(to_tell)

    def before_commit(self, make: Callable[[DjangoTransaction], _CallbackT]) -> _CallbackT:
        """The callback that `make` makes of this transaction, once. It is called right before the COMMIT."""
        if make not in self._before_commit:
            self._before_commit[make] = make(self)
            watch_commits(self.connection)
        callback: _CallbackT = self._before_commit[make]
        return callback

    def commit_comes(self) -> None:
        """Called inside of the transaction, right before its COMMIT."""
        for callback in self._before_commit.values():
            callback()

    def when_over(self, tell: Callable[[], None]) -> None:
        """Call `tell()` when the transaction is over."""
        with _lock:
            if self.state == "open":
                self._to_tell.append(tell)
                _awaited.markers.append(self)
                return
        tell()

    def look(self, waiting: Collection[Marker]) -> None:
        """Find out what became of it, given the markers that still wait on its connection."""
        if self in waiting:
            if self.test_block is not None and self.test_block not in self.connection.atomic_blocks:
                self._end_in_test()
        elif not self.connection.run_commit_hooks_on_set_autocommit_on:
            with _lock:  # the thread of the connection may have called it in the meantime
                if self.state == "open":
                    self.state = "gone"

    def tell_if_gone(self) -> bool:
        """Tell those who wait if the transaction was rolled back. Returns whether nobody needs to look again."""
        if self.state == "open":
            self.look(_waiting_on(self.connection))
        if self.state == "gone":
            with _lock:
                to_tell, self._to_tell = self._to_tell, []
            _call_all(to_tell)
        return self.state != "open"

    def _end_in_test(self) -> None:
        # The transaction of a `TestCase` never commits. So its outermost block inside the test stands for one.
        self.state = "gone" if self._is_rolled_back_with_test() else "kept"
        if self.state == "gone" or not self._to_tell:
            # `captureOnCommitCallbacks` calls it for those who wait. Nobody else shall find it there.
            self.connection.run_on_commit = [entry for entry in self.connection.run_on_commit if entry[1] is not self]

    def _is_rolled_back_with_test(self) -> bool:
        # A block with a savepoint takes its markers along. One without marks the whole test for a rollback.
        return self.test_block is not None and self.connection.needs_rollback and not self.test_block.savepoint

    @property
    def description(self) -> str:
        """For people."""
        transaction = f"the transaction on {self.connection.alias!r}"
        innermost = next((savepoint for savepoint in reversed(self.savepoints) if savepoint is not None), None)
        return transaction if innermost is None else f"the savepoint {innermost} of {transaction}"

    def __repr__(self) -> str:
        return f"<Marker on {self.connection.alias!r}: {self.state}>"


class _Awaited(threading.local):
    """The transactions that scopes of the running thread wait for."""

    def __init__(self) -> None:
        self.markers: list[Marker] = []


_awaited = _Awaited()


class Transactions:
    """The source of fates that airlock-django registers."""

    def open_fates(self) -> tuple[Fate, ...]:
        """The markers of what is open on the connections that the running code uses."""
        if _awaited.markers:
            _tell_of_rollbacks()
        fates: tuple[Fate, ...] = ()
        for connection in connections_here():
            if not connection.autocommit:  # it is off in a transaction, and before the first query
                fates += _open_marker(connection)
        return fates

    def refresh(self, fates: Collection[Fate]) -> None:
        """Find out what became of markers. Each connection is looked at once, however many there are."""
        if _awaited.markers:
            _tell_of_rollbacks()
        waiting: dict[BaseDatabaseWrapper, set[Marker]] = {}
        for fate in fates:
            if isinstance(fate, Marker) and fate.state == "open":
                if fate.connection not in waiting:
                    waiting[fate.connection] = _waiting_on(fate.connection)
                fate.look(waiting[fate.connection])


register_fates(Transactions())


class DjangoTransaction(Transaction, Protocol):
    """What the fates of airlock-django have as their `transaction`."""

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """The database connection that it is open on."""
        ...

    def before_commit(self, make: Callable[[DjangoTransaction], _CallbackT], /) -> _CallbackT:
        """Have something done inside of the transaction, right before its COMMIT, in the thread that commits.

        Not in a `TestCase`, where nothing is committed.

            transaction.before_commit(Writer).records.append(record)

        Args:
            make: makes the callback, when it is given for the first time. If what it makes raises, the transaction is
                rolled back, and the error comes out of `atomic()`.

        Returns:
            What `make` has returned, now or before.
        """
        ...


def watch_commits(connection: BaseDatabaseWrapper) -> None:
    """Have the markers of a connection know of each COMMIT before it comes."""
    # Django has no hook there. `commit` is a public method; this overrides it in one object, for good.
    if not isinstance(vars(connection).get("commit"), _Commit):
        connection.commit = _Commit(connection)  # type: ignore[method-assign]


class _Commit:
    """The attribute `commit` of a connection."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._commit = connection.commit

    def __call__(self) -> None:
        newest = _newest_marker(self._connection)
        if newest is not None and not self._connection.in_atomic_block:  # inside of a block, Django refuses
            try:
                newest.transaction.commit_comes()
            except DatabaseError:
                raise  # for which Django rolls back
            except BaseException:  # for which it does not: on some databases it would even commit
                try:
                    self._connection.rollback()
                except Error:
                    self._connection.close()
                raise
        self._commit()


def callbacks_wait_in_test_case() -> bool:
    """Whether this may be `captureOnCommitCallbacks`, running what waits for a commit that never comes."""
    return any(
        _is_in_test_case(connection) and any(not isinstance(entry[1], Marker) for entry in connection.run_on_commit)
        for connection in connections_of_this_thread()
    )


def _open_marker(connection: BaseDatabaseWrapper) -> tuple[Marker, ...]:
    """The marker of what is open on a connection, if anything is."""
    if not (connection.in_atomic_block and connection.commit_on_exit):
        if connection.connection is None:
            return ()
        raise UsageError(
            f"The connection {connection.alias!r} is in manual transaction management (autocommit is off), where "
            "Django tells nobody of a commit. Turn autocommit on and use atomic(), or put what must go out in any case "
            "into `with airlock.detached():`."
        )
    if _is_in_test_case(connection):
        return ()
    savepoints = tuple(connection.savepoint_ids)
    newest = _newest_marker(connection)
    # A marker also does for what is enqueued after its innermost savepoints have ended well.
    if newest is not None and newest.savepoints[: len(savepoints)] == savepoints:
        return (newest,)
    callbacks: list[Any] = connection.run_on_commit
    if _outermost_block_in_test(connection):
        marker = Marker(connection, savepoints, None)
        callbacks.append((set(savepoints), marker, False))  # `captureOnCommitCallbacks` looks for what is new behind
        return (marker,)
    # Before the callbacks of others: if one of them raises, Django drops all that come later.
    if newest is None:
        whole = Marker(connection, (), None)
        callbacks.insert(0, (set(), whole, False))
    else:
        whole = newest.transaction
    if not savepoints:
        return (whole,)
    marker = Marker(connection, savepoints, whole)
    callbacks.insert(0, (set(savepoints), marker, False))
    return (marker,)


def _newest_marker(connection: BaseDatabaseWrapper) -> Marker | None:
    """The marker that was made last in the transaction that is open now, if it still waits."""
    callbacks: list[Any] = connection.run_on_commit
    test_block = _outermost_block_in_test(connection)
    newest = callbacks[-1 if test_block else 0][1] if callbacks else None
    return newest if isinstance(newest, Marker) and newest.test_block is test_block else None


def _is_in_test_case(connection: BaseDatabaseWrapper) -> bool:
    """Whether the innermost open block is one that a `TestCase` wraps its tests in."""
    blocks: list[Any] = connection.atomic_blocks
    return bool(blocks) and _is_of_test_case(blocks[-1])


def _outermost_block_in_test(connection: BaseDatabaseWrapper) -> Any:
    """In a `TestCase`, the outermost open block that is the code's own. Elsewhere `None`."""
    blocks: list[Any] = connection.atomic_blocks
    if not (blocks and _is_of_test_case(blocks[0])):
        return None
    return next((block for block in blocks if not _is_of_test_case(block)), None)


def _is_of_test_case(block: Any) -> bool:
    return bool(block._from_testcase)  # noqa: SLF001 - see above


def _waiting_on(connection: BaseDatabaseWrapper) -> set[Marker]:
    return {entry[1] for entry in list(connection.run_on_commit) if isinstance(entry[1], Marker)}


def _tell_of_rollbacks() -> None:
    # Django calls nobody after a rollback. So whoever waits for a transaction hears of it the next time Airlock looks.
    awaited, _awaited.markers = _awaited.markers, []
    _awaited.markers += [marker for marker in awaited if not marker.tell_if_gone()]


def _call_all(callbacks: Iterable[Callable[[], None]]) -> None:
    """Call all of them, then raise what the first to fail has raised. What interrupts comes before mere failures."""
    errors: list[BaseException] = []
    for callback in callbacks:
        try:
            callback()
        except BaseException as error:
            errors.append(error)
    if errors:
        raise min(errors, key=lambda error: isinstance(error, Exception))
