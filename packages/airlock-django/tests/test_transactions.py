"""What a scope dispatches, and when, by what became of the transactions and savepoints in and around it."""

import logging
import threading
from contextlib import nullcontext
from contextvars import copy_context

import pytest
from asgiref.sync import AsyncToSync, async_to_sync
from django.contrib.sessions.models import Session
from django.db import connections, transaction
from django.db.transaction import atomic
from django.utils import timezone

import airlock
from airlock import Scope
from airlock.integrations.django import DjangoScope

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def save(key):
    Session.objects.create(session_key=key, expire_date=timezone.now())


def fails(error=ValueError):
    raise error


# Transactions and savepoints


def test_transaction_inside_decides_about_its_intents_and_no_others(ran, block):
    with airlock.scope() as scope:
        before = airlock.enqueue(ran.append, 1)
        with block():
            inside = airlock.enqueue(ran.append, 2)
        after = airlock.enqueue(ran.append, 3)
        assert ran == []

    assert ran == ([1, 2, 3] if block is atomic else [1, 3])
    assert scope.dispatched_intents == ([before, inside, after] if block is atomic else [before, after])
    assert scope.rolled_back_intents == ([] if block is atomic else [inside])
    assert scope.undispatched_intents == []


def test_effects_of_a_scope_inside_wait_for_the_end_of_the_transaction(ran, block):
    with block():
        with airlock.scope() as scope:
            intent = airlock.enqueue(ran.append, 1)
        assert ran == []
        assert scope.undispatched_intents == [intent]
        assert scope.dispatched_intents == scope.rolled_back_intents == []

    assert ran == ([1] if block is atomic else [])
    assert scope.dispatched_intents == ([intent] if block is atomic else [])
    assert scope.rolled_back_intents == ([] if block is atomic else [intent])
    assert scope.undispatched_intents == []


def test_set_rollback_drops_the_intents(ran, boundary):
    with boundary() as scope:
        airlock.enqueue(ran.append, 1)
        transaction.set_rollback(True)
        airlock.enqueue(ran.append, 2)

    assert ran == []
    assert [intent.args for intent in scope.rolled_back_intents] == [(1,), (2,)]


def test_rolled_back_savepoint_drops_its_intents_and_no_others(ran, boundary, rolled_back):
    with boundary() as scope:
        airlock.enqueue(ran.append, 1)
        with rolled_back():
            dropped = airlock.enqueue(ran.append, 2)
        airlock.enqueue(ran.append, 3)
        with atomic():
            airlock.enqueue(ran.append, 4)
        airlock.enqueue(ran.append, 5)

    assert ran == [1, 3, 4, 5]
    assert scope.rolled_back_intents == [dropped]


@pytest.mark.parametrize(("rolls_back", "left"), [(1, [0]), (2, [0, 1, -1]), (3, [0, 1, 2, -2, -1])])
def test_rolled_back_savepoint_drops_what_is_deeper_too(ran, rolled_back, rolls_back, left):
    def go_to(depth):
        with (rolled_back if depth == rolls_back else atomic)():
            airlock.enqueue(ran.append, depth)
            if depth < 3:
                go_to(depth + 1)
            airlock.enqueue(ran.append, -depth)

    with airlock.scope(), atomic():
        airlock.enqueue(ran.append, 0)
        go_to(1)

    assert ran == left


def test_scope_inside_a_savepoint_that_is_rolled_back_dispatches_nothing(ran, rolled_back):
    with atomic(), rolled_back(), airlock.scope() as scope:
        intent = airlock.enqueue(ran.append, 1)

    assert ran == []
    assert scope.rolled_back_intents == [intent]


def test_block_without_a_savepoint_has_the_fate_of_the_transaction(ran, block):
    with airlock.scope() as scope, atomic():
        airlock.enqueue(ran.append, 1)
        with block(savepoint=False):
            airlock.enqueue(ran.append, 2)

    assert ran == ([1, 2] if block is atomic else [])
    assert len(scope.rolled_back_intents) == 2 - len(ran)


def test_savepoint_with_a_name_of_its_own_can_be_rolled_back(ran):
    connection = connections["default"]
    with airlock.scope(), atomic(), connection.cursor() as cursor:
        cursor.execute("SAVEPOINT own_name")
        airlock.enqueue(ran.append, 1)
        connection.savepoint_rollback("own_name")

    assert ran == [1]  # as with `on_commit`, which does not see it either


def test_enqueueing_makes_no_query(django_assert_num_queries):
    with airlock.scope():
        with django_assert_num_queries(0):
            airlock.enqueue(abs, 1)
        with atomic(), atomic("other"):
            with django_assert_num_queries(0), django_assert_num_queries(0, using="other"):
                airlock.enqueue(abs, 2)
                airlock.enqueue(abs, 3)
            with atomic(), django_assert_num_queries(0), django_assert_num_queries(0, using="other"):
                airlock.enqueue(abs, 4)


def test_many_savepoints_cost_a_constant_each(ran):
    class Counting(list):
        """Callbacks of a connection; counts how many are looked at."""

        touched = 0

        def __iter__(self):
            Counting.touched += len(self)
            return super().__iter__()

    def touched_by(rows):
        Counting.touched = 0
        with airlock.scope(), atomic():
            connections["default"].run_on_commit = Counting()
            for number in range(rows):
                with atomic():
                    airlock.enqueue(ran.append, number)
        return Counting.touched

    few, many = touched_by(100), touched_by(200)
    assert len(ran) == 300
    assert many <= 3 * few


def test_task_may_use_the_database_and_scopes_of_its_own(ran):
    def task():
        with airlock.scope(), atomic():
            save("by the task")
            airlock.enqueue(ran.append, Session.objects.count())

    with atomic(), airlock.scope():
        save("before")
        airlock.enqueue(task)

    assert ran == [2]


# A scope that crosses the border of a transaction


def test_scope_that_ends_inside_a_transaction_waits_for_it(ran, block):
    scope = airlock.scope()
    scope.enter()
    airlock.enqueue(ran.append, 1)
    with block():
        airlock.enqueue(ran.append, 2)
        scope.exit()
        assert scope.flush() == []

    assert ran == ([1, 2] if block is atomic else [])
    assert len(scope.rolled_back_intents) == 2 - len(ran)


def test_scope_that_ends_after_the_transaction_knows_its_outcome(ran, block):
    scope = airlock.scope()
    with block():
        scope.enter()
        intent = airlock.enqueue(ran.append, 1)
    scope.exit()
    scope.flush()

    assert ran == ([1] if block is atomic else [])
    assert scope.rolled_back_intents == ([] if block is atomic else [intent])


def test_scope_that_ends_in_a_callback_before_ours_knows_of_the_commit(ran):
    def callback():
        scope.exit()
        scope.flush()

    scope = airlock.scope()
    with atomic():
        scope.enter()
        airlock.enqueue(ran.append, 1)
        connections["default"].run_on_commit.insert(0, (set(), callback, False))

    assert ran == [1]


def test_who_waits_for_a_transaction_that_is_over_is_told_at_once(ran):
    with atomic(), airlock.scope():
        airlock.enqueue(abs, 1)
        fate = connections["default"].run_on_commit[0][1]
    fate.when_over(lambda: ran.append("told"))

    assert ran == ["told"]


def test_commit_in_the_middle_of_a_look_by_another_thread_stays_one():
    with atomic(), airlock.scope():
        airlock.enqueue(abs, 1)
        fate = connections["default"].run_on_commit[0][1]
    fate.look(())  # the other thread has found it open, and then nothing that waits

    assert fate.state == "kept"


# Several scopes, of every class


class LetsThrough(DjangoScope):
    def before_descendant_flushes(self, exiting_scope, intents):
        return intents


class Later(DjangoScope):
    """Dispatches when it is told to, as a subclass may."""

    def dispatch_all(self, intents):
        self.kept_back = intents

    def go(self):
        super().dispatch_all(self.kept_back)


def test_scopes_in_one_transaction_dispatch_in_order_of_their_flushes(ran):
    with atomic():
        first = airlock.scope()
        first.enter()
        airlock.enqueue(ran.append, "first")
        first.exit()
        with airlock.scope():
            airlock.enqueue(ran.append, "second")
        first.flush()

    assert ran == ["second", "first"]


@pytest.mark.parametrize("outer_cls", [Scope, DjangoScope])
@pytest.mark.parametrize("inner_cls", [Scope, DjangoScope])
def test_intents_of_nested_scopes_keep_their_fate(ran, rolled_back, outer_cls, inner_cls):
    with airlock.scope(_cls=outer_cls) as outer:
        with rolled_back(), airlock.scope(_cls=inner_cls):
            dropped = airlock.enqueue(ran.append, 1)
        with atomic(), airlock.scope(_cls=inner_cls):
            airlock.enqueue(ran.append, 2)
        assert ran == []

    assert ran == [2]
    assert outer.rolled_back_intents == [dropped]


@pytest.mark.parametrize("inner_cls", [Scope, DjangoScope])
def test_scope_that_is_let_through_waits_for_its_transaction(ran, block, inner_cls):
    with airlock.scope(_cls=LetsThrough):
        with block():
            with airlock.scope(_cls=inner_cls) as inner:
                airlock.enqueue(ran.append, 1)
            assert ran == []
        assert ran == ([1] if block is atomic else [])
        assert len(inner.rolled_back_intents) == 1 - len(ran)


def test_dispatch_deferred_into_a_transaction_waits_for_it(ran, block):
    with airlock.scope(_cls=Later) as scope:
        intent = airlock.enqueue(ran.append, 1)
    with block():
        scope.go()
        assert ran == []

    assert ran == ([1] if block is atomic else [])
    assert scope.rolled_back_intents == ([] if block is atomic else [intent])


def test_dispatch_deferred_beyond_a_rollback_drops_the_intents(ran, rolled_back):
    with rolled_back(), airlock.scope(_cls=Later) as scope:
        airlock.enqueue(ran.append, 1)
    scope.go()

    assert ran == []


# Several databases


either_first = pytest.mark.parametrize(("first", "second"), [("default", "other"), ("other", "default")])


def test_intent_depends_on_the_transactions_of_all_databases(ran, rolled_back):
    with airlock.scope() as scope:
        with rolled_back("other"), atomic():
            airlock.enqueue(ran.append, "outer rolls back")
        with atomic("other"):
            with rolled_back():
                airlock.enqueue(ran.append, "inner rolls back")
            airlock.enqueue(ran.append, "only in the outer one")
        with atomic("other"), atomic():
            airlock.enqueue(ran.append, "both commit")

    assert ran == ["only in the outer one", "both commit"]
    assert [intent.args for intent in scope.rolled_back_intents] == [("outer rolls back",), ("inner rolls back",)]


@either_first
def test_scope_inside_transactions_waits_for_the_last_of_them(ran, first, second):
    with atomic(second):
        with atomic(first), airlock.scope() as scope:
            intent = airlock.enqueue(ran.append, 1)
        assert ran == []
        assert scope.undispatched_intents == [intent]

    assert ran == [1]
    assert scope.undispatched_intents == []


@either_first
@pytest.mark.parametrize("rolls_back", ["inner", "outer"])
def test_one_of_two_transactions_rolled_back_dispatches_nothing(ran, rolled_back, first, second, rolls_back):
    outer, inner = (atomic, rolled_back) if rolls_back == "inner" else (rolled_back, atomic)
    with outer(first), inner(second), airlock.scope() as scope:
        intent = airlock.enqueue(ran.append, 1)

    assert ran == []
    assert scope.rolled_back_intents == [intent]
    assert scope.undispatched_intents == []


def test_savepoint_of_one_database_concerns_no_intents_outside_of_it(ran, rolled_back):
    with atomic("other"), atomic(), airlock.scope():
        airlock.enqueue(ran.append, 1)
        with rolled_back("other"):
            airlock.enqueue(ran.append, 2)
            with atomic():
                airlock.enqueue(ran.append, 3)
        with atomic():
            airlock.enqueue(ran.append, 4)

    assert ran == [1, 4]


def test_intents_of_different_depths_go_out_in_the_order_of_enqueueing(ran):
    with atomic("other"):
        with atomic(), airlock.scope():
            airlock.enqueue(ran.append, 1)
            with atomic():
                airlock.enqueue(ran.append, 2)
                with atomic("other"):
                    airlock.enqueue(ran.append, 3)
            airlock.enqueue(ran.append, 4)
        assert ran == []

    assert ran == [1, 2, 3, 4]


# Threads


def in_a_thread(function, *args):
    """Start a thread with the context of this one, as `asyncio.to_thread` does; it closes its connections."""

    def run():
        try:
            function(*args)
        finally:
            connections.close_all()

    thread = threading.Thread(target=copy_context().run, args=(run,))
    thread.start()
    return thread


def test_threads_that_share_a_scope_have_transactions_of_their_own(ran, rolled_back):
    both_enqueued = threading.Barrier(2, timeout=60)

    def work(block):
        with block():
            airlock.enqueue(ran.append, block)
            both_enqueued.wait()

    with airlock.scope() as scope:
        for thread in [in_a_thread(work, block) for block in (atomic, rolled_back)]:
            thread.join()

    assert ran == [atomic]
    assert [intent.args for intent in scope.rolled_back_intents] == [(rolled_back,)]


def test_transaction_of_a_thread_may_outlast_the_scope(ran, block):
    enqueued, go_on = threading.Event(), threading.Event()

    def work():
        with block():
            airlock.enqueue(ran.append, "thread")
            enqueued.set()
            assert go_on.wait(60)

    with airlock.scope() as scope:
        airlock.enqueue(ran.append, "before")
        thread = in_a_thread(work)
        assert enqueued.wait(60)
    assert ran == ["before"]
    assert len(scope.undispatched_intents) == 1

    go_on.set()
    thread.join()
    assert ran == (["before", "thread"] if block is atomic else ["before"])
    assert scope.undispatched_intents == []
    assert len(scope.rolled_back_intents) == 2 - len(ran)


# The log


def test_rollback_after_the_flush_is_logged_when_airlock_looks_again(ran, log, rolled_back):
    with rolled_back(), airlock.scope():
        airlock.enqueue(ran.append, 1, _name="send_receipt")
    assert log.records == []
    with airlock.scope():
        airlock.enqueue(abs, 1)

    (record,) = log.records
    assert "send_receipt: rolled back" in record.getMessage()


# One failure after a commit is not that of the others


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_of_one_scope_after_a_commit_spares_the_others(ran, error):
    with pytest.raises(error), atomic():
        with airlock.scope():
            airlock.enqueue(fails, error)
        with airlock.scope():
            airlock.enqueue(ran.append, 1)

    assert ran == [1]


def test_interrupt_comes_before_a_mere_failure():
    with pytest.raises(KeyboardInterrupt), atomic():
        for error in (ValueError, KeyboardInterrupt):
            with airlock.scope(_cls=Scope):
                airlock.enqueue(fails, error)


def test_logging_filter_that_raises_spares_the_other_scopes(ran, monkeypatch):
    monkeypatch.setattr(logging.getLogger("airlock"), "filters", [lambda record: fails(ZeroDivisionError)])
    with pytest.raises(ZeroDivisionError), atomic():
        with airlock.scope():
            airlock.enqueue(fails)
        with airlock.scope():
            airlock.enqueue(ran.append, 1)

    assert ran == [1]


# Manual transaction management


@pytest.fixture
def by_hand():
    connections["default"].ensure_connection()
    transaction.set_autocommit(False)
    yield
    transaction.rollback()
    transaction.set_autocommit(True)


@pytest.mark.parametrize("where", [nullcontext, atomic])
def test_enqueue_refuses_in_manual_transaction_management(by_hand, where):
    with airlock.scope(), where(), pytest.raises(airlock.UsageError, match="'default' is in manual transaction"):
        airlock.enqueue(abs, 1)


def test_detached_effects_go_out_in_manual_transaction_management(by_hand, ran):
    with airlock.scope(), airlock.detached():
        airlock.enqueue(ran.append, 1)

    assert ran == [1]


def test_connection_without_autocommit_is_no_matter_until_it_is_used(ran, monkeypatch):
    monkeypatch.setitem(connections.settings["other"], "AUTOCOMMIT", False)
    connections["other"].close()
    with airlock.scope():
        airlock.enqueue(ran.append, 1)

    assert ran == [1]


# What is read of Django and asgiref, beyond what fails above where it changes


@pytest.fixture
def connection():
    connections["default"].ensure_connection()
    return connections["default"]


def test_django_has_a_savepoint_id_for_each_block_but_the_outermost(connection):
    with atomic(), atomic(), atomic(savepoint=False):
        assert len(connection.savepoint_ids) == len(connection.atomic_blocks) - 1 == 2
        assert isinstance(connection.savepoint_ids[0], str)
        assert connection.savepoint_ids[1] is None
    assert connection.savepoint_ids == connection.atomic_blocks == []


def test_django_uses_no_savepoint_id_twice(connection, rolled_back):
    ids = set()
    with atomic():
        for _ in range(3):
            with rolled_back():
                ids.add(connection.savepoint_ids[-1])
    assert len(ids) == 3


def test_django_keeps_savepoints_callback_and_robustness(connection):
    with atomic(), atomic():
        transaction.on_commit(len)
        assert connection.run_on_commit == [(set(connection.savepoint_ids), len, False)]
        transaction.set_rollback(True)


def test_django_says_that_callbacks_of_a_commit_are_running(connection, ran):
    with atomic():
        assert not connection.run_commit_hooks_on_set_autocommit_on
        transaction.on_commit(lambda: ran.append(connection.run_commit_hooks_on_set_autocommit_on))
    assert ran == [True]
    assert not connection.run_commit_hooks_on_set_autocommit_on


def test_asgiref_says_which_thread_waits_for_a_coroutine():
    async def main():
        executor = AsyncToSync.executors.current
        return executor._work_thread, executor._broken  # noqa: SLF001 - what _connections.py reads

    assert async_to_sync(main)() == (threading.current_thread(), False)
