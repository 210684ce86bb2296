"""Who listens is told whether the broker has an intent, or the database alone, and of what the relay does."""

import pytest
from django.core.management import call_command
from django.db.transaction import atomic

import airlock
from airlock.ext import subscribe
from processes import free_port

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
]


@pytest.fixture
def told():
    events = []
    unsubscribe = subscribe(events.extend)
    yield events
    unsubscribe()


def kinds(told):
    return [event.kind for event in told]


def test_what_the_broker_has_was_dispatched(add, told):
    with airlock.scope(), atomic():
        intent = airlock.enqueue(add, 1)
    assert kinds(told) == ["enqueued", "dispatched"]
    assert told[1].intent is intent
    assert told[1].began > 0
    assert told[1].scope == told[0].scope != ""


def test_what_is_left_to_the_relay_is_stored_and_says_why(add, app, told, outbox, rows):
    app.conf.broker_url = f"redis://127.0.0.1:{free_port()}/0"
    outbox(FAST_PATH_SECONDS=10)
    for _ in range(2):
        with airlock.scope(), atomic():
            airlock.enqueue(add, 1)
            airlock.enqueue(add, 2)
    assert kinds(told) == ["enqueued", "enqueued", "stored", "stored"] * 2
    (why,) = {event.reason for event in told if event.kind == "stored"}  # also for what it was kept off from
    assert why.startswith("left to the relay: the broker fails: redis://")
    assert {entry.error for entry in rows()} == {why}
    scopes = [event.scope for event in told]
    assert scopes == [scopes[0]] * 4 + [scopes[4]] * 4
    assert scopes[0].startswith("OutboxScope ")
    assert scopes[0] != scopes[4]


def test_only_what_has_failed_itself_says_how(told, rows):
    with airlock.scope(), atomic():
        airlock.enqueue(fail)
        airlock.enqueue(fail)
    assert [(event.kind, event.reason, repr(event.error), event.is_handled) for event in told[2:]] == [
        ("failed", "left to the relay: ValueError('no')", "ValueError('no')", True),
        ("stored", "left to the relay: what went before it failed", "None", False),
    ]
    assert sorted(entry.error for entry in rows()) == ["", "left to the relay: ValueError('no')"]


def test_what_has_failed_is_logged_with_the_facts(log, told):
    with airlock.scope(), atomic():
        airlock.enqueue(fail, _origin="checkout")

    (record,) = log.records
    failed = told[-1]
    intent = failed.intent
    assert record.levelname == "ERROR"
    assert "enqueued at checkout" in record.getMessage()
    assert (record.airlock_event, record.intent_id, record.task) == ("failed", intent.id, intent.full_name)
    assert (record.reason, record.origin, record.scope) == (failed.reason, "checkout", failed.scope)


def test_a_paused_task_is_stored(add, told):
    call_command("airlock_outbox", "pause", add.name)
    with airlock.scope(), atomic():
        airlock.enqueue(add, 1)
    assert kinds(told) == ["enqueued", "stored"]
    assert told[1].reason == "left to the relay: its task is paused"


def test_what_was_rolled_back_is_not_stored(add, told):
    with airlock.scope(), pytest.raises(ZeroDivisionError), atomic():
        airlock.enqueue(add, 1)
        raise ZeroDivisionError
    assert kinds(told) == ["enqueued", "rolled_back"]
    assert told[1].reason == "rolled back with the transaction on 'default'"


def test_in_a_test_case_it_is_dispatched_though_nothing_is_written(add, told, rolled_back):
    with airlock.scope():
        airlock.enqueue(add, 1)
        airlock.enqueue(succeed)
    assert kinds(told) == ["enqueued", "enqueued", "dispatched", "dispatched"]
    assert {event.scope for event in told} == {told[0].scope}


def test_a_relay_tells_of_what_it_dispatches(add, told, outbox):
    outbox(FAST_PATH_SECONDS=0)
    with airlock.scope(), atomic():
        intent = airlock.enqueue(add, 1)
    assert told[1].reason == "left to the relay: FAST_PATH_SECONDS is 0"
    call_command("airlock_relay", "--drain")
    assert kinds(told) == ["enqueued", "stored", "relayed"]
    assert (told[2].intent.id, told[2].intent.full_name, told[2].reason) == (intent.id, add.name, None)


def succeed(): ...


def fail():
    raise ValueError("no")


def test_a_relay_tells_of_what_fails_and_of_what_it_parks(told, outbox, log):
    outbox(MAX_ATTEMPTS=2, BACKOFF_SECONDS=0.01)
    with airlock.scope(), atomic():
        intent = airlock.enqueue(fail)
    while len(told) < 4:
        call_command("airlock_relay", "--drain")
    assert kinds(told) == ["enqueued", "failed", "failed", "parked"]
    assert told[1].reason == "left to the relay: ValueError('no')"
    assert {event.intent.id for event in told} == {intent.id}
    assert told[2].reason.endswith("ValueError: no")
    assert isinstance(told[2].error, ValueError)
    assert told[3].reason == "ValueError: no"
    assert isinstance(told[3].error, ValueError)
    assert f"fail (id {intent.id}) was parked: ValueError: no" in log.messages
