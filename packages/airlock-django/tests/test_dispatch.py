"""Dispatch after the commit: it is too late to fail, so what fails is logged, and the others still go."""

import contextvars
import logging
from contextlib import contextmanager, suppress

import pytest
from django.db.transaction import atomic
from django.utils import translation

import airlock
from airlock.integrations.django import DjangoScope

pytestmark = pytest.mark.django_db(transaction=True)


class Fussy:
    """An executor that fails on the intents named `bad`."""

    def __init__(self, error):
        self.error = error
        self.given = []

    def __call__(self, intent):
        self.given.append(intent.args[0])
        if intent.name == "bad":
            raise self.error


class Crate(Fussy):
    """The same, for several at a time: it stops at the first that fails."""

    def dispatch_many(self, intents):
        outcomes = []
        for intent in intents:
            self.given.append(intent.args[0])
            outcomes.append(self.error if intent.name == "bad" else None)
            if outcomes[-1]:
                break
        return outcomes


either_way = pytest.mark.parametrize("executor_cls", [Fussy, Crate])


@pytest.fixture(params=["autocommit", "scope around", "scope inside"])
def enqueued(request):
    """A function that enqueues good (1), bad (2), good (3), bad (4), and flushes and commits; it returns the scope."""

    def enqueue_all():
        for number, name in enumerate(["good", "bad", "good", "bad"], 1):
            airlock.enqueue(abs, number, _name=name, _origin=f"views.py:{number}")

    def enqueued(**arguments):
        scope = airlock.scope(**arguments)
        if request.param == "autocommit":
            with scope:
                enqueue_all()
        elif request.param == "scope around":
            with scope, atomic():
                enqueue_all()
        else:
            with atomic(), scope:
                enqueue_all()
        return scope

    return enqueued


@either_way
def test_failing_dispatch_does_not_keep_the_others_from_going(enqueued, executor_cls):
    executor = executor_cls(ValueError("broken"))
    scope = enqueued(executor=executor)

    assert executor.given == [1, 2, 3, 4]
    assert [intent.args for intent in scope.dispatched_intents] == [(1,), (3,)]
    assert [intent.args for intent in scope.undispatched_intents] == [(2,), (4,)]


@either_way
def test_failing_dispatch_is_logged_with_name_id_and_origin(enqueued, log, executor_cls):
    error = ValueError("broken")
    scope = enqueued(executor=executor_cls(error))

    assert len(log.records) == 2
    for record, intent in zip(log.records, scope.undispatched_intents, strict=True):
        assert (record.name, record.levelno) == ("airlock", logging.ERROR)
        assert record.getMessage() == f"bad (id {intent.id}, enqueued at {intent.origin}) was not dispatched"
        assert record.exc_info[1] is error


@either_way
def test_dispatch_errors_raise_the_first_after_all_were_tried(settings, enqueued, executor_cls):
    settings.AIRLOCK = {"DISPATCH_ERRORS": "raise"}
    executor = executor_cls(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        enqueued(executor=executor)

    assert executor.given == [1, 2, 3, 4]


@either_way
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_interrupt_during_dispatch_stops_it_and_propagates(error, executor_cls):
    executor = executor_cls(error)
    scope = airlock.scope(executor=executor)
    with pytest.raises(type(error)), scope:
        for number, name in enumerate(["good", "bad", "good"]):
            airlock.enqueue(abs, number, _name=name)

    assert executor.given == [0, 1]
    assert [intent.args for intent in scope.undispatched_intents] == [(1,), (2,)]


def test_dispatch_of_unknown_outcome_is_logged_as_such(enqueued, log):
    class Losing(Crate):
        def dispatch_many(self, intents):
            return [airlock.OutcomeUnknown(self.error)] * len(intents)

    scope = enqueued(executor=Losing(ConnectionError()))

    assert scope.unknown_intents == scope.undispatched_intents == scope.intents
    assert [record.getMessage().count("nobody can tell") for record in log.records] == [1] * 4


def test_override_of_dispatch_all_chooses_the_order_and_keeps_the_promises(ran):
    class Backwards(DjangoScope):
        def dispatch_all(self, intents):
            super().dispatch_all(intents[::-1])

    with Backwards():
        airlock.enqueue(ran.append, 1)
        with suppress(KeyError), atomic():
            airlock.enqueue(ran.append, 2)
            raise KeyError
        airlock.enqueue(ran.append, 3)

    assert ran == [3, 1]


def test_effects_are_in_no_scope_also_when_the_commit_comes_in_one(ran):
    with atomic():
        with airlock.scope():
            airlock.enqueue(lambda: ran.append(airlock.get_current_scope()))
        later = airlock.scope()
        later.enter()
    later.exit()
    later.discard()

    assert ran == [None]


def test_effect_speaks_the_language_it_was_asked_for_in(ran):
    with airlock.scope(), translation.override("de"), atomic():
        airlock.enqueue(lambda: ran.append(translation.get_language()))

    assert ran == ["de"]


def test_carrier_of_the_setting_brings_the_tenant_along(settings, ran):
    def carries_tenant():
        return tenant_is(connection_tenant[-1])

    @contextmanager
    def tenant_is(name):
        connection_tenant.append(name)
        yield
        connection_tenant.pop()

    connection_tenant = ["public"]
    settings.AIRLOCK = {"CARRIERS": [carries_tenant]}
    with airlock.scope(), tenant_is("acme"), atomic():
        airlock.enqueue(lambda: ran.append(connection_tenant[-1]))

    assert ran == ["acme"]


def test_context_of_an_effect_that_waits_for_a_commit_is_its_own(ran):
    request_id = contextvars.ContextVar("request_id")
    with atomic():
        with airlock.scope():
            request_id.set(1)
            airlock.enqueue(lambda: ran.append(request_id.get()))
        request_id.set(2)

    assert ran == [1]


# The log of what did not go out


def test_discarded_intents_are_in_the_log_in_one_line(log):
    with suppress(KeyError), airlock.scope():
        airlock.enqueue(abs, 1, _name="send_receipt")
        airlock.enqueue(abs, 1, _name="notify")
        raise KeyError

    (record,) = log.records
    assert record.levelname == "INFO"
    assert "send_receipt, notify: discarded, because KeyError was raised" in record.getMessage()


def test_intents_a_policy_drops_are_in_the_log(log):
    with airlock.scope(airlock.BlockTasks(["send_receipt"])):
        airlock.enqueue(abs, 1, _name="send_receipt")
        airlock.enqueue(abs, 1)

    (record,) = log.records
    assert "send_receipt: dropped by BlockTasks" in record.getMessage()


# Detached


def test_detached_goes_out_whatever_becomes_of_the_transaction(ran):
    with airlock.scope(), suppress(KeyError), atomic():
        airlock.enqueue(ran.append, "transaction")
        with airlock.detached() as detached, atomic():
            intent = airlock.enqueue(ran.append, "detached")
        assert ran == ["detached"]
        raise KeyError

    assert ran == ["detached"]
    assert detached.dispatched_intents == [intent]


def test_detached_block_that_raises_discards(ran):
    with suppress(KeyError), airlock.scope(), airlock.detached():
        airlock.enqueue(ran.append, 1)
        raise KeyError

    assert ran == []


def test_scopes_inside_of_a_detached_block_are_captured_by_it(ran):
    with airlock.scope(), atomic():
        with airlock.detached():
            with airlock.scope():
                airlock.enqueue(ran.append, 1)
            assert ran == []
        assert ran == [1]


def test_detached_block_outside_of_any_scope_goes_by_the_setting(settings, ran):
    settings.AIRLOCK = {"EXECUTOR": lambda intent: ran.append(intent.name)}
    with suppress(KeyError), atomic():
        with airlock.detached():
            airlock.enqueue(abs, 1)
        raise KeyError

    assert ran == ["abs"]


def test_failing_dispatch_of_a_detached_block_is_logged(ran, log):
    with airlock.scope(), airlock.detached(), atomic():
        airlock.enqueue(int, "no number")
        airlock.enqueue(ran.append, 1)

    assert ran == [1]
    assert [record.levelname for record in log.records] == ["ERROR"]
