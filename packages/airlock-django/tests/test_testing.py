"""In the tests of a project, a scope does what it does in production, as far as Django's own callbacks do."""

import sys
import unittest
from contextlib import nullcontext

import pytest
from django.contrib.sessions.models import Session
from django.db import connections, transaction
from django.db.models.signals import post_delete
from django.db.transaction import atomic
from django.http import HttpResponse
from django.test import Client, TestCase, TransactionTestCase
from django.urls import path
from django.utils import timezone

import airlock

any_test_case = pytest.mark.parametrize("test_case", [TestCase, TransactionTestCase], ids=lambda cls: cls.__name__)


@pytest.fixture
def run(database, django_db_blocker):
    """Runs a function as the test of a test case, as Django's own test runner does."""

    def run(test, test_case=TestCase, **others):
        cls = type("Tests", (test_case,), {"test": test, **others})
        result = unittest.TestResult()
        with django_db_blocker.unblock():
            unittest.defaultTestLoader.loadTestsFromTestCase(cls).run(result)
        assert result.testsRun == 1
        assert result.wasSuccessful(), "\n".join(text for _, text in result.errors + result.failures)

    return run


@any_test_case
def test_scope_around_transactions_dispatches_as_in_production(run, test_case, ran, rolled_back):
    def test(self):
        with airlock.scope() as scope:
            with atomic():
                airlock.enqueue(ran.append, "committed")
                with rolled_back():
                    airlock.enqueue(ran.append, "savepoint")
            with rolled_back():
                airlock.enqueue(ran.append, "rolled back")
            airlock.enqueue(ran.append, "autocommit")
        assert len(scope.rolled_back_intents) == 2

    run(test, test_case)
    assert ran == ["committed", "autocommit"]


@any_test_case
def test_block_without_a_savepoint_that_raises_has_no_effects(run, test_case, ran, rolled_back):
    def test(self):
        with airlock.scope() as scope, rolled_back(savepoint=False):
            airlock.enqueue(ran.append, 1)
        assert len(scope.rolled_back_intents) == 1

    run(test, test_case)
    assert ran == []


@any_test_case
def test_effect_of_a_signal_handler_of_delete_goes_out(run, test_case, ran):
    """Django itself runs these in a block without a savepoint."""

    def handler(sender, instance, **_):
        airlock.enqueue(ran.append, instance.session_key)

    def test(self):
        Session.objects.create(session_key="a", expire_date=timezone.now())
        with airlock.scope():
            Session.objects.all().delete()

    post_delete.connect(handler, sender=Session)
    try:
        run(test, test_case)
    finally:
        post_delete.disconnect(handler, sender=Session)
    assert ran == ["a"]


@any_test_case
def test_scope_around_a_whole_test_has_its_effects_in_autocommit(run, test_case, ran):
    def set_up(self):
        scope = airlock.scope()
        scope.__enter__()
        self.addCleanup(scope.__exit__, None, None, None)

    def test(self):
        airlock.enqueue(ran.append, 1)

    run(test, test_case, setUp=set_up)
    assert ran == [1]


def test_class_fixtures_have_their_effects_at_the_end_of_their_scope(run, ran):
    def set_up_test_data(cls):
        with airlock.scope(), atomic():
            airlock.enqueue(ran.append, 1)

    run(lambda self: None, setUpTestData=classmethod(set_up_test_data))
    assert ran == [1]


# captureOnCommitCallbacks


def test_scope_inside_a_transaction_waits_for_captured_callbacks(run, ran):
    def test(self):
        with self.captureOnCommitCallbacks(execute=True):
            with atomic(), airlock.scope():
                airlock.enqueue(ran.append, 1)
            assert ran == []
        assert ran == [1]

    run(test)


def test_without_captured_callbacks_a_scope_inside_never_dispatches(run, ran):
    def test(self):
        with self.captureOnCommitCallbacks(), atomic(), airlock.scope() as scope:
            intent = airlock.enqueue(ran.append, 1)
        assert scope.undispatched_intents == [intent]

    run(test)
    assert ran == []


@pytest.mark.parametrize("savepoint", [True, False])
def test_scope_inside_a_block_that_is_rolled_back_never_dispatches(run, ran, rolled_back, savepoint):
    def test(self):
        with self.captureOnCommitCallbacks(execute=True), rolled_back(savepoint=savepoint), airlock.scope():
            airlock.enqueue(ran.append, 1)

    run(test)
    assert ran == []


def test_captured_callbacks_that_run_twice_have_each_effect_once(run, ran):
    def test(self):
        with self.captureOnCommitCallbacks(execute=True) as callbacks, atomic():
            transaction.on_commit(lambda: ran.append("callback"))
            with airlock.scope():
                airlock.enqueue(ran.append, "effect")
        for again in callbacks:
            again()

    run(test)
    assert sorted(ran) == ["callback", "callback", "effect"]


def test_only_the_effects_that_were_captured_go_out(run, ran):
    def test(self):
        with atomic(), airlock.scope():
            airlock.enqueue(ran.append, "before")
        with self.captureOnCommitCallbacks(execute=True), atomic(), airlock.scope():
            airlock.enqueue(ran.append, "captured")

    run(test)
    assert ran == ["captured"]


def test_callbacks_of_others_alone_are_counted_under_a_scope_around(run, ran):
    def test(self):
        with self.captureOnCommitCallbacks() as callbacks, airlock.scope(), atomic():
            airlock.enqueue(ran.append, "effect")
            transaction.on_commit(ran.clear)
        assert callbacks == [ran.clear]

    run(test)
    assert ran == ["effect"]


@pytest.mark.parametrize("inside", [nullcontext, atomic], ids=["all in one", "after its savepoint"])
def test_scope_inside_a_transaction_counts_as_one_callback(run, inside):
    def test(self):
        with self.captureOnCommitCallbacks() as callbacks, atomic(), airlock.scope(), inside():
            airlock.enqueue(abs, 1)
            airlock.enqueue(abs, 2)
        assert [repr(callback) for callback in callbacks] == ["<Marker on 'default': open>"]

    run(test)


def test_transaction_without_effects_leaves_no_callback(run):
    def test(self):
        with self.captureOnCommitCallbacks() as callbacks, atomic(), airlock.scope():
            pass
        assert callbacks == []

    run(test)


def test_enqueue_in_a_captured_callback_of_a_request_goes_out(run, ran, settings):
    def view(request):
        with atomic():
            transaction.on_commit(lambda: airlock.enqueue(ran.append, "effect"))
        return HttpResponse()

    def test(self):
        with self.captureOnCommitCallbacks(execute=True):
            Client().get("/")

    settings.ROOT_URLCONF = (path("", view),)
    run(test)
    assert ran == ["effect"]


def test_held_callback_of_a_rollback_does_nothing_at_the_next_commit(
    database, transactional_db, django_capture_on_commit_callbacks, ran, rolled_back
):
    with rolled_back(), django_capture_on_commit_callbacks() as held, airlock.scope():
        airlock.enqueue(ran.append, "rolled back")
    with atomic(), airlock.scope():
        airlock.enqueue(ran.append, "committed")

    assert ran == ["committed"]
    del held


def test_test_case_leaves_nothing_of_ours_on_the_connection(run, block):
    def test(self):
        with airlock.scope(), block():
            airlock.enqueue(abs, 1)
        with airlock.scope(), atomic(savepoint=False):
            airlock.enqueue(abs, 2)
        assert connections["default"].run_on_commit == []

    before = set(vars(connections["default"]))
    run(test)
    assert set(vars(connections["default"])) == before


if sys.version_info >= (3, 12):  # which django-subatomic needs
    from django_subatomic.db import transaction as subatomic_transaction

    def test_check_of_django_subatomic_finds_no_callback_of_ours(run, ran):
        """In a test it opens a transaction only where no callback waits."""

        def test(self):
            with airlock.scope(), subatomic_transaction():
                airlock.enqueue(ran.append, 1)
            with subatomic_transaction(), airlock.scope():
                airlock.enqueue(ran.append, 2)
            with subatomic_transaction():
                pass

        run(test)
        assert ran == [1, 2]


def test_effect_outside_of_scopes_is_warned_of_while_callbacks_wait(run, ran, log):
    def test(self):
        transaction.on_commit(lambda: None)
        airlock.enqueue(ran.append, 1)

    run(test)
    assert ran == [1]
    (record,) = [record for record in log.records if record.levelname == "WARNING"]
    assert "will raise NoScopeError in production" in record.getMessage()
