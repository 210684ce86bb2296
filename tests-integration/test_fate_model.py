"""Random programs share the fate of their transactions, in production and in a `TestCase`, on SQLite and on PostgreSQL.

A program begins and ends `atomic()` blocks on two databases, and scopes, local policies and `detached()` blocks across
these; it makes savepoints by hand, rolls back, raises, registers `on_commit` callbacks that do such things themselves,
and enqueues. It runs twice: as it would in production, and inside a Django `TestCase`. What became of its intents is
compared, after every step, with what the model in fate_model.py says.

`AIRLOCK_TEST_PROGRAMS` is the number of programs on each database.
"""

from __future__ import annotations

import os
import unittest
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pytest
from django.conf import settings as django_settings
from django.db import connections, transaction
from django.db.transaction import atomic
from django.test import TestCase
from django.utils.functional import empty
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import airlock
from airlock.integrations.django import DjangoScope
from fate_model import DATABASES, Account, Model, SomeError, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airlock import Intent

PROGRAMS = int(os.environ.get("AIRLOCK_TEST_PROGRAMS", "1000"))

# The real thing


class Denies(airlock.AllowAll):
    def __init__(self, multiples_of: int) -> None:
        self.multiples_of = multiples_of

    def allows(self, intent: Intent) -> bool:
        return intent.args[0] % self.multiples_of != 0


class LetsThrough(DjangoScope):
    def __init__(self, policy: airlock.Policy | None, *, executor: airlock.Executor | None, multiples_of: int) -> None:
        super().__init__(policy, executor=executor)
        self.multiples_of = multiples_of

    def before_descendant_flushes(self, exiting_scope: airlock.Scope, intents: list[Intent]) -> list[Intent]:
        return [intent for intent in intents if intent.args[0] % self.multiples_of == 0]


class World:
    """Takes the steps of a program for real."""

    def __init__(self, *, is_test_case: bool) -> None:
        self.is_test_case = is_test_case
        self.atomics: dict[str, list[Any]] = {database: [] for database in DATABASES}
        #: Those made by hand in each of these blocks.
        self.savepoints: dict[str, list[list[str]]] = {database: [] for database in DATABASES}
        self.here: list[Any] = []
        self.left: list[Any] = []
        self.scopes: list[Any] = []
        self.count = 0
        self.dispatched: list[int] = []
        self.refused: list[int] = []

    def run(self, program: list[Step], expected: list[Account], saved: dict[str, list[int]]) -> None:
        for database in DATABASES:
            with connections[database].cursor() as cursor:
                cursor.execute("CREATE TEMPORARY TABLE IF NOT EXISTS saved (number integer)")
                cursor.execute("DELETE FROM saved")
        try:
            for (method, arguments), account in zip(program, expected, strict=True):
                getattr(self, method)(**arguments)
                assert self.account() == account, f"{self} after {method}({arguments})"
            assert {database: self.committed(database) for database in DATABASES} == saved, self
        finally:
            # There are some left only if it failed.
            for blocks in self.atomics.values():
                while blocks:
                    blocks.pop().__exit__(*error_info(True))

    def account(self) -> Account:
        return {
            "dispatched": list(self.dispatched),
            "refused": list(self.refused),
            "of each scope": [
                {
                    "dispatched": numbers_of(scope.dispatched_intents),
                    "undispatched": numbers_of(scope.undispatched_intents),
                    # A detached one knows none.
                    "rolled back": sorted(numbers_of(getattr(scope, "rolled_back_intents", []))),
                }
                for scope in self.scopes
            ],
        }

    def __repr__(self) -> str:
        return "in a TestCase" if self.is_test_case else "in production"

    # Intents

    def enqueue(self) -> None:
        self.count += 1
        for database in DATABASES:
            if not (self.atomics[database] and transaction.get_rollback(database)):
                with connections[database].cursor() as cursor:
                    cursor.execute("INSERT INTO saved VALUES (%s)", [self.count])
        try:
            airlock.enqueue(self.dispatched.append, self.count)
        except airlock.NoScopeError:
            self.refused.append(self.count)

    # Scopes and policies

    def enter_policy(self, denies: int) -> None:
        self._enter(airlock.policy(Denies(denies)))

    def enter_scope(self, denies: int | None = None, lets_through: int | None = None) -> None:
        policy = Denies(denies) if denies else None
        if lets_through:
            self._enter(airlock.scope(policy, _cls=LetsThrough, multiples_of=lets_through))
        else:
            self._enter(airlock.scope(policy, _cls=DjangoScope))

    def enter_detached(self) -> None:
        self._enter(airlock.detached())

    def _enter(self, block: Any) -> None:
        block.__enter__()
        self.here.append(block)
        if isinstance(block, airlock.Scope):
            self.scopes.append(block)

    def leave(self, error: bool = False) -> None:
        if self.here:
            self.here.pop().__exit__(*error_info(error))

    def leave_and_end_later(self) -> None:
        scopes = [block for block in self.here if isinstance(block, airlock.Scope)]
        if scopes and scopes == self.here[-1:]:
            self.left.append(self.here.pop())
            scopes[0].exit()

    def end_left(self, error: bool = False) -> None:
        if self.left:
            scope = self.left.pop(0)
            if error:
                scope.discard()
            else:
                scope.flush()

    # Transactions

    def begin(self, database: str, savepoint: bool = True, durable: bool = False) -> None:
        # The one known difference: nothing tells of the end of a test case's outermost block if it has no savepoint.
        savepoint |= self.is_test_case and not self.atomics[database]
        block = atomic(database, savepoint=savepoint, durable=durable)
        block.__enter__()
        self.atomics[database].append(block)
        self.savepoints[database].append([])

    def set_rollback(self, database: str) -> None:
        if self.atomics[database]:
            transaction.set_rollback(True, database)

    def end(self, database: str, error: bool = False) -> None:
        self.savepoints[database].pop()
        with suppress(SomeError):  # of a callback
            self.atomics[database].pop().__exit__(*error_info(error))

    def on_commit(self, database: str, steps: list[Step], raises: bool = False) -> None:
        def callback() -> None:
            for method, arguments in steps:
                getattr(self, method)(**arguments)
            if raises:
                raise SomeError

        with suppress(SomeError):
            transaction.on_commit(callback, database)

    def savepoint(self, database: str) -> None:
        if self.atomics[database] and not transaction.get_rollback(database):
            self.savepoints[database][-1].append(transaction.savepoint(database))

    def end_savepoint(self, database: str, end: Literal["committed", "rolled back"]) -> None:
        if self.atomics[database] and self.savepoints[database][-1] and not transaction.get_rollback(database):
            savepoint = self.savepoints[database][-1].pop()
            if end == "committed":
                transaction.savepoint_commit(savepoint, database)
            else:
                transaction.savepoint_rollback(savepoint, database)

    def committed(self, database: str) -> list[int]:
        with connections[database].cursor() as cursor:
            cursor.execute("SELECT number FROM saved ORDER BY number")
            return [number for (number,) in cursor.fetchall()]


def error_info(error: bool) -> tuple[Any, Any, Any]:
    return (SomeError, SomeError(), None) if error else (None, None, None)


def numbers_of(intents: list[Any]) -> list[int]:
    return [intent.args[0] for intent in intents]


def in_test_case(run: Callable[[], None]) -> None:
    raised: list[Exception] = []

    class Wrapped(TestCase):
        databases = DATABASES

        def runTest(self) -> None:  # noqa: N802 - so unittest calls it
            try:
                run()
            except Exception as error:
                raised.append(error)

    unittest.TestSuite([Wrapped()]).debug()
    if raised:
        raise raised[0]


# Random programs

databases = st.runner().flatmap(lambda program: st.sampled_from(program.databases))
databases_in_transaction = st.runner().flatmap(
    lambda program: st.sampled_from([database for database in DATABASES if program.model.atomics[database]])
)
#: Most things end well, or programs would come to nothing.
errors = st.sampled_from([False, False, False, True])
maybe_numbers = st.sampled_from([None, None, None, 2, 3])


def callbacks() -> Iterator[list[Step]]:
    """What `on_commit` callbacks do: whatever is opened in them is ended in them."""
    enqueue: Step = ("enqueue", {})
    yield [enqueue]
    yield [("enter_scope", {}), enqueue, ("leave", {})]
    yield [("leave", {})]
    yield [("end_left", {})]
    for database in DATABASES:
        for error in (False, True):
            begin: Step = ("begin", {"database": database})
            end: Step = ("end", {"database": database, "error": error})
            yield [begin, enqueue, end, enqueue]
            yield [("enter_scope", {}), enqueue, begin, enqueue, end, ("leave", {})]
            yield [begin, ("enter_scope", {}), enqueue, ("leave", {}), end]
            yield [begin, ("leave", {}), enqueue, end]
            yield [begin, ("end_left", {}), end]


def on_commit(**arguments: Any) -> Step:
    return "on_commit", arguments


RARER_STEPS: list[Step] = [
    ("enter_policy", {"denies": 2}),
    ("enter_policy", {"denies": 3}),
    ("enter_detached", {}),
    ("enter_detached", {}),
    ("set_rollback", {"database": "default"}),
    ("set_rollback", {"database": "other"}),
]


class RandomPrograms(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.program: list[Step] = []
        self.model = Model(is_test_case=False)
        self.model_in_test_case = Model(is_test_case=True)
        self.expected: dict[Model, list[Account]] = {self.model: [], self.model_in_test_case: []}
        self.enqueues_everywhere = self.scopes_end_first = False

    def take(self, method: str, **arguments: Any) -> None:
        self.program.append((method, arguments))
        for model, accounts in self.expected.items():
            getattr(model, method)(**arguments)
            accounts.append(model.account())
        if self.enqueues_everywhere and method != "enqueue" and self.model.scope_here():
            self.take("enqueue")

    @initialize(
        databases=st.sampled_from([DATABASES[:1], DATABASES[1:], DATABASES, DATABASES]),
        enqueues_everywhere=st.booleans(),
        scopes_end_first=st.booleans(),
    )
    def begin_program(self, databases: tuple[str, ...], enqueues_everywhere: bool, scopes_end_first: bool) -> None:
        self.databases = databases
        self.enqueues_everywhere = enqueues_everywhere
        self.scopes_end_first = scopes_end_first

    @precondition(lambda self: self.model.scope_here())
    @rule()
    def enqueue(self) -> None:
        self.take("enqueue")

    @precondition(lambda self: len(self.model.here) < 5)
    @rule(denies=maybe_numbers, lets_through=maybe_numbers)
    def enter_scope(self, denies: int | None, lets_through: int | None) -> None:
        self.take("enter_scope", denies=denies, lets_through=lets_through)

    @precondition(lambda self: self.model.here)
    @rule(how=st.sampled_from(["flush", "flush", "flush later", "flush later", "discard"]))
    def leave(self, how: str) -> None:
        if how == "flush later":
            self.take("leave_and_end_later")
        else:
            self.take("leave", error=how == "discard")

    @precondition(lambda self: self.model.left)
    @rule(error=errors)
    def end_left(self, error: bool) -> None:
        self.take("end_left", error=error)

    @rule(database=databases, how=st.sampled_from(["savepoint", "savepoint", "no savepoint", "by hand", "durable"]))
    def begin(self, database: str, how: str) -> None:
        in_transaction = bool(self.model.atomics[database])
        if how == "by hand" and in_transaction:
            self.take("savepoint", database=database)
        elif how == "durable" and not in_transaction:  # Django refuses it inside of another one
            self.take("begin", database=database, durable=True)
        else:
            self.take("begin", database=database, savepoint=how != "no savepoint")

    @precondition(lambda self: any(self.model.atomics.values()))
    @rule(database=databases_in_transaction, error=errors, by_hand=st.sampled_from([True, True, False]))
    def end(self, database: str, error: bool, by_hand: bool) -> None:
        if by_hand and self.model.atomics[database][-1].savepoints:
            self.take("end_savepoint", database=database, end="rolled back" if error else "committed")
        else:
            self.take("end", database=database, error=error)

    @rule(
        step=st.sampled_from(RARER_STEPS)
        | st.builds(on_commit, database=databases, steps=st.sampled_from(list(callbacks())), raises=errors)
    )
    def take_a_rarer_step(self, step: Step) -> None:
        method, arguments = step
        self.take(method, **arguments)

    def teardown(self) -> None:
        for end in (self.end_scopes, self.end_transactions)[:: 1 if self.scopes_end_first else -1]:
            end()
        for model, accounts in self.expected.items():
            saved = {database: model.committed(database) for database in DATABASES}
            run = partial(World(is_test_case=model.is_test_case).run, self.program, accounts, saved)
            Context().run(in_test_case, run) if model.is_test_case else Context().run(run)

    def end_scopes(self) -> None:
        while any(model.here for model in self.expected):
            self.take("leave")
        while any(model.left for model in self.expected):
            self.take("end_left")

    def end_transactions(self) -> None:
        for database in DATABASES:
            while self.model.atomics[database]:
                self.take("end", database=database)


@pytest.fixture(params=["sqlite", "postgresql"])
def two_databases(request: pytest.FixtureRequest) -> Iterator[None]:
    """Two databases on each back end in turn. Django is configured for so long only: others need one that is not."""
    if request.param == "sqlite":
        address = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    else:
        address = request.getfixturevalue("postgresql_database")
    django_settings.configure(DATABASES={database: dict(address) for database in DATABASES}, USE_TZ=True)
    airlock.configure(scope_cls=DjangoScope)
    yield
    airlock.reset_configuration()
    connections.close_all()
    for database in DATABASES:
        del connections[database]
    del connections.settings
    django_settings._wrapped = empty  # noqa: SLF001


@pytest.mark.usefixtures("two_databases")
@pytest.mark.timeout(900 + PROGRAMS)  # seconds: a failure is made small before it is shown
@pytest.mark.filterwarnings("ignore:Accessing the database during app initialization")  # there are no apps
def test_random_programs_share_the_fate_of_their_transactions() -> None:
    run_state_machine_as_test(
        RandomPrograms,
        settings=settings(
            max_examples=PROGRAMS,
            stateful_step_count=40,
            deadline=None,
            phases=set(Phase) - {Phase.explain},
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
