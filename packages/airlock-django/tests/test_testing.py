"""In the tests of a project, a scope does what it does in production."""

import unittest
from contextlib import suppress
from unittest import mock

import pytest
from django.contrib.sessions.models import Session
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_delete
from django.db.transaction import atomic
from django.test import TestCase, TransactionTestCase
from django.utils import timezone

import airlock


@pytest.fixture
def run(database, django_db_blocker):
    """Runs a test case of Django as its own test runner does."""

    def run(test_case):
        result = unittest.TestResult()
        with django_db_blocker.unblock():
            unittest.defaultTestLoader.loadTestsFromTestCase(test_case).run(result)
        assert result.testsRun > 0
        assert result.wasSuccessful(), "\n".join(text for _, text in result.errors + result.failures)

    return run


@pytest.fixture(params=[TestCase, TransactionTestCase], ids=lambda cls: cls.__name__)
def any_test_case(request):
    return request.param


def test_effects_go_out_and_are_dropped_as_in_production(run, any_test_case, ran):
    class Tests(any_test_case):
        def test(self):
            with airlock.scope() as scope:
                with atomic():
                    airlock.enqueue(ran.append, "committed")
                    with suppress(KeyError), atomic():
                        airlock.enqueue(ran.append, "savepoint")
                        raise KeyError
                with suppress(KeyError), atomic():
                    airlock.enqueue(ran.append, "rolled back")
                    raise KeyError
                airlock.enqueue(ran.append, "autocommit")
                assert ran == []
            assert ran == ["committed", "autocommit"]
            assert len(scope.rolled_back_intents) == 2

    run(Tests)
    assert ran == ["committed", "autocommit"]


def test_scope_inside_a_transaction_waits_for_the_end_of_it_as_in_production(run, any_test_case, ran):
    class Tests(any_test_case):
        def test(self):
            with atomic():
                with atomic(), airlock.scope():
                    airlock.enqueue(ran.append, 1)
                assert ran == []
            assert ran == [1]

    run(Tests)
    assert ran == [1]


def test_scope_around_a_whole_test_has_its_effects_in_autocommit(run, any_test_case, ran):
    class Tests(any_test_case):
        def setUp(self):
            scope = airlock.scope()
            scope.__enter__()
            self.addCleanup(scope.__exit__, None, None, None)

        def test(self):
            airlock.enqueue(ran.append, 1)

    run(Tests)
    assert ran == [1]


def test_what_class_fixtures_enqueue_goes_out_at_the_end_of_their_scope(run, ran):
    class Tests(TestCase):
        @classmethod
        def setUpTestData(cls):
            with airlock.scope(), atomic():
                airlock.enqueue(ran.append, 1)

        def test(self):
            assert ran == [1]

    run(Tests)
    assert ran == [1]


def test_captured_on_commit_callbacks_execute_once_and_so_do_effects(run, ran):
    class Tests(TestCase):
        def test(self):
            with self.captureOnCommitCallbacks(execute=True) as callbacks, atomic():
                transaction.on_commit(callback)
                with airlock.scope():
                    airlock.enqueue(ran.append, "effect")
            assert callback in callbacks
            assert sorted(ran) == ["callback", "effect"]
            for again in callbacks:
                again()
            assert sorted(ran) == ["callback", "callback", "effect"]

    def callback():
        ran.append("callback")

    run(Tests)
    assert len(ran) == 3


def test_executing_captured_callbacks_lets_only_the_effects_go_that_were_captured(run, ran):
    class Tests(TestCase):
        def test(self):
            with atomic():
                with airlock.scope():
                    airlock.enqueue(ran.append, "before")
                with self.captureOnCommitCallbacks(execute=True), atomic(), airlock.scope():
                    airlock.enqueue(ran.append, "captured")
                assert ran == ["captured"]
            assert ran == ["captured", "before"]

    run(Tests)
    assert len(ran) == 2


def test_effect_of_a_scope_in_a_captured_on_commit_callback_goes_out(run, ran):
    def callback():
        with airlock.scope(), atomic():
            airlock.enqueue(ran.append, "effect")

    class Tests(TestCase):
        def test(self):
            with self.captureOnCommitCallbacks(execute=True), atomic():
                transaction.on_commit(callback)
            assert ran == ["effect"]

    run(Tests)
    assert ran == ["effect"]


def test_where_nothing_is_enqueued_in_a_transaction_only_the_callbacks_of_others_are_captured(run, ran):
    class Tests(TestCase):
        def test(self):
            with self.captureOnCommitCallbacks() as callbacks, airlock.scope():
                airlock.enqueue(ran.append, "before")
                with atomic():
                    transaction.on_commit(ran.clear)
            assert callbacks == [ran.clear]
            with self.captureOnCommitCallbacks() as callbacks, atomic(), airlock.scope():
                pass
            assert callbacks == []

    run(Tests)
    assert ran == ["before"]


def test_callbacks_that_a_test_runs_by_hand_do_not_double_the_effects(run, ran):
    """As tests did before Django had `captureOnCommitCallbacks`."""

    class Tests(TestCase):
        def test(self):
            with atomic():
                with airlock.scope():
                    airlock.enqueue(ran.append, 1)
                with mock.patch.object(BaseDatabaseWrapper, "validate_no_atomic_block"):
                    transaction.get_connection().run_and_clear_commit_hooks()
                assert ran == [1]
            assert ran == [1]

    run(Tests)
    assert ran == [1]


@pytest.mark.parametrize("execute", [True, False])
def test_effects_need_no_execution_of_captured_callbacks(run, ran, execute):
    class Tests(TestCase):
        def test(self):
            with self.captureOnCommitCallbacks(execute=execute):
                with airlock.scope(), atomic():
                    airlock.enqueue(ran.append, 1)
                assert ran == [1]

    run(Tests)
    assert ran == [1]


def test_effect_of_a_signal_handler_of_delete_goes_out(run, any_test_case, ran):
    """Django itself runs these in a block without a savepoint."""

    def handler(sender, instance, **_):
        airlock.enqueue(ran.append, instance.session_key)

    class Tests(any_test_case):
        def test(self):
            Session.objects.create(session_key="a", expire_date=timezone.now())
            with airlock.scope():
                Session.objects.all().delete()
            assert ran == ["a"]

    post_delete.connect(handler, sender=Session)
    try:
        run(Tests)
    finally:
        post_delete.disconnect(handler, sender=Session)
    assert ran == ["a"]


def test_block_without_a_savepoint_that_raises_has_no_effects(run, any_test_case, ran):
    class Tests(any_test_case):
        def test(self):
            with airlock.scope() as scope, suppress(KeyError), atomic(savepoint=False):
                airlock.enqueue(ran.append, 1)
                raise KeyError
            assert ran == []
            assert len(scope.rolled_back_intents) == 1

    run(Tests)
    assert ran == []


def test_test_case_leaves_nothing_of_ours_on_the_connection(run, ran):
    class Tests(TestCase):
        def test_committed(self):
            with airlock.scope(), atomic():
                airlock.enqueue(ran.append, 1)

        def test_rolled_back(self):
            with airlock.scope(), suppress(KeyError), atomic():
                airlock.enqueue(ran.append, 2)
                raise KeyError

        def test_without_savepoint(self):
            with airlock.scope(), atomic(savepoint=False):
                airlock.enqueue(ran.append, 3)

        def test_scope_inside_of_a_block_without_savepoint(self):
            with atomic(savepoint=False), airlock.scope():
                airlock.enqueue(ran.append, 4)

    before = set(vars(connections["default"]))
    run(Tests)

    assert set(vars(connections["default"])) == before
