"""Whoever listens is told what becomes of every intent."""

import gc
import logging
import threading
import weakref
from contextvars import ContextVar

import pytest

import airlock
from airlock.ext import Event, change_context, is_heard, label_of, replace_executors, shown, subscribe, tell

colour = ContextVar("colour", default="none")


@pytest.fixture
def told():
    """Everything that was told, in the lists it was told in."""
    lists = []
    unsubscribe = subscribe(lambda events: lists.append(list(events)))
    yield lists
    unsubscribe()


def seen(told):
    return [[(event.kind, event.intent.name) for event in events] for events in told]


def refuse(intent):
    raise LookupError("no such queue")


# What is told


def test_what_goes_out_is_enqueued_and_dispatched_with_the_others_of_its_flush(told, ran):
    with airlock.scope():
        first = airlock.enqueue(ran.append, 1)
        second = airlock.enqueue(ran.append, 2)
    assert seen(told) == [
        [("enqueued", "append")],
        [("enqueued", "append")],
        [("dispatched", "append"), ("dispatched", "append")],
    ]
    assert [event.intent for event in told[2]] == [first, second]
    assert all(event.began > 0 for event in told[2])


def test_all_events_of_a_scope_have_its_label_and_no_other_scope_has_it(told):
    for _ in range(2):
        with airlock.scope() as scope:
            airlock.enqueue(int)
    labels = [event.scope for events in told for event in events]
    assert labels[0] == labels[1] != labels[2] == labels[3]
    assert labels[0].startswith("Scope ")
    assert labels[2] == label_of(scope)


def test_a_nested_scope_is_captured_and_the_one_around_it_dispatches(told):
    with airlock.scope(), airlock.scope():
        airlock.enqueue(int)
    (enqueued,), (captured,), (dispatched,) = told
    assert (captured.kind, captured.scope) == ("captured", enqueued.scope)
    assert captured.reason == f"captured by {dispatched.scope}"


class LettingOneThrough(airlock.Scope):
    def before_descendant_flushes(self, exiting_scope, intents):
        return intents[:1]


def test_what_is_let_through_was_not_captured(told):
    with airlock.scope(_cls=LettingOneThrough), airlock.scope():
        airlock.enqueue(int, _name="through")
        airlock.enqueue(int, _name="held")
    assert seen(told)[2:] == [[("captured", "held")], [("dispatched", "through")], [("dispatched", "held")]]


def test_a_drop_names_its_policy(told):
    policy = airlock.BlockTasks({"int"})
    with airlock.scope(policy):
        airlock.enqueue(int)
        airlock.enqueue(float)
    (dropped,), (dispatched,) = told[2:]
    assert (dropped.kind, dropped.policy, dropped.reason) == ("dropped", policy, f"dropped by {policy!r}")
    assert dispatched.kind == "dispatched"


def test_a_discard_says_why(told):
    with pytest.raises(ValueError, match="wrong"), airlock.scope():
        airlock.enqueue(int)
        raise ValueError("wrong")
    (event,) = told[1]
    assert (event.kind, event.reason) == ("discarded", "discarded, because ValueError was raised")


def test_a_failure_that_is_handled_says_so(told):
    with pytest.raises(LookupError) as raised, airlock.scope(executor=refuse):
        airlock.enqueue(int)
    (event,) = told[1]
    assert (event.kind, event.error, event.is_handled) == ("failed", raised.value, True)
    assert event.began > 0


def test_what_was_not_tried_after_a_failure_has_failed_too(told):
    with pytest.raises(LookupError), airlock.scope(executor=refuse):
        airlock.enqueue(int)
        airlock.enqueue(float)
    assert seen(told)[2:] == [[("failed", "int"), ("failed", "float")]]
    assert told[2][1].reason == "not tried: one before it failed"
    assert all(event.is_handled for event in told[2])


class Logging(airlock.Scope):
    dispatch_errors = "log"


def test_those_that_went_well_are_told_apart_from_those_that_failed(told):
    with airlock.scope(_cls=Logging):
        airlock.enqueue(int, "1")
        airlock.enqueue(int, "no number")
        airlock.enqueue(int, "2")
    assert seen(told)[3:] == [[("dispatched", "int"), ("dispatched", "int")], [("failed", "int")]]
    assert not told[4][0].is_handled


class Raising(airlock.Scope):
    dispatch_errors = "raise"


def test_of_several_failures_the_one_that_is_raised_is_handled(told):
    with pytest.raises(ValueError, match="'no number'") as raised, airlock.scope(_cls=Raising):
        airlock.enqueue(int, "no number")
        airlock.enqueue(int, "none either")
    assert [event.is_handled for event in told[2]] == [True, False]
    assert told[2][0].error is raised.value


def interrupt(*_):
    raise KeyboardInterrupt


def test_what_an_interruption_leaves_open_is_unknown(told):
    with pytest.raises(KeyboardInterrupt), airlock.scope():
        airlock.enqueue(int)
        airlock.enqueue(interrupt)
        airlock.enqueue(float)
    assert seen(told)[3:] == [[("dispatched", "int")], [("unknown", "interrupt"), ("failed", "float")]]
    assert told[4][1].reason == "not tried: one before it failed"
    assert isinstance(told[4][0].error, KeyboardInterrupt)


class Preparing:
    def prepare(self, intent, fates):
        raise ValueError("not JSON")

    def __call__(self, intent): ...


def test_what_the_executor_refuses_at_the_call_has_failed_there(told):
    with airlock.scope(executor=Preparing()) as scope:
        with pytest.raises(ValueError, match="not JSON"):
            airlock.enqueue(int)
        assert scope.intents == []
    assert seen(told) == [[("enqueued", "int")], [("failed", "int")]]


class Keeping:
    """Leaves what it is given to somebody else, who tells of the end."""

    tells_of_dispatched = True

    def __init__(self):
        self.kept = []

    def __call__(self, intent):
        self.kept.append(intent)


def test_an_executor_may_tell_of_the_end_itself(told):
    keeping = Keeping()
    with airlock.scope(executor=keeping):
        airlock.enqueue(int)
    assert seen(told) == [[("enqueued", "int")]]
    tell([Event("relayed", keeping.kept[0])])
    assert seen(told)[1:] == [[("relayed", "int")]]


# Who listens


def test_nobody_is_told_after_the_end_of_a_subscription():
    told = []
    assert not is_heard()
    unsubscribe = subscribe(told.append)
    assert is_heard()
    unsubscribe()
    with airlock.scope():
        airlock.enqueue(int)
    assert told == []
    assert not is_heard()


def test_a_subscription_ends_by_itself_and_no_other_of_the_same_listener():
    told = []
    listener = told.append
    first, second = subscribe(listener), subscribe(listener)
    first()
    first()
    with airlock.scope():
        airlock.enqueue(int)
    second()
    assert seen(told) == [[("enqueued", "int")], [("dispatched", "int")]]
    assert not is_heard()


async def listen(events): ...


@pytest.mark.parametrize("listener", [None, "print", listen])
def test_what_no_call_runs_is_no_listener(listener):
    with pytest.raises(TypeError, match="A listener is a plain function"):
        subscribe(listener)
    assert not is_heard()


def test_a_listener_that_begins_in_a_scope_is_told_of_what_comes_then():
    told = []
    with airlock.scope():
        airlock.enqueue(int)
        unsubscribe = subscribe(told.append)
        airlock.enqueue(float)
    unsubscribe()
    assert seen(told) == [[("enqueued", "float")], [("dispatched", "int"), ("dispatched", "float")]]


def test_a_listener_that_fails_changes_nothing_and_is_logged(ran, caplog):
    def fail(events):
        raise ZeroDivisionError

    unsubscribe = subscribe(fail)
    try:
        with airlock.scope():
            airlock.enqueue(ran.append, 1)
    finally:
        unsubscribe()
    assert ran == [1]
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError, ZeroDivisionError]
    assert "fail" in caplog.messages[0]


def test_a_listener_cannot_enqueue(ran, caplog):
    unsubscribe = subscribe(lambda events: airlock.enqueue(ran.append, 2))
    try:
        with airlock.scope() as scope:
            airlock.enqueue(ran.append, 1)
    finally:
        unsubscribe()
    assert len(scope.intents) == 1
    assert ran == [1]
    assert "by who listens to events" in caplog.text


def test_threads_are_heard(told):
    def work():
        with airlock.scope():
            airlock.enqueue(int)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen(told) == [[("enqueued", "int")], [("dispatched", "int")]]


def test_context_variables_can_be_changed_for_the_dispatch_alone(ran):
    def paint(events):
        for event in events:
            if event.kind == "enqueued":
                change_context(event.intent, lambda: colour.set("red"))

    unsubscribe = subscribe(paint)
    try:
        with airlock.scope():
            airlock.enqueue(lambda: ran.append(colour.get()))
            ran.append(colour.get())
    finally:
        unsubscribe()
    assert ran == ["none", "red"]


def test_a_context_that_is_not_needed_any_more_is_left_alone(told):
    change_context(airlock.Intent(int), lambda: colour.set("red"))
    assert colour.get() == "none"


# The log


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, logger="airlock")
    return caplog


def test_every_line_has_facts_for_structured_logs(log):
    with airlock.scope(airlock.BlockTasks({"float"})):
        intent = airlock.enqueue(int, 7, _origin="views.py:1")
        dropped = airlock.enqueue(float)
    enqueued, _, _, withheld, dispatched = log.records
    assert (enqueued.levelname, dispatched.levelname, withheld.levelname) == ("DEBUG", "DEBUG", "INFO")
    assert (enqueued.airlock_event, dispatched.airlock_event) == ("enqueued", "dispatched")
    assert (enqueued.intent_id, enqueued.task, enqueued.origin) == (intent.id, "builtins.int", "views.py:1")
    assert enqueued.scope == withheld.scope == dispatched.scope
    assert withheld.airlock_event == "withheld"
    assert [(facts["airlock_event"], facts["intent_id"]) for facts in withheld.intents] == [("dropped", dropped.id)]
    assert withheld.intents[0]["reason"].startswith("dropped by BlockTasks")


def test_what_was_withheld_is_at_debug_by_itself_too(log):
    with airlock.scope(airlock.DropAll()):
        airlock.enqueue(int)
    assert [record.airlock_event for record in log.records] == ["enqueued", "dropped", "withheld"]


def test_arguments_are_in_no_line_above_debug(log):
    secret = "4111 1111 1111 1111"
    with airlock.scope(airlock.AllowTasks({"int"}), _cls=Logging):
        airlock.enqueue(int, secret)
        airlock.enqueue(float, secret)
    with pytest.raises(ZeroDivisionError), airlock.scope():
        airlock.enqueue(int, secret)
        raise ZeroDivisionError
    with airlock.scope(airlock.LogOnFlush(), executor=print):
        airlock.enqueue(int, secret)
    visible = [record for record in log.records if secret in record.getMessage()]
    assert {record.levelname for record in visible} == {"DEBUG"}
    assert {record.levelname for record in log.records} == {"DEBUG", "INFO", "ERROR"}


def test_a_redactor_decides_what_debug_shows(log):
    airlock.configure(redactor=lambda intent: f"{intent.name}(...)")
    with airlock.scope():
        intent = airlock.enqueue(int, "4111")
    assert shown(intent) == "int(...)"
    assert "4111" not in log.text
    assert f"enqueued: int(...) (id {intent.id})" in log.text


class Shy:
    def __repr__(self):
        raise LookupError("4111")


def test_arguments_that_cannot_be_shown_stop_no_effect(log, ran):
    with airlock.scope():
        airlock.enqueue(ran.append, Shy())
    assert len(ran) == 1
    assert "dispatched: append(<not shown: LookupError was raised>) (id " in log.text

    airlock.configure(redactor=lambda intent: intent.kwargs["user"])
    with airlock.scope():
        airlock.enqueue(ran.append, 2)
    assert ran[1:] == [2]
    assert "enqueued: append(<not shown: KeyError was raised>) (id " in log.text
    assert "4111" not in log.text


# Executors can be replaced


def test_executors_can_be_replaced_whoever_has_chosen_them(ran):
    replaced = []

    def keep(executor):
        replaced.append(executor)
        return lambda intent: ran.append(intent.name)

    before = airlock.scope(executor=print)
    with replace_executors(keep):
        with airlock.scope(executor=print):
            airlock.enqueue(int)
        with airlock.detached():
            airlock.enqueue(float)
    assert ran == ["int", "float"]
    assert replaced[0] is print
    with before:
        airlock.enqueue(ran.append, "as ever")
    assert ran == ["int", "float"]


def test_the_executor_of_a_detached_block_is_replaced_once(ran):
    def keep(executor):
        return lambda intent: ran.append((executor, intent.name))

    with replace_executors(keep), airlock.scope(executor=print), airlock.scope(), airlock.detached():
        airlock.enqueue(int)
    assert ran == [(print, "int")]


def test_a_replaced_executor_must_be_one():
    with replace_executors(lambda executor: "celery"), pytest.raises(TypeError, match="'celery'"):
        airlock.scope()


@pytest.mark.parametrize(("kind", "level"), [("parked", "ERROR"), ("skipped", "INFO")])
def test_what_an_integration_tells_of_is_logged_by_itself(kind, level, log):
    intent = airlock.Intent(int, ("secret",), id="7")
    log.set_level(logging.INFO, logger="airlock")
    tell([Event(kind, intent, reason="it had to be")])
    (record,) = log.records
    assert (record.levelname, record.getMessage()) == (level, f"int (id 7) was {kind}: it had to be")
    assert (record.airlock_event, record.intent_id) == (kind, "7")


def test_what_a_listener_remembers_weakly_goes_away_with_the_intent():
    remembered = weakref.WeakKeyDictionary()

    def remember(events):
        remembered.update({event.intent: event.kind for event in events})

    unsubscribe = subscribe(remember)
    try:
        scope = airlock.scope()
        with scope:
            airlock.enqueue(int)
        assert list(remembered.values()) == ["dispatched"]
        del scope
        gc.collect()
        assert not remembered
    finally:
        unsubscribe()
