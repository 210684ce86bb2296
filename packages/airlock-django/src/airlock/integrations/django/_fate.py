"""What becomes of the transactions an intent was enqueued in.

Django tells of a commit, by calling what waits for it, and of nothing else: when a transaction or savepoint is rolled
back, the callbacks that were registered in it are dropped without a word. So a fate has a witness among the callbacks,
which nobody else refers to. It is called: committed. It is freed before that: rolled back. (CPython frees at once what
nobody refers to.)

This is the only module that reads internals of Django. They were read in 4.2, 5.2, 6.0 and 6.1, and test_fate.py fails
where they change. Of a connection:

- `run_on_commit`, the list of waiting callbacks, as tuples of savepoint ids, callable, and robustness.
- `savepoint_ids`, one for each open `atomic()` block but the outermost: `None` for one without a savepoint.
- `savepoint_state`, the number of savepoints made so far, with which their ids end: `..._x3`.
- `clean_savepoints`, called by that of `django.db.transaction`, which makes that number zero.
- `autocommit`, false while a transaction is open, and before the connection is used.
- `atomic_blocks`, the open `atomic()` blocks, those of a `TestCase` marked `_from_testcase`.
- `savepoint_commit`, called with the id of a savepoint when its block ends, also after it was rolled back.
- `savepoint_rollback` and `commit`, called by those of `django.db.transaction`.
- `commit_on_exit`, false for `atomic()` blocks in manual transaction management, and `needs_rollback`.
"""

from __future__ import annotations

import functools
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any, Literal

from django.db import connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper


class Fate:
    """What becomes of the transaction that is open on a connection, and of the savepoints that are open in it."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self._state: Literal["open", "committed", "rolled back"] = "open"
        self._by_hand = not (connection.in_atomic_block and connection.commit_on_exit)
        self._test_block = _outermost_block_in_test_case(connection)
        self._test_savepoint = _savepoint_of(self._test_block, connection)
        self._ledger = vars(connection).get("_airlock_ledger") or _Ledger(connection)
        #: `None` if Django has begun to count anew since.
        self._savepoint_state: int | None = connection.savepoint_state
        self._savepoints_before = self._ledger.savepoints_so_far
        self._ledger.open(self)
        waiting: list[Any] = connection.run_on_commit
        if self._test_block is None:
            # Before the callbacks of others: if one of those raises, Django drops all that come later.
            place = next((n for n, entry in enumerate(waiting) if not isinstance(entry[1], _Witness)), len(waiting))
        else:
            # But there, `captureOnCommitCallbacks` counts from the end.
            place = len(waiting)
        # Not through `on_commit`: it does not insert, and refuses manual transaction management.
        waiting.insert(place, (set(connection.savepoint_ids), _Witness(self), False))

    @property
    def is_committed(self) -> bool:
        # In a test case, nothing tells of the end of a block without a savepoint.
        if (
            self._state == "open"
            and self._test_block is not None
            and all(block is not self._test_block for block in self.connection.atomic_blocks)
        ):
            self._state = "rolled back" if self.connection.needs_rollback else "committed"
        return self._state == "committed"

    @property
    def is_rolled_back(self) -> bool:
        return self._state == "rolled back"

    def is_current(self) -> bool:
        """Whether nothing was opened or ended since, so that what is enqueued now shares this fate."""
        return (
            self._state == "open"
            # Leaving a block without rolling it back makes no difference.
            and self._savepoint_state == self.connection.savepoint_state
            and (self._test_block is None or not self.is_committed)
        )

    def follow(self, committed: Callable[[], None], rolled_back: Callable[[], None]) -> None:
        """Call one of the two when it is known what became of it."""
        self._ledger.follow(self, committed, rolled_back)

    def __repr__(self) -> str:
        return f"<Fate on {self.connection.alias!r}: {self._state}>"


class _Witness:
    """Waits among the callbacks of a connection, and nowhere else."""

    __slots__ = ("_fate",)

    def __init__(self, fate: Fate) -> None:
        self._fate = fate

    def __call__(self) -> None:
        fate = self._fate
        # What a test runs by hand is this callback alone; what Django runs comes to all that are still waiting.
        fate._ledger.settle("committed", lambda other: other is fate or fate._test_block is None)

    def __del__(self) -> None:
        fate = self._fate
        fate._ledger.settle("rolled back", lambda other: other is fate)


class _Ledger:
    """The open fates on a connection, and who follows them, in that order.

    While there are any, it hears of what Django calls no callback for.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._lock = RLock()  # scopes of other threads may follow; a witness may be freed at any moment
        self._open: list[Fate] = []
        self._followers: list[tuple[Fate, Callable[[], None], Callable[[], None]]] = []
        #: How many savepoints had been made each time when Django began to count them anew.
        self._counts: list[int] = []
        vars(connection)["_airlock_ledger"] = self
        self._patches = [
            self._listen("clean_savepoints", before=self._hear_clean_savepoints),
            self._listen("commit", self._hear_commit),
            self._listen("savepoint_commit", self._hear_savepoint_commit),
            self._listen("savepoint_rollback", self._hear_savepoint_rollback),
        ]

    @property
    def savepoints_so_far(self) -> int:
        return sum(self._counts) + self._connection.savepoint_state

    def open(self, fate: Fate) -> None:
        with self._lock:
            self._open.append(fate)

    def follow(self, fate: Fate, committed: Callable[[], None], rolled_back: Callable[[], None]) -> None:
        with self._lock:
            self._followers.append((fate, committed, rolled_back))
        if fate._state != "open":  # it came to that meanwhile, in a thread of its own
            self._tell()

    def settle(self, state: Literal["committed", "rolled back"], concerned: Callable[[Fate], bool]) -> None:
        """Note what became of those fates that are still open, and tell who follows them."""
        with self._lock:
            for fate in self._open:
                if fate._state == "open" and concerned(fate):
                    fate._state = state
        self._tell()

    def _tell(self) -> None:
        told: list[tuple[Fate, Callable[[], None], Callable[[], None]]] = []
        with self._lock:
            # Taken out first: a witness may be freed, and this be called again, in the middle of it.
            followers, self._followers = self._followers, []
            for follower in followers:
                (self._followers if follower[0]._state == "open" else told).append(follower)
            self._open = [fate for fate in self._open if fate._state == "open"]
            if not self._open:
                self._leave()
        for fate, committed, rolled_back in told:
            (committed if fate._state == "committed" else rolled_back)()

    def _listen(
        self, name: str, listener: Callable[..., None] = lambda *_: None, *, before: Callable[[], None] = lambda: None
    ) -> tuple[str, Any, Any]:
        attributes = vars(self._connection)
        method = getattr(self._connection, name)

        @functools.wraps(method)
        def method_and_listener(*args: Any, **kwargs: Any) -> None:
            before()
            method(*args, **kwargs)
            listener(*args, **kwargs)

        patch = (name, attributes.get(name), method_and_listener)
        attributes[name] = method_and_listener
        return patch

    def _leave(self) -> None:
        attributes = vars(self._connection)
        if attributes.get("_airlock_ledger") is not self:
            return
        del attributes["_airlock_ledger"]
        for name, before, listener in self._patches:
            if attributes.get(name) is not listener:
                continue
            if before is None:
                del attributes[name]
            else:
                attributes[name] = before

    def _hear_commit(self) -> None:
        # In manual transaction management callbacks wait for autocommit to be turned on again. `atomic()` commits too,
        # but turns it on at once.
        self.settle("committed", lambda fate: fate._by_hand)

    def _hear_savepoint_commit(self, sid: str | None) -> None:
        if sid is not None:  # as `savepoint()` says where there are none
            self.settle("committed", lambda fate: fate._test_savepoint == sid)

    def _hear_savepoint_rollback(self, sid: str | None) -> None:
        # Callbacks know nothing of savepoints that were made by hand. Undone is what was done since this one was made.
        if sid is not None:
            number = self._number_of(sid)
            self.settle("rolled back", lambda fate: fate._savepoints_before >= number)

    def _hear_clean_savepoints(self) -> None:
        with self._lock:
            self._counts.append(self._connection.savepoint_state)
            for fate in self._open:
                fate._savepoint_state = None

    def _number_of(self, sid: str) -> int:
        # Of two savepoints with the same name, databases take the later one.
        number = int(sid.rpartition("_x")[2])
        counts = [*self._counts, self._connection.savepoint_state]
        while counts:
            if number <= counts.pop():
                return sum(counts) + number
        return 0  # older than what anybody waits for


class _Several:
    """Looks like a single connection, in a transaction if one of these is."""

    connection = True
    in_atomic_block = True

    def __init__(self, connections: Sequence[BaseDatabaseWrapper]) -> None:
        self._connections = connections

    @property
    def autocommit(self) -> bool:
        return not any(
            connection.in_atomic_block or (not connection.autocommit and connection.connection is not None)
            for connection in self._connections
        )


class Transactions:
    """The transactions of the thread that makes it, as they come and go."""

    __slots__ = ("_connections", "_fates", "_latest", "first", "second")

    def __init__(self) -> None:
        self._connections = connections_of_this_thread()
        # Most projects have one database or two, which a scope can look at without a loop.
        self.first, *others = self._connections
        self.second: BaseDatabaseWrapper | _Several | None = None
        if others:
            self.second = others[0] if len(others) == 1 else _Several(others)
        #: What `fates` found last.
        self._latest: list[tuple[BaseDatabaseWrapper, Fate | None]] = []
        self._fates: tuple[Fate, ...] = ()

    def fates(self) -> tuple[Fate, ...]:
        """The fates of those that are open now."""
        for connection, fate in self._latest:
            if is_in_transaction(connection) if fate is None else not fate.is_current():
                break
        else:  # most often, nothing has changed since
            if self._latest:
                return self._fates
        found: list[tuple[BaseDatabaseWrapper, Fate | None]] = []
        latest = dict(self._latest)
        for connection in self._connections:
            fate = latest.get(connection)
            if not is_in_transaction(connection):
                fate = None
            elif fate is None or not fate.is_current():
                fate = Fate(connection)
            found.append((connection, fate))
        self._latest = found
        self._fates = tuple(fate for _, fate in found if fate is not None)
        return self._fates


def connections_of_this_thread() -> tuple[BaseDatabaseWrapper, ...]:
    """The connections to all databases, whether used yet or not."""
    return tuple(connections.all())


def is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether a transaction is open, other than the one a `TestCase` wraps a test in."""
    if connection.in_atomic_block:
        # Those of a test case are the outermost ones. There is no block in manual transaction management.
        blocks: list[Any] = connection.atomic_blocks
        return not (blocks and blocks[-1]._from_testcase)
    return connection.connection is not None and not connection.autocommit


def when_committed(
    fates: Iterable[Fate], action: Callable[[], None], or_else: Callable[[], None] = lambda: None
) -> None:
    """Call `action` once all the fates are committed: at once if they are.

    Args:
        fates: what to wait for.
        action: called in the thread that commits last.
        or_else: called instead when the first of them is rolled back.
    """
    pending = [fate for fate in fates if not fate.is_committed]
    if not pending:
        action()
        return
    lock = Lock()  # the transactions may be those of several threads
    remaining = len(pending)

    def committed() -> None:
        nonlocal remaining
        with lock:
            remaining -= 1
            last = remaining == 0
        if last:
            action()

    def rolled_back() -> None:
        nonlocal remaining
        with lock:
            first = remaining > 0
            remaining = -1  # which no number of commits makes zero
        if first:
            or_else()

    for fate in pending:
        fate.follow(committed, rolled_back)


def _outermost_block_in_test_case(connection: BaseDatabaseWrapper) -> Any:
    """Inside a `TestCase`, the outermost block that is not the test case's: its end is taken for a commit."""
    blocks: list[Any] = connection.atomic_blocks
    if not (blocks and blocks[0]._from_testcase):
        return None
    return next((block for block in blocks if not block._from_testcase), None)


def _savepoint_of(block: Any, connection: BaseDatabaseWrapper) -> str | None:
    if block is None:
        return None
    savepoint_ids: list[Any] = connection.savepoint_ids
    depth = next(n for n, open_block in enumerate(connection.atomic_blocks) if open_block is block)
    savepoint_id: str | None = savepoint_ids[depth - 1]
    return savepoint_id
