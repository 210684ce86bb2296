"""What a scope dispatches, and when, by what became of the transactions and savepoints in and around it."""

import threading
from contextlib import suppress
from contextvars import copy_context

import pytest
from django.contrib.sessions.models import Session
from django.db import connections, transaction
from django.db.transaction import atomic
from django.utils import timezone

import airlock
from airlock.integrations.django import DjangoScope

pytestmark = pytest.mark.usefixtures("on_database")


class RollBackError(Exception):
    """Leaves an `atomic` block in a way that rolls it back."""


def save(key):
    Session.objects.create(session_key=key, expire_date=timezone.now())


# A scope around the transactions


def test_without_a_transaction_effects_go_out_at_the_end_of_the_scope(ran):
    with airlock.scope() as scope:
        intent = airlock.enqueue(ran.append, 1)
        assert ran == []

    assert isinstance(scope, DjangoScope)
    assert ran == [1]
    assert scope.dispatched_intents == [intent]


def test_committed_transaction_lets_its_effects_go_at_the_end_of_the_scope(ran):
    with airlock.scope() as scope:
        with atomic():
            intent = airlock.enqueue(ran.append, 1)
        assert ran == []

    assert ran == [1]
    assert scope.dispatched_intents == [intent]
    assert scope.rolled_back_intents == scope.undispatched_intents == []


def test_rolled_back_transaction_drops_its_intents_and_no_others(ran):
    with airlock.scope() as scope:
        before = airlock.enqueue(ran.append, 1)
        with suppress(RollBackError), atomic():
            dropped = airlock.enqueue(ran.append, 2)
            raise RollBackError
        after = airlock.enqueue(ran.append, 3)

    assert ran == [1, 3]
    assert scope.dispatched_intents == [before, after]
    assert scope.rolled_back_intents == [dropped]
    assert scope.undispatched_intents == []


def test_set_rollback_drops_the_intents(ran):
    with airlock.scope() as scope, atomic():
        airlock.enqueue(ran.append, 1)
        transaction.set_rollback(True)
        airlock.enqueue(ran.append, 2)

    assert ran == []
    assert [intent.args for intent in scope.rolled_back_intents] == [(1,), (2,)]


def test_rolled_back_savepoint_drops_its_intents_and_no_others(ran):
    with airlock.scope() as scope, atomic():
        airlock.enqueue(ran.append, 1)
        with suppress(RollBackError), atomic():
            dropped = airlock.enqueue(ran.append, 2)
            raise RollBackError
        airlock.enqueue(ran.append, 3)
        with atomic():
            airlock.enqueue(ran.append, 4)
        airlock.enqueue(ran.append, 5)

    assert ran == [1, 3, 4, 5]
    assert scope.rolled_back_intents == [dropped]


@pytest.mark.parametrize("rolled_back", [1, 2, 3])
def test_savepoint_rolled_back_at_any_depth_drops_what_was_enqueued_in_it_and_deeper(ran, rolled_back):
    def go_to(depth):
        with suppress(RollBackError), atomic():
            airlock.enqueue(ran.append, depth)
            if depth < 3:
                go_to(depth + 1)
            airlock.enqueue(ran.append, -depth)
            if depth == rolled_back:
                raise RollBackError

    with airlock.scope(), atomic():
        airlock.enqueue(ran.append, 0)
        go_to(1)

    assert ran == {1: [0], 2: [0, 1, -1], 3: [0, 1, 2, -2, -1]}[rolled_back]


def test_block_without_a_savepoint_takes_the_whole_transaction_with_it(ran):
    with airlock.scope() as scope, suppress(RollBackError), atomic():
        airlock.enqueue(ran.append, 1)
        with atomic(savepoint=False):
            airlock.enqueue(ran.append, 2)
            raise RollBackError

    assert ran == []
    assert len(scope.rolled_back_intents) == 2


def test_block_without_a_savepoint_that_commits_lets_its_effects_go(ran):
    with airlock.scope(), atomic():
        airlock.enqueue(ran.append, 1)
        with atomic(savepoint=False):
            airlock.enqueue(ran.append, 2)

    assert ran == [1, 2]


@pytest.mark.parametrize("good", [True, False])
def test_durable_block_decides_like_any_other(ran, good):
    with airlock.scope(), suppress(RollBackError), atomic(durable=True):
        airlock.enqueue(ran.append, 1)
        if not good:
            raise RollBackError

    assert ran == ([1] if good else [])


# Since 6.1, Django has another name for it.
make_savepoint = getattr(transaction, "savepoint_create", transaction.savepoint)


@pytest.mark.parametrize("scope_is", ["around", "inside"])
def test_savepoint_made_by_hand_that_is_rolled_back_drops_what_was_enqueued_since(ran, scope_is):
    def work():
        airlock.enqueue(ran.append, 1)
        savepoint = make_savepoint()
        airlock.enqueue(ran.append, 2)
        with atomic():
            airlock.enqueue(ran.append, 3)
        transaction.savepoint_rollback(savepoint)
        airlock.enqueue(ran.append, 4)

    scope = airlock.scope()
    if scope_is == "around":
        with scope, atomic():
            work()
    else:
        with atomic(), scope:
            work()

    assert ran == [1, 4]
    assert [intent.args for intent in scope.rolled_back_intents] == [(2,), (3,)]


def test_savepoints_made_by_hand_inside_of_one_another_undo_no_more_than_they_must(ran):
    with airlock.scope(), atomic():
        airlock.enqueue(ran.append, 1)
        outer = make_savepoint()
        airlock.enqueue(ran.append, 2)
        inner = make_savepoint()
        airlock.enqueue(ran.append, 3)
        transaction.savepoint_rollback(inner)
        airlock.enqueue(ran.append, 4)
        transaction.savepoint_commit(outer)
        airlock.enqueue(ran.append, 5)
        again = make_savepoint()
        airlock.enqueue(ran.append, 6)
        transaction.savepoint_rollback(again)

    assert ran == [1, 2, 4, 5]


@pytest.fixture
def many_savepoints_so_far():
    """After `clean_savepoints` none has the name of that of a block around, which Django would take it for."""
    connections["default"].savepoint_state += 1000


@pytest.mark.usefixtures("many_savepoints_so_far")
def test_savepoint_made_by_hand_after_django_began_to_count_them_anew_undoes_what_came_after_it(ran):
    with airlock.scope(), atomic():
        transaction.clean_savepoints()
        airlock.enqueue(ran.append, 1)
        transaction.savepoint_commit(make_savepoint())
        airlock.enqueue(ran.append, 2)
        transaction.clean_savepoints()
        savepoint = make_savepoint()
        airlock.enqueue(ran.append, 3)
        transaction.savepoint_rollback(savepoint)
        airlock.enqueue(ran.append, 4)

    assert ran == [1, 2, 4]


@pytest.mark.usefixtures("many_savepoints_so_far")
def test_savepoint_made_by_hand_before_django_began_to_count_them_anew_undoes_what_came_after_it(ran):
    with airlock.scope(), atomic():
        transaction.clean_savepoints()
        airlock.enqueue(ran.append, 1)
        transaction.savepoint_commit(make_savepoint())
        savepoint = make_savepoint()
        airlock.enqueue(ran.append, 2)
        transaction.clean_savepoints()
        make_savepoint()
        airlock.enqueue(ran.append, 3)
        transaction.savepoint_rollback(savepoint)
        airlock.enqueue(ran.append, 4)

    assert ran == [1, 4]


@pytest.mark.usefixtures("many_savepoints_so_far")
def test_savepoint_made_by_hand_before_anything_was_enqueued_undoes_it_whatever_django_counts(ran):
    with airlock.scope(), atomic():
        savepoint = make_savepoint()
        transaction.clean_savepoints()
        airlock.enqueue(ran.append, 1)
        transaction.savepoint_rollback(savepoint)
        airlock.enqueue(ran.append, 2)

    assert ran == [2]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # SQLite does not ask whether it has any
def test_savepoints_made_by_hand_where_the_database_has_none_change_nothing(ran, monkeypatch):
    monkeypatch.setattr(connections["default"].features, "uses_savepoints", False)
    with airlock.scope(), atomic():
        airlock.enqueue(ran.append, 1)
        savepoint = make_savepoint()
        assert savepoint is None
        airlock.enqueue(ran.append, 2)
        transaction.savepoint_rollback(savepoint)
        transaction.savepoint_commit(savepoint)

    assert ran == [1, 2]


def test_scope_that_ended_in_a_savepoint_made_by_hand_is_rolled_back_with_it(ran):
    with atomic():
        savepoint = make_savepoint()
        with airlock.scope() as scope:
            intent = airlock.enqueue(ran.append, 1)
        transaction.savepoint_rollback(savepoint)
        with airlock.scope():
            airlock.enqueue(ran.append, 2)

    assert ran == [2]
    assert scope.rolled_back_intents == [intent]


def test_several_transactions_in_one_scope_each_decide_about_their_own_intents(ran):
    with airlock.scope():
        for number in range(6):
            with suppress(RollBackError), atomic():
                airlock.enqueue(ran.append, number)
                if number % 3 == 1:
                    raise RollBackError

    assert ran == [0, 2, 3, 5]


def test_rolled_back_intent_is_in_the_log_at_debug(ran, log):
    with airlock.scope(), suppress(RollBackError), atomic():
        intent = airlock.enqueue(ran.append, 1, _name="send_receipt")
        raise RollBackError

    (record,) = log.records
    assert (record.name, record.levelname) == ("airlock", "DEBUG")
    assert "send_receipt" in record.getMessage()
    assert intent.id in record.getMessage()


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


# A scope inside a transaction


def test_effects_of_a_scope_inside_a_transaction_wait_for_its_commit(ran):
    with atomic():
        with airlock.scope() as scope:
            intent = airlock.enqueue(ran.append, 1)
        assert ran == []
        assert scope.undispatched_intents == [intent]
        assert scope.dispatched_intents == scope.rolled_back_intents == []

    assert ran == [1]
    assert scope.dispatched_intents == [intent]
    assert scope.undispatched_intents == scope.rolled_back_intents == []


def test_scope_inside_a_transaction_that_is_rolled_back_dispatches_nothing(ran):
    with suppress(RollBackError), atomic():
        with airlock.scope() as scope:
            intent = airlock.enqueue(ran.append, 1)
        raise RollBackError

    assert ran == []
    assert scope.rolled_back_intents == [intent]
    assert scope.undispatched_intents == scope.dispatched_intents == []


def test_scope_inside_a_savepoint_that_is_rolled_back_dispatches_nothing(ran):
    with atomic(), suppress(RollBackError), atomic():
        with airlock.scope() as scope:
            intent = airlock.enqueue(ran.append, 1)
        raise RollBackError

    assert ran == []
    assert scope.rolled_back_intents == [intent]


def test_savepoint_rolled_back_in_a_scope_inside_a_transaction_drops_its_intents_and_no_others(ran):
    with atomic(), airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)
        with suppress(RollBackError), atomic():
            dropped = airlock.enqueue(ran.append, 2)
            raise RollBackError
        airlock.enqueue(ran.append, 3)

    assert ran == [1, 3]
    assert scope.rolled_back_intents == [dropped]


def test_rollback_of_the_transaction_around_a_scope_is_in_the_log_at_debug(ran, log):
    with suppress(RollBackError), atomic():
        with airlock.scope() as scope:
            intent = airlock.enqueue(ran.append, 1)
        raise RollBackError

    assert scope.rolled_back_intents == [intent]
    assert [(record.levelname, intent.id in record.getMessage()) for record in log.records] == [("DEBUG", True)]


def test_several_scopes_in_one_transaction_dispatch_in_the_order_they_ended(ran):
    with atomic():
        for number in range(3):
            with airlock.scope():
                airlock.enqueue(ran.append, number)

    assert ran == [0, 1, 2]


def test_scopes_that_ended_in_another_order_than_they_began_dispatch_in_that_in_which_they_flushed(ran):
    with atomic():
        first = airlock.scope()
        first.enter()
        airlock.enqueue(ran.append, "first")
        first.exit()
        with airlock.scope():
            airlock.enqueue(ran.append, "second")
        first.flush()

    assert ran == ["second", "first"]


def test_discarded_scope_inside_a_transaction_that_commits_dispatches_nothing(ran):
    with atomic():
        with suppress(KeyError), airlock.scope() as scope:
            airlock.enqueue(ran.append, 1)
            raise KeyError
        with airlock.scope():
            airlock.enqueue(ran.append, 2)

    assert scope.is_discarded
    assert ran == [2]


def test_policy_that_drops_everything_leaves_nothing_to_wait_for(ran):
    with atomic():
        with airlock.scope(airlock.DropAll()) as scope:
            airlock.enqueue(ran.append, 1)
        assert scope.undispatched_intents == []

    assert ran == []
    assert scope.undispatched_intents == scope.rolled_back_intents == []


# A scope that crosses the border of a transaction


def test_scope_that_ends_inside_a_transaction_begun_in_it_waits_for_the_commit(ran):
    scope = airlock.scope()
    scope.enter()
    before = airlock.enqueue(ran.append, 1)
    with atomic():
        airlock.enqueue(ran.append, 2)
        scope.exit()
        assert scope.flush() == []
        assert scope.undispatched_intents[0] is before

    assert ran == [1, 2]


def test_scope_that_ends_inside_a_savepoint_that_is_rolled_back_dispatches_nothing(ran):
    scope = airlock.scope()
    scope.enter()
    with atomic(), suppress(RollBackError), atomic():
        airlock.enqueue(ran.append, 1)
        scope.exit()
        scope.flush()
        raise RollBackError

    assert ran == []
    assert len(scope.rolled_back_intents) == 1


@pytest.mark.parametrize("good", [True, False])
def test_scope_that_begins_inside_a_transaction_and_ends_after_it_knows_what_became_of_it(ran, good):
    scope = airlock.scope()
    with suppress(RollBackError), atomic():
        scope.enter()
        intent = airlock.enqueue(ran.append, 1)
        if not good:
            raise RollBackError
    scope.exit()
    scope.flush()

    assert ran == ([1] if good else [])
    assert scope.rolled_back_intents == ([] if good else [intent])


# Nested scopes


def test_nested_scope_hands_over_and_its_intents_keep_their_fate(ran):
    with airlock.scope() as outer:
        with suppress(RollBackError), atomic():
            with airlock.scope() as nested:
                dropped = airlock.enqueue(ran.append, 1)
            raise RollBackError
        with atomic(), airlock.scope():
            airlock.enqueue(ran.append, 2)
        assert ran == []

    assert ran == [2]
    assert outer.rolled_back_intents == [dropped]
    assert nested.intents == [dropped]


def test_scopes_and_savepoints_that_interleave_keep_the_order_of_enqueueing(ran):
    with atomic(), airlock.scope():
        airlock.enqueue(ran.append, 1)
        with airlock.scope():
            airlock.enqueue(ran.append, 2)
            with suppress(RollBackError), atomic(), airlock.scope():
                airlock.enqueue(ran.append, 3)
                raise RollBackError
            with atomic(), airlock.scope():
                airlock.enqueue(ran.append, 4)
        airlock.enqueue(ran.append, 5)

    assert ran == [1, 2, 4, 5]


def test_nested_scope_whose_intents_are_let_through_waits_for_the_transaction_it_is_in(ran):
    class LetsThrough(DjangoScope):
        def before_descendant_flushes(self, exiting_scope, intents):
            return intents

    with airlock.scope(_cls=LetsThrough):
        with atomic():
            with airlock.scope():
                airlock.enqueue(ran.append, 1)
            assert ran == []
        assert ran == [1]
        with suppress(RollBackError), atomic():
            with airlock.scope() as dropped:
                airlock.enqueue(ran.append, 2)
            raise RollBackError

    assert ran == [1]
    assert len(dropped.rolled_back_intents) == 1


# Who is asked, and what runs where


def test_policies_are_not_asked_about_what_was_rolled_back(ran):
    asked = []

    class Asks(airlock.AllowAll):
        def allows(self, intent):
            asked.append(intent.args[0])
            return True

    with airlock.scope(Asks()):
        airlock.enqueue(ran.append, 1)
        with suppress(RollBackError), atomic():
            airlock.enqueue(ran.append, 2)
            raise RollBackError

    assert asked == ran == [1]


def test_what_a_policy_drops_was_not_rolled_back(ran):
    with airlock.scope(airlock.BlockTasks(["blocked"])) as scope, atomic():
        airlock.enqueue(ran.append, 1, _name="blocked")

    assert ran == []
    assert scope.rolled_back_intents == scope.undispatched_intents == []


def test_task_that_runs_in_place_may_use_the_database_and_have_scopes_of_its_own(ran):
    def task():
        with airlock.scope(), atomic():
            save("by the task")
            airlock.enqueue(ran.append, Session.objects.count())

    with atomic(), airlock.scope():
        save("before")
        airlock.enqueue(task)

    assert ran == [2]


# Several databases


def test_intent_depends_on_the_transactions_of_all_databases(ran):
    with airlock.scope() as scope:
        with suppress(RollBackError), atomic("other"):
            with atomic():
                airlock.enqueue(ran.append, "outer rolls back")
            raise RollBackError
        with atomic("other"):
            with suppress(RollBackError), atomic():
                airlock.enqueue(ran.append, "inner rolls back")
                raise RollBackError
            airlock.enqueue(ran.append, "only in the outer one")
        with atomic("other"), atomic():
            airlock.enqueue(ran.append, "both commit")

    assert ran == ["only in the outer one", "both commit"]
    assert [intent.args for intent in scope.rolled_back_intents] == [("outer rolls back",), ("inner rolls back",)]


@pytest.mark.parametrize("first", ["default", "other"])
def test_scope_inside_transactions_waits_for_the_last_of_them(ran, first):
    last = {"default": "other", "other": "default"}[first]
    with atomic(last):
        with atomic(first), airlock.scope() as scope:
            intent = airlock.enqueue(ran.append, 1)
        assert ran == []
        assert scope.undispatched_intents == [intent]

    assert ran == [1]
    assert scope.undispatched_intents == []


@pytest.mark.parametrize("rolled_back", ["default", "other"])
def test_scope_inside_transactions_of_which_one_is_rolled_back_dispatches_nothing(ran, log, rolled_back):
    committed = {"default": "other", "other": "default"}[rolled_back]
    for outer, inner in [(committed, rolled_back), (rolled_back, committed)]:
        with suppress(RollBackError), atomic(outer):
            with suppress(RollBackError), atomic(inner):
                with airlock.scope() as scope:
                    intent = airlock.enqueue(ran.append, 1)
                if inner == rolled_back:
                    raise RollBackError
            if outer == rolled_back:
                raise RollBackError

        assert ran == []
        assert scope.rolled_back_intents == [intent]
        assert scope.undispatched_intents == []
    assert [record.levelname for record in log.records] == ["DEBUG", "DEBUG"]


@pytest.fixture(params=[["default"], ["default", "other"], ["default", "other", "unused"]], ids=len)
def aliases(request, monkeypatch):
    """The aliases of one database and more, as many as are in the settings."""
    databases = {alias: connections.settings.get(alias, {**connections.settings["other"]}) for alias in request.param}
    monkeypatch.setattr(connections, "settings", databases)
    return request.param


def test_intent_depends_on_the_transactions_of_however_many_databases_there_are(ran, aliases):
    for alias in set(aliases) - {"unused"}:
        with airlock.scope() as scope:
            with suppress(RollBackError), atomic(alias):
                airlock.enqueue(ran.append, "rolled back")
                raise RollBackError
            with atomic(alias):
                airlock.enqueue(ran.append, alias)
                assert len(connections[alias].run_on_commit) == 1  # where Django tells of the end

        assert len(scope.rolled_back_intents) == 1
    assert sorted(ran) == sorted(set(aliases) - {"unused"})


def test_savepoint_of_one_database_does_not_concern_intents_enqueued_outside_of_it(ran):
    with atomic("other"), atomic(), airlock.scope():
        airlock.enqueue(ran.append, 1)
        with suppress(RollBackError), atomic("other"):
            airlock.enqueue(ran.append, 2)
            with atomic():
                airlock.enqueue(ran.append, 3)
            raise RollBackError
        with atomic():
            airlock.enqueue(ran.append, 4)

    assert ran == [1, 4]


def test_intents_of_different_depths_go_out_together_in_the_order_of_enqueueing(ran):
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


def test_threads_that_share_a_scope_have_transactions_of_their_own(ran):
    both_enqueued = threading.Barrier(2, timeout=60)

    def work(number):
        with suppress(RollBackError), atomic():
            airlock.enqueue(ran.append, number)
            both_enqueued.wait()
            if number == 1:
                raise RollBackError

    with airlock.scope() as scope:
        for thread in [in_a_thread(work, number) for number in (1, 2)]:
            thread.join()

    assert ran == [2]
    assert [intent.args for intent in scope.rolled_back_intents] == [(1,)]


def test_threads_one_after_the_other_have_transactions_of_their_own(ran):
    def work(number):
        with suppress(RollBackError), atomic():
            airlock.enqueue(ran.append, number)
            if number % 2:
                raise RollBackError

    with airlock.scope():
        for number in range(6):
            in_a_thread(work, number).join()

    assert ran == [0, 2, 4]


@pytest.mark.parametrize("good", [True, False])
def test_effect_of_a_thread_whose_transaction_outlasts_the_scope_waits_for_it(ran, good):
    enqueued, go_on = threading.Event(), threading.Event()

    def work():
        with suppress(RollBackError), atomic():
            airlock.enqueue(ran.append, "thread")
            enqueued.set()
            assert go_on.wait(60)
            if not good:
                raise RollBackError

    with airlock.scope() as scope:
        airlock.enqueue(ran.append, "before")
        thread = in_a_thread(work)
        assert enqueued.wait(60)
    assert ran == ["before"]
    assert len(scope.undispatched_intents) == 1

    go_on.set()
    thread.join()
    assert ran == (["before", "thread"] if good else ["before"])
    assert scope.undispatched_intents == []
    assert len(scope.rolled_back_intents) == (0 if good else 1)
