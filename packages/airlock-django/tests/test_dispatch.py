"""Dispatch after the commit: it is too late to fail, so what fails is logged, and the others still go."""

import logging
from contextlib import suppress

import pytest
from django.db.transaction import atomic

import airlock


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
    """The same, for several at a time: it stops at the first that fails.

    Args:
        error: what became of the intents named `bad`.
    """

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
def enqueued(request, on_database):
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
def test_failing_dispatch_does_not_keep_the_others_from_going(enqueued, log, executor_cls):
    executor = executor_cls(ValueError("broken"))
    scope = enqueued(executor=executor)

    assert executor.given == [1, 2, 3, 4]
    assert [intent.args for intent in scope.dispatched_intents] == [(1,), (3,)]
    assert [intent.args for intent in scope.undispatched_intents] == [(2,), (4,)]
    assert scope.rolled_back_intents == []


@either_way
def test_each_failing_dispatch_is_one_error_in_the_log_with_name_id_and_origin(enqueued, log, executor_cls):
    error = ValueError("broken")
    scope = enqueued(executor=executor_cls(error))

    assert len(log.records) == 2
    for record, intent in zip(log.records, scope.undispatched_intents, strict=True):
        assert (record.name, record.levelno) == ("airlock", logging.ERROR)
        assert record.getMessage() == f"bad (id {intent.id}, enqueued at {intent.origin}) was not dispatched"
        assert record.exc_info[1] is error


def test_failing_dispatch_of_an_intent_without_origin_says_how_to_get_one(on_database, log):
    with airlock.scope(executor=Fussy(ValueError())):
        airlock.enqueue(abs, 1, _name="bad")

    (record,) = log.records
    assert "CAPTURE_ORIGIN" in record.getMessage()


@either_way
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_interrupt_during_dispatch_stops_it_and_propagates(on_database, log, error, executor_cls):
    executor = executor_cls(error)
    scope = airlock.scope(executor=executor)
    with pytest.raises(type(error)), scope:
        for number, name in enumerate(["good", "bad", "good"]):
            airlock.enqueue(abs, number, _name=name)

    assert executor.given == [0, 1]
    assert [intent.args for intent in scope.undispatched_intents] == [(1,), (2,)]


def test_policy_that_raises_at_the_flush_propagates_and_nothing_is_dispatched(on_database, ran):
    class Broken(airlock.AllowAll):
        def allows(self, intent):
            if intent.args == (2,):
                raise ZeroDivisionError
            return True

    scope = airlock.scope(Broken())
    with pytest.raises(ZeroDivisionError), scope, atomic():
        intents = [airlock.enqueue(ran.append, number) for number in (1, 2, 3)]

    assert ran == []
    assert scope.undispatched_intents == intents


def test_override_of_dispatch_all_chooses_when_and_keeps_the_promises(on_database, ran, log):
    class Backwards(airlock.integrations.django.DjangoScope):
        def dispatch_all(self, intents):
            super().dispatch_all(intents[::-1])

    def fails():
        raise ValueError

    with Backwards() as scope:
        airlock.enqueue(ran.append, 1)
        failed = airlock.enqueue(fails)
        with suppress(KeyError), atomic():
            airlock.enqueue(ran.append, 2)
            raise KeyError
        airlock.enqueue(ran.append, 3)

    assert ran == [3, 1]
    assert scope.undispatched_intents == [failed]


def test_effects_are_in_no_scope_also_when_the_commit_comes_in_another_one(on_database, ran):
    def task():
        ran.append(airlock.get_current_scope())

    with atomic():
        with airlock.scope():
            airlock.enqueue(task)
        later = airlock.scope()
        later.enter()
    later.exit()
    later.discard()

    assert ran == [None]


# Executors that take several at a time


def test_dispatch_of_which_nobody_knows_whether_it_failed_is_logged_as_such(enqueued, log):
    lost = ConnectionError("lost")

    class Losing(Crate):
        def dispatch_many(self, intents):
            return [airlock.OutcomeUnknown(lost)] * len(intents)

    scope = enqueued(executor=Losing(None))

    assert scope.unknown_intents == scope.undispatched_intents == scope.intents
    assert [record.exc_info[1] for record in log.records] == [lost] * 4
    for record, intent in zip(log.records, scope.intents, strict=True):
        assert intent.id in record.getMessage()
        assert "nobody can tell" in record.getMessage()
