"""`airlock.testing` in Django's test cases, with its transactions, clients and servers."""

import unittest
from urllib.request import urlopen

import pytest
from django.db.transaction import atomic
from django.http import HttpResponse
from django.test import AsyncClient, Client, LiveServerTestCase, TestCase, TransactionTestCase
from django.urls import path

import airlock
from airlock.testing import EffectsMixin

any_test_case = pytest.mark.parametrize("test_case", [TestCase, TransactionTestCase], ids=lambda cls: cls.__name__)


def notify(order_id): ...


def fail(order_id):
    raise ConnectionError("no mail server")


def view(request):
    with atomic():
        airlock.enqueue(fail if "fail" in request.GET else notify, 42)
    return HttpResponse(status=402 if "declined" in request.GET else 200)


@pytest.fixture
def run(database, django_db_blocker, settings):
    """Runs a function as the test of a test case with effects, as Django's own test runner does. Returns the result."""
    settings.ROOT_URLCONF = (path("", view),)

    def run(test, test_case=TestCase, **others):
        cls = type("Tests", (EffectsMixin, test_case), {"test": test, **others})
        result = unittest.TestResult()
        with django_db_blocker.unblock():
            unittest.TestSuite([unittest.defaultTestLoader.loadTestsFromTestCase(cls)]).run(result)
        assert result.testsRun == 1
        return result

    return run


@pytest.fixture
def passes(run):
    """Runs a test like `run`, and it has to pass."""

    def passes(*args, **kwargs):
        result = run(*args, **kwargs)
        assert result.wasSuccessful(), "\n".join(text for _, text in result.errors + result.failures)

    return passes


# Test cases


@any_test_case
def test_effects_of_a_request_are_known(passes, test_case):
    def test(self):
        self.client.get("/")
        self.airlock_effects.assert_enqueued(notify, 42)

    passes(test, test_case)


@any_test_case
def test_a_declined_request_says_why_it_has_none(passes, test_case):
    def test(self):
        self.client.get("/?declined")
        self.airlock_effects.assert_nothing_enqueued()
        with pytest.raises(AssertionError, match=r"discarded, because the response has the status 402\.$"):
            self.airlock_effects.assert_enqueued(notify, 42)

    passes(test, test_case)


@any_test_case
def test_what_is_rolled_back_does_not_count_and_says_so(passes, test_case, rolled_back):
    def test(self):
        with airlock.scope():
            with rolled_back():
                airlock.enqueue(notify, 42)
                assert len(self.airlock_effects) == 1
            self.airlock_effects.assert_nothing_enqueued()
            with pytest.raises(AssertionError, match=r"and rolled back with the (savepoint|transaction) .*'default'"):
                self.airlock_effects.assert_enqueued(notify)
        self.airlock_effects.assert_nothing_enqueued()

    passes(test, test_case)


@any_test_case
def test_a_scope_inside_a_rolled_back_transaction_does_not_count(passes, test_case, rolled_back):
    def test(self):
        with rolled_back(), airlock.scope():
            airlock.enqueue(notify, 42)
        self.airlock_effects.assert_nothing_enqueued()

    passes(test, test_case)


@any_test_case
def test_a_scope_that_flushes_in_a_rolled_back_transaction_does_not_count(passes, test_case, rolled_back):
    def test(self):
        scope = airlock.scope()
        scope.enter()
        airlock.enqueue(notify, 42)
        scope.exit()
        with rolled_back():
            scope.flush()
        self.airlock_effects.assert_nothing_enqueued()

    passes(test, test_case)


def test_a_scope_inside_a_transaction_counts_without_captured_callbacks(passes, ran):
    def test(self):
        with atomic(), airlock.scope():
            airlock.enqueue(ran.append, 42)
        self.airlock_effects.assert_enqueued(ran.append, 42)

    passes(test)
    assert ran == []


def test_captured_callbacks_run_effects(passes, ran):
    def test(self):
        with self.captureOnCommitCallbacks(execute=True):
            with atomic(), airlock.scope():
                airlock.enqueue(ran.append, 42)
            assert ran == []
        assert ran == [42]
        self.airlock_effects.assert_enqueued(ran.append, 42)

    passes(test, airlock_run=True)


def test_captured_callbacks_collect_effects(passes, ran):
    def test(self):
        with self.captureOnCommitCallbacks(execute=True), atomic(), airlock.scope():
            airlock.enqueue(ran.append, 42)
        self.airlock_effects.assert_enqueued(ran.append, 42)

    passes(test)
    assert ran == []


def test_a_transaction_test_case_runs_effects_after_the_commit(passes, ran):
    def test(self):
        with atomic(), airlock.scope():
            airlock.enqueue(ran.append, 42)
        assert ran == [42]

    passes(test, TransactionTestCase, airlock_run=True)


def test_a_live_server_has_its_effects_in_its_thread(passes):
    def test(self):
        with urlopen(self.live_server_url) as response:
            assert response.status == 200
        self.airlock_effects.assert_enqueued(notify, 42)

    passes(test, LiveServerTestCase)


def test_async_tests_have_their_effects(passes):
    async def test(self):
        await self.async_client.get("/")
        self.airlock_effects.assert_enqueued(notify, 42)

    passes(test)


def test_a_task_that_raises_fails_the_test_of_a_request(run):
    def test(self):
        assert self.client.get("/?fail").status_code == 200

    ((_, text),) = run(test, airlock_run=True).errors
    assert "ConnectionError: no mail server" in text
    assert "fail(42), enqueued at" in text


# pytest


@pytest.fixture
def shop(settings):
    settings.ROOT_URLCONF = (path("", view),)


@pytest.mark.django_db
def test_fixture_knows_the_effects_of_a_request(shop, airlock_effects):
    Client().get("/")
    airlock_effects.assert_enqueued(notify, 42)


@pytest.mark.django_db
async def test_fixture_knows_the_effects_of_an_async_test(shop, airlock_effects):
    await AsyncClient().get("/")
    airlock_effects.assert_enqueued(notify, 42)


@pytest.mark.django_db(transaction=True)
def test_fixture_knows_what_was_committed(airlock_effects):
    with atomic(), airlock.scope():
        airlock.enqueue(notify, 42)
    airlock_effects.assert_enqueued(notify, 42)


@pytest.mark.django_db
@pytest.mark.airlock(run=True)
def test_captured_callbacks_of_pytest_django_run_effects(ran, airlock_effects, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        with atomic(), airlock.scope():
            airlock.enqueue(ran.append, 42)
        assert ran == []
    assert ran == [42]
    airlock_effects.assert_enqueued(ran.append, 42)


@pytest.mark.django_db(transaction=True)
def test_live_server_of_pytest_django_has_its_effects(shop, live_server, airlock_effects):
    with urlopen(live_server.url):
        airlock_effects.assert_enqueued(notify, 42)


@pytest.mark.airlock
def test_settings_decide_as_ever(settings, airlock_effects):
    settings.AIRLOCK = {"POLICY": airlock.BlockTasks({"notify"})}
    with airlock.scope():
        airlock.enqueue(notify, 42)
    with pytest.raises(AssertionError, match="dropped by BlockTasks"):
        airlock_effects.assert_enqueued(notify, 42)
