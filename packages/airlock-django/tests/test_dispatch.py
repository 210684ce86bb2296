"""Dispatch after the commit: it is too late to fail, so what fails is logged, and the others still go."""

from contextlib import contextmanager

import pytest
from django.db.transaction import atomic
from django.utils import translation

import airlock

pytestmark = pytest.mark.django_db(transaction=True)


class Fussy:
    """An executor that fails on the intents named `bad`."""

    error = ValueError("broken")

    def __init__(self):
        self.given = []

    def __call__(self, intent):
        self.given.append(intent.args[0])
        if intent.name == "bad":
            raise self.error


def enqueue_all():
    for number, name in enumerate(["good", "bad", "good", "bad"], 1):
        airlock.enqueue(abs, number, _name=name, _origin=f"views.py:{number}")


def test_failing_dispatch_does_not_keep_the_others_from_going(boundary):
    executor = Fussy()
    with boundary(executor=executor) as scope:
        enqueue_all()

    assert executor.given == [1, 2, 3, 4]
    assert [intent.args for intent in scope.dispatched_intents] == [(1,), (3,)]
    assert [intent.args for intent in scope.undispatched_intents] == [(2,), (4,)]


def test_failing_dispatch_is_logged_with_name_id_and_origin(boundary, log):
    with boundary(executor=Fussy()) as scope:
        enqueue_all()

    assert len(log.records) == 2
    for record, intent in zip(log.records, scope.undispatched_intents, strict=True):
        assert (record.name, record.levelname) == ("airlock", "ERROR")
        assert record.getMessage() == f"bad (id {intent.id}, enqueued at {intent.origin}) was not dispatched"
        assert record.exc_info[1] is Fussy.error


def test_dispatch_errors_raise_the_first_after_all_were_tried(settings, boundary):
    settings.AIRLOCK = {"DISPATCH_ERRORS": "raise"}
    executor = Fussy()
    with pytest.raises(ValueError, match="broken"), boundary(executor=executor):
        enqueue_all()

    assert executor.given == [1, 2, 3, 4]


# What surrounds an effect


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
    @contextmanager
    def tenant_is(name):
        tenants.append(name)
        yield
        tenants.pop()

    tenants = ["public"]
    settings.AIRLOCK = {"CARRIERS": [lambda: tenant_is(tenants[-1])]}
    with airlock.scope(), tenant_is("acme"), atomic():
        airlock.enqueue(lambda: ran.append(tenants[-1]))

    assert ran == ["acme"]


# Detached


def test_detached_goes_out_whatever_becomes_of_the_transaction(ran, block):
    with airlock.scope(), block():
        with airlock.detached() as detached, atomic():
            intent = airlock.enqueue(ran.append, "detached")
        assert ran == ["detached"]

    assert detached.dispatched_intents == [intent]


def test_detached_block_outside_of_any_scope_goes_by_the_setting(settings, ran):
    settings.AIRLOCK = {"EXECUTOR": lambda intent: ran.append(intent.name)}
    with airlock.detached():
        airlock.enqueue(abs, 1)

    assert ran == ["abs"]


def test_failing_dispatch_of_a_detached_block_is_logged(ran, log):
    with airlock.scope(), airlock.detached(), atomic():
        airlock.enqueue(int, "no number")
        airlock.enqueue(ran.append, 1)

    assert ran == [1]
    assert [record.levelname for record in log.records] == ["ERROR"]
