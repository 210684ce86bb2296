"""Executors that prepare what is enqueued, and forget what will not be dispatched."""

from contextlib import contextmanager, suppress
from contextvars import ContextVar

import pytest

import airlock
from airlock.ext import fates_of, open_fates, refresh_fates, register_fates


class Unit:
    """A transaction."""

    def __init__(self):
        self.state = "open"
        self.transaction = self
        self.waiting = []

    def when_over(self, tell):
        self.waiting.append(tell)


class Units:
    def __init__(self):
        self.open = []
        self.refreshed = []

    def open_fates(self):
        return tuple(self.open)

    def refresh(self, fates):
        self.refreshed += fates

    @contextmanager
    def unit(self, end="kept"):
        unit = Unit()
        self.open.append(unit)
        yield unit
        self.open.remove(unit)
        unit.state = end
        for tell in unit.waiting:
            tell()


units = Units()


@pytest.fixture(scope="module", autouse=True)
def _registered():
    register_fates(units)


class Storing:
    """An executor that notes what it is asked to do."""

    def __init__(self):
        self.prepared = []
        self.forgotten = []
        self.rolled_back = []
        self.rolled_back = []
        self.dispatched = []

    def prepare(self, intent, fates):
        if intent.args == ("unstorable",):
            raise ValueError("unstorable")
        self.prepared.append((intent, fates))
        return f"stored {intent.args[0]}"

    def forget(self, intents, rolled_back):
        (self.rolled_back if rolled_back else self.forgotten).extend(intent.args[0] for intent in intents)

    def __call__(self, intent):
        self.dispatched.append((intent.args[0], intent.prepared))


@pytest.fixture
def executor():
    return Storing()


def test_what_prepare_returns_is_on_the_intent(executor):
    with airlock.scope(executor=executor):
        intent = airlock.enqueue(print, 1)
        assert intent.prepared == "stored 1"
        assert executor.prepared == [(intent, ())]

    assert executor.dispatched == [(1, "stored 1")]
    assert executor.forgotten == []


def test_without_prepare_nothing_is_prepared(ran):
    with airlock.scope():
        assert airlock.enqueue(ran.append, 1).prepared is None


def test_name_and_options_are_there_when_it_is_prepared(executor):
    with airlock.scope(executor=executor):
        intent = airlock.enqueue(print, 1, _name="shout", _dispatch_options={"loud": True})
        assert (intent.name, dict(intent.dispatch_options), intent.prepared) == ("shout", {"loud": True}, "stored 1")


def test_what_was_prepared_is_freed_when_it_is_dispatched_or_dropped(executor):
    with airlock.scope(executor=executor):
        dispatched = airlock.enqueue(print, 1)
    with suppress(KeyError), airlock.scope(executor=executor):
        dropped = airlock.enqueue(print, 2)
        raise KeyError

    assert dispatched.prepared is dropped.prepared is None


def test_it_is_prepared_in_the_context_of_the_enqueue_call(executor, monkeypatch):
    tenant = ContextVar("tenant", default=None)
    monkeypatch.setattr(executor, "prepare", lambda intent, fates: tenant.get())
    with airlock.scope(executor=executor):
        tenant.set("acme")
        assert airlock.enqueue(print, 1).prepared == "acme"


def test_executor_of_the_outermost_scope_prepares(executor):
    other = Storing()
    with airlock.scope(executor=executor), airlock.scope(executor=other):
        airlock.enqueue(print, 1)

    assert other.prepared == []
    assert executor.dispatched == [(1, "stored 1")]


def test_what_cannot_be_prepared_was_not_enqueued(executor):
    with airlock.scope(executor=executor) as scope:
        with pytest.raises(ValueError, match="unstorable"):
            airlock.enqueue(print, "unstorable")
        assert scope.intents == []

    assert executor.dispatched == executor.forgotten == []


def test_what_a_policy_refuses_is_not_prepared(executor):
    with airlock.scope(airlock.AssertNoEffects(), executor=executor), pytest.raises(airlock.PolicyViolation):
        airlock.enqueue(print, 1)

    assert executor.prepared == []


def test_it_is_told_what_the_intent_hangs_on(executor):
    with airlock.scope(executor=executor), units.unit() as unit:
        intent = airlock.enqueue(print, 1)

    assert executor.prepared == [(intent, (unit,))]


def test_intents_of_a_detached_block_hang_on_nothing(executor):
    with airlock.scope(executor=executor), units.unit(), airlock.detached():
        airlock.enqueue(print, 1)

    assert [fates for _, fates in executor.prepared] == [()]


def test_discarded_intents_are_forgotten(executor):
    with suppress(KeyError), airlock.scope(executor=executor):
        airlock.enqueue(print, 1)
        airlock.enqueue(print, 2)
        raise KeyError

    assert executor.forgotten == [1, 2]
    assert executor.dispatched == []


def test_intents_of_a_discarded_nested_scope_are_forgotten_by_who_prepared_them(executor):
    other = Storing()
    with airlock.scope(executor=executor), suppress(KeyError), airlock.scope(executor=other):
        airlock.enqueue(print, 1)
        raise KeyError

    assert (executor.forgotten, other.forgotten) == ([1], [])


def test_what_a_policy_drops_is_forgotten(executor):
    with airlock.scope(airlock.BlockTasks({"print"}), executor=executor):
        airlock.enqueue(print, 1)
        airlock.enqueue(max, 2)

    assert executor.forgotten == [1]
    assert executor.dispatched == [(2, "stored 2")]


def test_what_was_rolled_back_is_forgotten(executor):
    with airlock.scope(executor=executor):
        with units.unit(end="gone"):
            airlock.enqueue(print, 1)
        with units.unit():
            airlock.enqueue(print, 2)

    assert (executor.forgotten, executor.rolled_back) == ([], [1])
    assert executor.dispatched == [(2, "stored 2")]


def test_what_is_rolled_back_after_the_flush_is_forgotten(executor):
    with units.unit(end="gone"), airlock.scope(executor=executor):
        airlock.enqueue(print, 1)

    assert (executor.forgotten, executor.rolled_back) == ([], [1])


def test_executor_without_forget_is_not_told(ran):
    with suppress(KeyError), airlock.scope(executor=ran.append):
        airlock.enqueue(print, 1)
        raise KeyError

    assert ran == []


def test_scope_can_ask_what_is_open_and_what_became_of_it():
    assert open_fates() == ()
    with units.unit() as unit:
        assert open_fates() == (unit,)
    units.refreshed.clear()
    refresh_fates([unit])
    refresh_fates([])

    assert units.refreshed == [unit]


def test_everybody_can_ask_what_an_intent_hangs_on():
    with airlock.scope(), units.unit() as unit:
        tied = airlock.enqueue(print, 1)
        with airlock.detached():
            detached = airlock.enqueue(print, 2)

    assert (fates_of(tied), fates_of(detached)) == ((unit,), ())
