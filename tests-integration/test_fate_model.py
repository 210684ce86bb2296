"""Random programs: what becomes of their intents is what the model in fate_model.py says.

A program is nested data: blocks of `atomic()` on two databases, scopes, policies and `detached()`, of which some raise;
`on_commit` callbacks that contain such blocks; and `enqueue`. It runs as in production and in a `TestCase`, on every
database. `AIRLOCK_TEST_PROGRAMS` is their number on each.
"""

from __future__ import annotations

import os
import unittest
from contextlib import ExitStack, contextmanager, suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as django_settings
from django.db import connections, transaction
from django.test import TestCase
from django.utils.functional import empty
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import airlock
from airlock.integrations.django import DjangoScope
from fate_model import DATABASES, Model, SomeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airlock import Intent

PROGRAMS = int(os.environ.get("AIRLOCK_TEST_PROGRAMS", "300"))

#: One of `[method of the world, arguments]`, `["on_commit", database, raises, program]` and
#: `[method that returns a context manager, arguments, raises, program]`.
Step = list[Any]
Program = list[Step]


def run(world: Any, program: Program, journal: list[list[int]]) -> None:
    """Let the model, or the real thing, take each step; note in the journal what was dispatched by then."""
    for step in program:
        with suppress(SomeError):
            match step:
                case ["on_commit", database, raises, callback]:
                    world.on_commit(database, partial(run_body, world, callback, raises, journal))
                case [method, arguments, raises, body]:
                    with getattr(world, method)(**arguments):
                        run_body(world, body, raises, journal)
                case [method, arguments]:
                    getattr(world, method)(**arguments)
        journal.append(sorted(world.dispatched))


def run_body(world: Any, body: Program, raises: bool, journal: list[list[int]]) -> None:
    run(world, body, journal)
    if raises:
        raise SomeError


class Denies(airlock.AllowAll):
    def __init__(self, multiples_of: int) -> None:
        self.multiples_of = multiples_of

    def allows(self, intent: Intent) -> bool:
        return bool(intent.args[0] % self.multiples_of)


class LetsThrough(airlock.Scope):
    def __init__(self, *, multiples_of: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.multiples_of = multiples_of

    def before_descendant_flushes(self, exiting_scope: airlock.Scope, intents: list[Intent]) -> list[Intent]:
        return [intent for intent in intents if intent.args[0] % self.multiples_of == 0]


class World:
    """Takes the steps of a program for real. The methods are those of the model."""

    def __init__(self, *, in_test_case: bool) -> None:
        self.in_test_case = in_test_case
        self.count = 0
        self.depth = dict.fromkeys(DATABASES, 0)
        self.scopes: list[airlock.Scope] = []
        self.left: list[airlock.Scope] = []
        self.dispatched: list[int] = []
        self.refused: list[int] = []
        for database in DATABASES:
            with connections[database].cursor() as cursor:
                cursor.execute("CREATE TEMPORARY TABLE IF NOT EXISTS saved (number integer)")
                cursor.execute("DELETE FROM saved")

    def enqueue(self) -> None:
        self.count += 1
        for database in DATABASES:
            if not (self.depth[database] and transaction.get_rollback(database)):
                with connections[database].cursor() as cursor:
                    cursor.execute("INSERT INTO saved VALUES (%s)", [self.count])
        if self.in_test_case and airlock.get_current_scope() is None:
            # Where a callback waits, which might be what enqueues, Airlock makes a scope for it.
            self.refused.append(self.count)
            return
        try:
            airlock.enqueue(self.dispatched.append, self.count)
        except airlock.NoScopeError:
            self.refused.append(self.count)

    def enqueue_without_autocommit(self, database: str) -> None:
        scope = airlock.get_current_scope()
        if not self.depth[database] and scope and scope.transactional:
            self.count += 1
            if not self.in_test_case:  # where Django does not let anybody
                transaction.set_autocommit(False, database)
                with pytest.raises(airlock.UsageError):
                    airlock.enqueue(self.dispatched.append, self.count)
                transaction.rollback(database)
                transaction.set_autocommit(True, database)
            self.refused.append(self.count)

    def policy(self, denies: int) -> Any:
        return airlock.policy(Denies(denies))

    @contextmanager
    def detached(self) -> Iterator[None]:
        with airlock.detached() as scope:
            self.scopes.append(scope)
            yield

    @contextmanager
    def scope(self, denies: int | None, lets_through: int | None, later: bool, is_plain: bool) -> Iterator[None]:
        policy = Denies(denies) if denies else None
        if lets_through:
            scope: airlock.Scope = LetsThrough(policy=policy, multiples_of=lets_through)
        else:
            scope = airlock.Scope(policy) if is_plain else DjangoScope(policy)
        self.scopes.append(scope)
        with ExitStack() as leaving:
            if later and airlock.get_current_scope() is None:
                scope.enter()
                leaving.callback(self.left.append, scope)
                leaving.callback(scope.exit)
            else:
                leaving.enter_context(scope)
            yield

    def flush_left(self) -> None:
        if self.left:
            self.left.pop(0).flush()

    @contextmanager
    def atomic(self, database: str, savepoint: bool) -> Iterator[None]:
        # In a test case, the outermost block without a savepoint would be a part of the one around the test.
        savepoint |= self.in_test_case and not self.depth[database]
        try:
            with transaction.atomic(database, savepoint=savepoint):
                self.depth[database] += 1
                try:
                    yield
                finally:
                    self.depth[database] -= 1
        finally:
            assert self.in_test_case or connections[database].in_atomic_block == bool(self.depth[database])

    def set_rollback(self, database: str) -> None:
        if self.depth[database]:
            transaction.set_rollback(True, database)

    def on_commit(self, database: str, callback: Callable[[], None]) -> None:
        transaction.on_commit(callback, database)

    def committed(self, database: str) -> list[int]:
        with connections[database].cursor() as cursor:
            cursor.execute("SELECT number FROM saved ORDER BY number")
            return [number for (number,) in cursor.fetchall()]


def account(scope: airlock.Scope) -> dict[str, list[int]]:
    return {
        "dispatched": [intent.args[0] for intent in scope.dispatched_intents],
        "undispatched": [intent.args[0] for intent in scope.undispatched_intents],
        "rolled back": sorted(intent.args[0] for intent in scope.rolled_back_intents),
    }


def compare(program: Program, *, in_test_case: bool) -> None:
    model, world = Model(in_test_case=in_test_case), World(in_test_case=in_test_case)
    expected: list[list[int]] = []
    journal: list[list[int]] = []
    run(model, program, expected)
    run(world, program, journal)
    assert journal == expected
    for database in DATABASES:
        with transaction.atomic(database):  # where a callback raised, Django is in the middle of a commit until then
            pass
    assert [account(scope) for scope in world.scopes] == [scope.account() for scope in model.scopes]
    assert world.refused == model.refused
    for database in DATABASES:
        assert world.committed(database) == model.committed(database)


def compare_in_test_case(program: Program) -> None:
    class InTestCase(TestCase):
        databases = DATABASES

        def runTest(self) -> None:  # noqa: N802 - so unittest calls it
            try:
                compare(program, in_test_case=True)
            except AssertionError as error:
                errors.append(error)

    errors: list[AssertionError] = []
    unittest.TestSuite([InTestCase()]).debug()
    if errors:
        raise errors[0]


databases = st.sampled_from(DATABASES)
raises = st.sampled_from([False, False, False, True])  # most things end well, or programs would come to nothing
numbers = st.sampled_from([None, None, None, 2, 3])
enqueues = st.just(["enqueue", {}])
leaves = st.one_of(
    enqueues,
    enqueues,
    enqueues,
    st.just(["flush_left", {}]),
    st.tuples(
        st.sampled_from(["set_rollback", "enqueue_without_autocommit"]), st.fixed_dictionaries({"database": databases})
    ),
).map(list)


def blocks(bodies: st.SearchStrategy[Program]) -> st.SearchStrategy[Step]:
    transactions = st.fixed_dictionaries({"database": databases, "savepoint": st.sampled_from([True, True, False])})
    scopes = st.fixed_dictionaries(
        {"denies": numbers, "lets_through": numbers, "later": st.booleans(), "is_plain": st.booleans()}
    )
    policies = st.fixed_dictionaries({"denies": st.sampled_from([2, 3])})
    return st.one_of(
        st.tuples(st.just("atomic"), transactions, raises, bodies),
        st.tuples(st.just("atomic"), transactions, raises, bodies),
        st.tuples(st.just("scope"), scopes, raises, bodies),
        st.tuples(st.just("scope"), scopes, raises, bodies),
        st.tuples(st.just("policy"), policies, raises, bodies),
        st.tuples(st.just("detached"), st.just({}), raises, bodies),
        st.tuples(st.just("on_commit"), databases, raises, bodies),
    ).map(list)


programs = st.recursive(
    st.lists(leaves, max_size=4),
    lambda bodies: st.lists(leaves | blocks(bodies) | blocks(bodies), max_size=5),
    max_leaves=20,
)


def with_more_intents(program: Program) -> Program:
    """The same program that enqueues between all steps."""
    steps: Program = [["enqueue", {}]]
    for *step, last in program:
        steps += [[*step, with_more_intents(last) if isinstance(last, list) else last], ["enqueue", {}]]
    return steps


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def two_databases(request: pytest.FixtureRequest) -> Iterator[None]:
    """Two connections to each database in turn. Django is configured for so long only."""
    address: dict[str, Any] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    if request.param != "sqlite":
        address = request.getfixturevalue(f"{request.param}_database")
    django_settings.configure(DATABASES={database: dict(address) for database in DATABASES}, USE_TZ=True)
    yield
    connections.close_all()
    for database in DATABASES:
        del connections[database]
    del connections.settings
    django_settings._wrapped = empty  # noqa: SLF001


@pytest.mark.usefixtures("two_databases")
@pytest.mark.timeout(900 + PROGRAMS)  # seconds: a failure is made small before it is shown
@pytest.mark.filterwarnings("ignore:Accessing the database during app initialization")  # there are no apps
def test_intents_share_the_fate_of_their_transactions() -> None:
    @settings(
        max_examples=PROGRAMS,
        deadline=None,
        phases=set(Phase) - {Phase.explain},
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(programs | programs.map(with_more_intents))
    def agrees(program: Program) -> None:
        program = [*program, *[["flush_left", {}]] * 5]
        Context().run(compare, program, in_test_case=False)
        Context().run(compare_in_test_case, program)

    agrees()
