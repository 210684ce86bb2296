"""What becomes of intents, in so few words that it can be read as the specification.

The random programs of test_fate_model.py are compared with this. It imports nothing of Airlock's and works in another
way: what becomes of a transaction is written on the transaction, and intents look there.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATABASES = ("default", "other")


class SomeError(Exception):
    """Ends a block, or a callback."""


@dataclass(eq=False)
class Transaction:
    """A transaction, or a savepoint in the one around it."""

    around: Transaction | None
    must_roll_back: bool = False
    end: str = "open"

    def __post_init__(self) -> None:
        #: What waits for the commit: flushes, and then `on_commit` callbacks, each with where it was registered.
        self.flushes: list[Callable[[], None]] = self.around.flushes if self.around else []
        self.callbacks: list[tuple[Transaction, Callable[[], None]]] = self.around.callbacks if self.around else []

    @property
    def state(self) -> str:
        states = {self.end, self.around.state if self.around else self.end}
        return next(state for state in ("gone", "open", "kept") if state in states)


@dataclass(eq=False)
class Intent:
    number: int
    is_denied: bool
    fate: set[Transaction]

    @property
    def state(self) -> str:
        states = {"kept", *(transaction.state for transaction in self.fate)}
        return next(state for state in ("gone", "open", "kept") if state in states)


@dataclass(eq=False)
class Scope:
    parent: Scope | None
    is_transactional: bool
    lets_through: int | None
    intents: list[Intent] = field(default_factory=list)
    #: What it has to answer for since it flushed.
    due: list[Intent] = field(default_factory=list)
    dispatched: list[int] = field(default_factory=list)

    def account(self) -> dict[str, list[int]]:
        gone = [intent.number for intent in self.due if intent.state == "gone"]
        owed = [intent.number for intent in self.intents or self.due]
        undispatched = [number for number in owed if number not in gone and number not in self.dispatched]
        return {"dispatched": list(self.dispatched), "undispatched": undispatched, "rolled back": gone}


class Model:
    """Takes the steps of a program.

    Args:
        in_test_case: whether it runs inside a `TestCase`, where nobody calls what waits for a commit.
    """

    def __init__(self, *, in_test_case: bool) -> None:
        self.in_test_case = in_test_case
        self.count = 0
        self.open: dict[str, list[Transaction]] = {database: [] for database in DATABASES}
        self.scopes: list[Scope] = []
        #: The scopes that the running code is in, and what the policies there deny; innermost last.
        self.inside: list[Scope] = []
        self.denied: list[int | None] = []
        self.left: list[Scope] = []
        self.dispatched: list[int] = []
        self.refused: list[int] = []
        self.saved: dict[str, list[tuple[int, Transaction | None]]] = {database: [] for database in DATABASES}

    # Intents

    def enqueue(self) -> None:
        self.count += 1
        for database, transactions in self.open.items():
            if not (transactions and transactions[-1].must_roll_back):  # there, no query may be made
                self.saved[database].append((self.count, transactions[-1] if transactions else None))
        if not self.inside:
            self.refused.append(self.count)
            return
        scope = self.inside[-1]
        is_denied = any(number and self.count % number == 0 for number in self.denied)
        scope.intents.append(Intent(self.count, is_denied, self.open_here(scope)))

    def enqueue_without_autocommit(self, database: str) -> None:
        if not self.open[database] and self.inside and self.inside[-1].is_transactional:
            self.count += 1
            self.refused.append(self.count)

    def open_here(self, scope: Scope) -> set[Transaction]:
        return {open_[-1] for open_ in self.open.values() if open_} if scope.is_transactional else set()

    # Scopes and policies

    @contextmanager
    def policy(self, denies: int) -> Iterator[None]:
        self.denied.append(denies)
        try:
            yield
        finally:
            self.denied.pop()

    def detached(self) -> Any:
        return self.scope(is_detached=True)

    @contextmanager
    def scope(
        self,
        *,
        is_detached: bool = False,
        denies: int | None = None,
        lets_through: int | None = None,
        later: bool = False,
        **_: Any,
    ) -> Iterator[None]:
        around = None if is_detached or not self.inside else self.inside[-1]
        scope = Scope(around, around.is_transactional if around else not is_detached, lets_through)
        later = later and not self.inside
        self.scopes.append(scope)
        self.inside.append(scope)
        try:
            with self.policy(denies or 0):
                yield
        except SomeError:
            if not later:
                scope.intents = []
            raise
        finally:
            self.inside.pop()
            self.left.append(scope) if later else self.flush(scope)

    def flush_left(self) -> None:
        if self.left:
            self.flush(self.left.pop(0))

    def flush(self, scope: Scope) -> None:
        passing, scope.intents, around = scope.intents, [], scope.parent
        while around:
            captured = [intent for intent in passing if not (n := around.lets_through) or intent.number % n]
            around.intents = sorted(around.intents + captured, key=lambda intent: intent.number)
            passing = [intent for intent in passing if intent not in captured]
            around = around.parent
        # Policies are not asked about what was rolled back by now, and nobody owes what they deny.
        scope.due = [intent for intent in passing if intent.state == "gone" or not intent.is_denied]
        for intent in scope.due:
            intent.fate |= self.open_here(scope)

        def dispatch() -> None:
            for intent in scope.due:
                if intent.state == "kept" and intent.number not in scope.dispatched:
                    scope.dispatched.append(intent.number)
                    self.dispatched.append(intent.number)

        for transaction in self.open_here(scope):
            transaction.flushes.append(dispatch)
        dispatch()

    # Transactions

    @contextmanager
    def atomic(self, database: str, savepoint: bool) -> Iterator[None]:
        around = self.open[database][-1] if self.open[database] else None
        # Django makes no savepoint in what will be rolled back.
        is_part_of_it = around and (around.must_roll_back or not savepoint)
        transaction = around if around and is_part_of_it else Transaction(around)
        self.open[database].append(transaction)
        try:
            yield
        except SomeError:
            transaction.must_roll_back = True
            raise
        finally:
            self.open[database].pop()
            if transaction is not around:
                transaction.end = "gone" if transaction.must_roll_back else "kept"
                if transaction.state == "kept" and not self.in_test_case:
                    for dispatch in transaction.flushes:
                        dispatch()
                    for where, callback in transaction.callbacks:  # those behind one that raises are lost
                        if where.state == "kept":
                            callback()

    def set_rollback(self, database: str) -> None:
        if self.open[database]:
            self.open[database][-1].must_roll_back = True

    def on_commit(self, database: str, callback: Callable[[], None]) -> None:
        if self.open[database]:
            self.open[database][-1].callbacks.append((self.open[database][-1], callback))
        elif not self.in_test_case:
            callback()

    # What should be found

    def committed(self, database: str) -> list[int]:
        return [number for number, where in self.saved[database] if where is None or where.state == "kept"]
