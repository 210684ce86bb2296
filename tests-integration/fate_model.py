"""What becomes of intents, in so few words that it can be read as the specification.

This is the model that the random programs of test_fate_model.py are compared with. It imports nothing of Airlock's, and
has nothing in common with the way Airlock does it: here, what becomes of a transaction is written on the transaction,
and intents look there.

The transactions and savepoints of each database form a tree. Scopes, local policies and `detached()` blocks are inside
of one another, too, but have nothing to do with that: they may be entered in one transaction and left in another.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATABASES = ("default", "other")

#: A method of the model, and its arguments.
Step = tuple[str, dict[str, Any]]

#: What became of all intents, at some moment.
Account = dict[str, Any]


class SomeError(Exception):
    """Ends a block, or a callback."""


class Part:
    """What is committed or rolled back as one: a transaction, or a savepoint in the part `around` it."""

    def __init__(self, around: Part | None = None) -> None:
        self.around = around
        self.end: Literal["committed", "rolled back"] | None = None
        #: What waits for the commit of the transaction, each in order.
        self.flushes: list[Callable[[], None]] = around.flushes if around else []
        self.callbacks: list[tuple[Atomic, Callable[[], None]]] = around.callbacks if around else []

    @property
    def is_rolled_back(self) -> bool:
        return self.end == "rolled back" or (self.around is not None and self.around.is_rolled_back)

    @property
    def is_committed(self) -> bool:
        return self.end == "committed" and (self.around is None or self.around.is_committed)


class Atomic:
    """An `atomic()` block. Without a savepoint, it belongs to the part around it."""

    def __init__(self, around: Atomic | None, savepoint: bool) -> None:
        self.around = around
        self.must_roll_back = False
        # Django makes no savepoint in what will be rolled back.
        self.has_own_part = around is None or (savepoint and not around.with_own_part.must_roll_back)
        self.part = Part(around.innermost_part if around else None) if self.has_own_part else around.innermost_part
        #: Savepoints made by hand, `transaction.savepoint()`.
        self.savepoints: list[Part] = []

    @property
    def with_own_part(self) -> Atomic:
        """The block whose end rolls back what fails in this one."""
        return self if self.has_own_part else self.around.with_own_part

    @property
    def innermost_part(self) -> Part:
        return self.savepoints[-1] if self.savepoints else self.part

    @property
    def is_rolled_back(self) -> bool:
        """Whether Django drops its callbacks. It does not if savepoints made by hand are rolled back."""
        block = self.with_own_part
        return block.part.end == "rolled back" or (block.around is not None and block.around.is_rolled_back)


class Intent:
    def __init__(self, number: int, is_denied: bool, fate: set[Part]) -> None:
        #: Tells intents apart, and in which order they were enqueued.
        self.number = number
        #: Whether any policy in force where it was enqueued denies it.
        self.is_denied = is_denied
        #: The parts that were open where it was enqueued, and those that were where its scope flushed.
        self.fate = fate

    @property
    def is_rolled_back(self) -> bool:
        return any(part.is_rolled_back for part in self.fate)

    @property
    def is_committed(self) -> bool:
        return all(part.is_committed for part in self.fate)


class Policy:
    """A local policy. It denies the multiples of a number."""

    def __init__(self, denies: int | None) -> None:
        self.denies = denies


class Scope(Policy):
    """A scope, with a policy or without; or, if it is detached, a `detached()` block."""

    def __init__(self, around: Scope | None, denies: int | None, lets_through: int | None, is_detached: bool) -> None:
        super().__init__(denies)
        #: The scope that captures what this one would flush. There is none for a detached one.
        self.parent = None if is_detached else around
        #: When a scope inside flushes, the multiples of this number are not captured.
        self.lets_through = lets_through
        #: Whether what is enqueued here depends on transactions.
        self.is_tied: bool = self.parent.is_tied if self.parent else not is_detached
        self.intents: list[Intent] = []
        #: What it has to answer for since it flushed.
        self.due: list[Intent] = []
        self.dispatched: list[Intent] = []

    @property
    def rolled_back(self) -> list[Intent]:
        return [intent for intent in self.due if intent.is_rolled_back]

    @property
    def undispatched(self) -> list[Intent]:
        owed = self.intents or self.due
        return [intent for intent in owed if intent not in self.dispatched and intent not in self.rolled_back]

    def enclosing(self) -> Iterator[Scope]:
        scope = self.parent
        while scope:
            yield scope
            scope = scope.parent


class Model:
    """Takes the steps of a program.

    Args:
        is_test_case: whether the program runs inside a `TestCase`. There, Django does not run `on_commit` callbacks.
            Nothing else makes a difference.
    """

    def __init__(self, *, is_test_case: bool) -> None:
        self.is_test_case = is_test_case
        #: The open blocks, innermost last.
        self.atomics: dict[str, list[Atomic]] = {database: [] for database in DATABASES}
        #: What the running code is inside of, innermost last.
        self.here: list[Policy] = []
        #: Scopes that were left, and neither flushed nor discarded yet.
        self.left: list[Scope] = []
        self.scopes: list[Scope] = []
        self.count = 0
        #: What the program saves in each database: a number, and the part it does that in.
        self.saved: dict[str, list[tuple[int, Part | None]]] = {database: [] for database in DATABASES}
        self.dispatched: list[int] = []
        #: What was enqueued outside of any scope.
        self.refused: list[int] = []

    # Intents

    def enqueue(self) -> None:
        self.count += 1
        for database, atomics in self.atomics.items():
            if not (atomics and atomics[-1].with_own_part.must_roll_back):  # there, no query may be made
                self.saved[database].append((self.count, atomics[-1].innermost_part if atomics else None))
        scope = self.scope_here()
        if scope is None:
            self.refused.append(self.count)
            return
        is_denied = any(policy.denies and self.count % policy.denies == 0 for policy in self.here)
        scope.intents.append(Intent(self.count, is_denied, self.open_parts() if scope.is_tied else set()))

    def scope_here(self) -> Scope | None:
        return next((block for block in reversed(self.here) if isinstance(block, Scope)), None)

    def open_parts(self) -> set[Part]:
        return {atomics[-1].innermost_part for atomics in self.atomics.values() if atomics}

    # Scopes and policies

    def enter_policy(self, denies: int) -> None:
        self.here.append(Policy(denies))

    def enter_scope(self, denies: int | None = None, lets_through: int | None = None) -> None:
        self._enter(Scope(self.scope_here(), denies, lets_through, is_detached=False))

    def enter_detached(self) -> None:
        self._enter(Scope(self.scope_here(), None, None, is_detached=True))

    def _enter(self, scope: Scope) -> None:
        self.here.append(scope)
        self.scopes.append(scope)

    def leave(self, error: bool = False) -> None:
        if self.here and isinstance(scope := self.here.pop(), Scope):
            self._end(scope, error)

    def leave_and_end_later(self) -> None:
        scopes = [block for block in self.here if isinstance(block, Scope)]
        if scopes and scopes == self.here[-1:]:  # not a nested one, which may not end after the one around it
            self.left.append(scopes[0])
            self.here.pop()

    def end_left(self, error: bool = False) -> None:
        if self.left:
            self._end(self.left.pop(0), error)

    def _end(self, scope: Scope, error: bool) -> None:
        intents, scope.intents = scope.intents, []
        if not error:
            self._flush(scope, intents)

    def _flush(self, scope: Scope, passing: list[Intent]) -> None:
        for around in scope.enclosing():
            let_through = [it for it in passing if around.lets_through and it.number % around.lets_through == 0]
            around.intents += [intent for intent in passing if intent not in let_through]
            around.intents.sort(key=lambda intent: intent.number)
            passing = let_through
        # Policies are not asked about what was rolled back by now, and nobody owes what they deny.
        scope.due = [intent for intent in passing if intent.is_rolled_back or not intent.is_denied]
        open_parts = self.open_parts() if scope.is_tied else set()

        def dispatch() -> None:
            for intent in scope.due:
                if intent.is_committed and intent not in scope.dispatched:
                    scope.dispatched.append(intent)
                    self.dispatched.append(intent.number)

        for intent in scope.due:
            intent.fate |= open_parts
        for part in open_parts:
            part.flushes.append(dispatch)
        dispatch()

    # Transactions

    def begin(self, database: str, savepoint: bool = True, durable: bool = False) -> None:
        atomics = self.atomics[database]
        atomics.append(Atomic(atomics[-1] if atomics else None, savepoint))

    def set_rollback(self, database: str) -> None:
        if atomics := self.atomics[database]:
            atomics[-1].with_own_part.must_roll_back = True

    def end(self, database: str, error: bool = False) -> None:
        atomics = self.atomics[database]
        block = atomics.pop()
        for savepoint in block.savepoints:
            savepoint.end = "committed"
        if not block.has_own_part:
            atomics[-1].with_own_part.must_roll_back |= error
            return
        block.part.end = "rolled back" if error or block.must_roll_back else "committed"
        if block.part.is_committed:
            self._committed(block.part)

    def _committed(self, transaction: Part) -> None:
        for dispatch in transaction.flushes:
            dispatch()
        with suppress(SomeError):  # after one that raises, Django drops all callbacks that come later
            for block, callback in transaction.callbacks:
                if not block.is_rolled_back:
                    callback()

    def on_commit(self, database: str, steps: list[Step], raises: bool = False) -> None:
        def callback() -> None:
            for method, arguments in steps:
                getattr(self, method)(**arguments)
            if raises:
                raise SomeError

        if self.is_test_case:
            return
        if atomics := self.atomics[database]:
            atomics[-1].part.callbacks.append((atomics[-1], callback))
        else:
            with suppress(SomeError):
                callback()

    def savepoint(self, database: str) -> None:
        if (atomics := self.atomics[database]) and not atomics[-1].with_own_part.must_roll_back:
            atomics[-1].savepoints.append(Part(atomics[-1].innermost_part))

    def end_savepoint(self, database: str, end: Literal["committed", "rolled back"]) -> None:
        atomics = self.atomics[database]
        if atomics and atomics[-1].savepoints and not atomics[-1].with_own_part.must_roll_back:
            atomics[-1].savepoints.pop().end = end

    # What should be found

    def account(self) -> Account:
        return {
            "dispatched": list(self.dispatched),
            "refused": list(self.refused),
            "of each scope": [
                {
                    "dispatched": [intent.number for intent in scope.dispatched],
                    "undispatched": [intent.number for intent in scope.undispatched],
                    "rolled back": [intent.number for intent in scope.rolled_back],
                }
                for scope in self.scopes
            ],
        }

    def committed(self, database: str) -> list[int]:
        """The numbers that the database should hold at the end."""
        return [number for number, part in self.saved[database] if part is None or part.is_committed]
