"""What the relay takes, in what order, and what becomes of what it cannot dispatch."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.transaction import atomic
from django.utils import timezone

import airlock
from airlock.ext import subscribe
from airlock.integrations.outbox import _relay
from airlock.integrations.outbox._relay import Relay, run
from airlock.integrations.outbox._waking import Waker
from airlock.integrations.outbox.models import Entry
from processes import free_port

pytestmark = [
    pytest.mark.usefixtures("database", "app"),
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
]

every_database = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql", "mariadb"], indirect=True, scope="session"
)

#: What `call` has been called with, and what else it is to do.
called = []
on_call = {}


def call(what):
    called.append(what)
    on_call.get(what, lambda: None)()


def fail():
    raise ValueError("no")


@pytest.fixture(autouse=True)
def _nothing_is_called():
    called.clear()
    on_call.clear()


class DiedError(Exception):
    """Discards a scope."""


def leave(*arguments, task=call, **fields):
    """Leave intents to the relay, as a process that died. `fields` are what their entries have then."""
    before = set(Entry.objects.values_list("id", flat=True))
    with suppress(DiedError), airlock.scope():
        with atomic():
            for argument in arguments:
                airlock.enqueue(task, argument)
        left = Entry.objects.exclude(id__in=before)
        fields = {"held": False, "lease": uuid4(), "due": timezone.now(), **fields}
        Entry.objects.filter(id__in=[entry.id for entry in left]).update(**fields)
        raise DiedError


def relay(**options):
    call_command("airlock_relay", **{"drain": True, **options})


def relay_in_thread():
    """What another process would do."""

    def work():
        try:
            other = Relay("default")
            other.step()
            return other.done
        finally:
            connections.close_all()

    with ThreadPoolExecutor() as thread:
        return thread.submit(work).result()


def make_due():
    Entry.objects.filter(due__isnull=False).update(due=timezone.now())


# -- What is taken -----------------------------------------------------------------------------------------------------


@every_database
def test_dispatches_in_order(add, published, rows):
    leave(1, 2)
    leave("a", "b", task=add)
    leave(3)

    relay()

    assert called == [1, 2, 3]
    assert published() == ["a", "b"]
    assert rows() == []


def test_takes_a_batch_at_a_time(outbox, rows):
    outbox(BATCH_SIZE=2)
    leave(1, 2, 3, 4, 5)

    relay(drain=False, once=True)
    assert called == [1, 2]

    relay()
    assert called == [1, 2, 3, 4, 5]


@every_database
def test_claim_is_committed_before_anything_is_dispatched(rows):
    seen = []
    on_call[1] = lambda: seen.extend(rows())
    leave(1)

    relay()

    assert [(entry.attempts, entry.due > timezone.now()) for entry in seen] == [(1, True)]


@every_database
def test_what_one_relay_has_no_other_one_takes(rows):
    others = []
    on_call[1] = lambda: others.append(relay_in_thread())
    leave(1, 2)

    relay()

    assert others == [{}]
    assert called == [1, 2]
    assert rows() == []


@every_database
def test_what_another_relay_has_taken_over_is_not_deleted(rows):
    def be_slow():
        on_call[1] = fail
        make_due()
        assert relay_in_thread() == {"put off": 1}

    on_call[1] = be_slow
    leave(1)

    relay()

    assert [entry.error for entry in rows()] == ["ValueError: no"]
    assert called == [1, 1]


def test_after_a_slow_call_what_others_have_taken_is_left_to_them(outbox):
    outbox(LEASE_SECONDS=30)
    now = [0]

    def be_slow():
        now[0] += 100
        on_call[1] = fail
        make_due()
        while relay_in_thread():
            pass

    on_call[1] = be_slow
    leave(1, 2, 3)

    Relay("default", lambda: now[0]).step()

    assert called == [1, 1, 2, 3]


def test_what_comes_after_a_slow_call_is_ours_for_a_lease(outbox):
    outbox(LEASE_SECONDS=30)
    now = [0]
    others = []

    def be_slow():
        now[0] += 50
        make_due()

    on_call[1] = be_slow
    on_call[2] = lambda: others.append(relay_in_thread())
    leave(1, 2)

    Relay("default", lambda: now[0]).step()

    assert called == [1, 2]
    assert others == [{}]


def test_parked_and_waiting_entries_are_left(rows):
    leave(1, due=None)
    leave(2, due=timezone.now() + timedelta(hours=1))

    relay()

    assert called == []
    assert len(rows()) == 2


def test_newer_versions_are_left_alone(rows):
    leave(1, version=2)
    leave(2)

    relay()

    assert called == [2]
    assert [(entry.version, entry.attempts) for entry in rows()] == [(2, 0)]


# -- Held entries ------------------------------------------------------------------------------------------------------


def test_held_entries_are_left_until_their_hold_ends(rows):
    leave(1, held=True, due=timezone.now() + timedelta(hours=1))
    relay()
    assert called == []

    make_due()
    relay()
    assert called == [1]
    assert rows() == []


def test_held_entries_are_parked_if_so_configured(outbox, rows, log):
    outbox(ORPHANS="park")
    leave(1, held=True)
    leave(2)

    relay()

    assert called == [2]
    (entry,) = rows()
    assert entry.due is None
    assert "scope never ended" in entry.error
    assert entry.error in log.text


# -- What cannot be dispatched -----------------------------------------------------------------------------------------


def test_wrong_signature_is_parked(rows, log):
    leave(1)
    leave(2)
    entry, _ = rows()
    Entry.objects.filter(id=entry.id).update(payload=entry.payload.replace("test_relay.call", "os.abort"))

    relay()

    assert called == [2]
    assert [(entry.due, entry.error) for entry in rows()] == [
        (
            None,
            "Its signature is wrong: it was changed, or written with a SECRET_KEY that is not in SECRET_KEY_FALLBACKS.",
        )
    ]
    assert "was parked: Its signature is wrong" in log.text


def test_payload_of_another_entry_is_parked(rows):
    leave(1, 2)
    first, second = rows()
    Entry.objects.filter(id=second.id).update(payload=first.payload)

    relay()

    assert called == [1]
    assert [(entry.due, entry.error) for entry in rows()] == [(None, f"It is that of another entry, {first.id}.")]


def test_signed_with_an_old_key(settings, rows):
    leave(1)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new one"

    relay()

    assert called == [1]


def test_signed_with_a_key_that_is_gone_is_parked(settings, rows):
    leave(1)
    settings.SECRET_KEY = "a new one"

    relay()

    assert called == []
    assert [(entry.due, entry.error[:22]) for entry in rows()] == [(None, "Its signature is wrong")]


def test_what_cannot_be_imported_is_tried_again_and_parked_in_the_end(outbox, rows, monkeypatch):
    outbox(MAX_ATTEMPTS=2)
    leave(1)
    monkeypatch.delattr(f"{__name__}.call")

    relay()
    (entry,) = rows()
    assert "'call'" in entry.error
    assert entry.due > timezone.now()

    make_due()
    relay()
    assert [entry.due for entry in rows()] == [None]


@every_database
def test_failure_is_put_off_and_those_behind_it_go_out(add, published, rows, log):
    on_call[1] = fail
    leave(1, 2)
    leave("a", task=add)

    relay()

    assert called == [1, 2]
    assert published() == ["a"]
    (entry,) = rows()
    assert (entry.attempts, entry.lease, entry.error) == (1, None, "ValueError: no")
    assert entry.due > timezone.now()
    assert "is tried again in" in log.text


def test_failed_attempt_is_logged_with_the_facts(rows, log):
    on_call[1] = fail
    leave(1)
    relay()

    record = log.records[-1]
    assert (record.levelname, record.airlock_event, record.scope) == ("WARNING", "failed", "")
    assert (record.intent_id, record.task) == (str(rows()[0].id), rows()[0].task)
    assert record.reason.endswith("ValueError: no")


@pytest.mark.parametrize(("attempts", "longest"), [(0, 1000), (1, 2000), (2, 3000), (3, 3000)])
def test_backoff_grows_up_to_its_ceiling(outbox, rows, attempts, longest):
    outbox(BACKOFF_SECONDS=1000, MAX_BACKOFF_SECONDS=3000)
    on_call.update(dict.fromkeys(range(20), fail))
    leave(*range(20), attempts=attempts, lease=None)
    before = timezone.now()

    relay()

    waits = [(entry.due - before).total_seconds() for entry in rows()]
    assert min(waits) >= longest / 2
    assert max(waits) <= longest + (timezone.now() - before).total_seconds()
    assert max(waits) - min(waits) > longest / 20  # 20 times the same would be less likely than winning the lottery


def test_parked_after_its_last_attempt(outbox, rows, log):
    outbox(MAX_ATTEMPTS=3)
    on_call[1] = fail
    leave(1)

    for _ in range(5):
        relay()
        make_due()

    assert called == [1, 1, 1]
    assert [(entry.due, entry.error) for entry in rows()] == [(None, "ValueError: no")]
    assert "was parked: ValueError: no" in log.text


@every_database
def test_error_that_databases_do_not_store(rows):
    def fail():
        raise ValueError("nul \0, half a pair \ud800, and long" + "g" * 100_000)

    on_call[1] = fail
    leave(1, 2)

    relay()

    assert called == [1, 2]
    assert [entry.error[:32] for entry in rows()] == [r"ValueError: nul \0, half a pair "]


def test_what_killed_a_relay_goes_by_itself_afterwards_and_is_parked_in_the_end(outbox, rows):
    outbox(MAX_ATTEMPTS=3)
    on_call[2] = lambda: exit("killed")
    leave(1, 2, 3, 4)

    for _ in range(5):
        with suppress(SystemExit):
            relay()
        make_due()

    assert called == [1, 2, 2, 2, 3, 4]
    assert [(entry.due, entry.error) for entry in rows()] == [
        (None, "Each relay that dispatched it died, or lost its database.")
    ]


def test_what_has_failed_goes_in_batches(rows):
    leave(*range(5), attempts=1, lease=None)

    relay(drain=False, once=True)

    assert called == [0, 1, 2, 3, 4]


# -- Brokers -----------------------------------------------------------------------------------------------------------


def test_broker_outage_costs_no_attempt(app, add, rows):
    app.conf.update(broker_url=f"redis://127.0.0.1:{free_port()}/0", task_publish_retry=False)
    leave(1, 2, task=add)

    with pytest.raises(CommandError, match=r"^The broker is down: redis\S+: "):
        relay()

    assert [(entry.attempts, entry.lease) for entry in rows()] == [(0, None)] * 2
    assert all(entry.error.startswith("left to the relay: the broker fails: redis://") for entry in rows())
    assert all(entry.due <= timezone.now() for entry in rows())


def test_broker_outage_does_not_hide_what_an_entry_has_failed_with(app, add, rows):
    app.conf.update(broker_url=f"redis://127.0.0.1:{free_port()}/0", task_publish_retry=False)
    leave(1, task=add, error="ValueError: no")

    with pytest.raises(CommandError, match="is down: "):
        relay()

    assert [entry.error for entry in rows()] == ["ValueError: no"]


def test_what_was_left_by_a_broker_outage_is_published_together(add, published, rows, monkeypatch):
    leave(*range(5), task=add, error="left to the relay: the broker fails: Error 111")
    batches = []
    real = _relay.publish
    monkeypatch.setattr(
        _relay, "publish", lambda executor, intents: batches.append(len(intents)) or real(executor, intents)
    )

    relay()

    assert batches == [5]
    assert len(published()) == 5


# -- Telling why it was late -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, None),
        ({"held": True}, "its process did not finish: the relay took it over and sent it"),
        (
            {"error": "left to the relay: the broker fails: secret"},
            "the broker failed: the relay sent it when the broker was back",
        ),
        ({"error": "ValueError: secret"}, "it had failed before: the relay tried again and sent it"),
    ],
    ids=["in the ordinary way", "process died", "broker failed", "failed"],
)
def test_what_is_sent_late_says_why_and_not_what_the_error_said(fields, why):
    leave(1, **fields)
    told = []
    unsubscribe = subscribe(told.extend)
    try:
        relay()
    finally:
        unsubscribe()

    assert [(event.kind, event.reason) for event in told] == [("relayed", why)]


# -- Looking for work --------------------------------------------------------------------------------------------------


class FakeWaker:
    """Sleeps for no time, and counts the statements between."""

    def __init__(self, statements, seconds):
        self.is_stopped = False
        self.slept = []
        self.costs = []
        self._statements = statements
        self._seconds = seconds

    def sleep(self, seconds):
        self.costs.append(len(self._statements))
        self._statements.clear()
        self.slept.append(seconds)
        self.is_stopped = sum(self.slept) >= self._seconds


@pytest.fixture
def statements():
    """Collects the statements on the default database, but for a look at paused tasks from time to time."""
    seen = []

    def note(execute, sql, params, many, context):
        if "airlock_outbox_paused" not in sql:
            seen.append(sql)
        return execute(sql, params, many, context)

    with connections["default"].execute_wrapper(note):
        yield seen


def test_idle_relay_asks_ever_less_often_and_with_one_statement(outbox, statements):
    outbox(POLL_SECONDS=2)
    waker = FakeWaker(statements, seconds=600)

    run([Relay("default")], waker)

    assert waker.slept[:4] == [0.02, 0.04, 0.08, 0.16]
    assert set(waker.slept[7:]) == {2}
    assert set(waker.costs[2:]) == {1}


def test_busy_relay_does_not_sleep(outbox):
    outbox(BATCH_SIZE=1)
    waker = FakeWaker([], seconds=0.01)
    leave(1, 2, 3)

    run([Relay("default")], waker)

    assert called == [1, 2, 3]
    assert waker.slept == [0.02]


@every_database
def test_idle_relay_does_not_look_at_what_was_due_long_ago(rows):
    now = [0]
    relay = Relay("default", lambda: now[0])
    relay.step()
    now[0] += 30
    leave(1, due=timezone.now() - timedelta(seconds=30))
    leave(2, due=timezone.now() - timedelta(hours=1))

    relay.step()

    assert called == [1]


@every_database
def test_entry_that_became_visible_late_is_found_by_the_sweep(rows):
    now = [0]
    relay = Relay("default", lambda: now[0])
    relay.step()
    leave(1, due=timezone.now() - timedelta(hours=1))

    now[0] += 60
    relay.step()

    assert called == [1]


@every_database
def test_entry_that_became_visible_behind_a_batch_is_found_before_a_drain_ends(outbox):
    outbox(BATCH_SIZE=1)
    on_call[1] = lambda: leave(3, due=timezone.now() - timedelta(hours=1))
    leave(1, 2)

    relay()

    assert called == [1, 2, 3]


@every_database
def test_statements_keep_no_state_of_their_session(statements):
    leave(1)
    statements.clear()

    Relay("default").step()

    allowed = ("SELECT", "UPDATE", "DELETE", "BEGIN", "SET TRANSACTION ISOLATION LEVEL", "SET LOCAL")
    assert [statement for statement in statements if not statement.startswith(allowed)] == []
    assert [statement for statement in statements if "advisory" in statement or "GET_LOCK" in statement] == []


# -- Claims beside writers, and NOTIFY ---------------------------------------------------------------------------------


@contextmanager
def stopped_after(part):
    """A relay in another thread, stopped in its transaction, after the first statement that has this part."""
    is_there, may_go_on = threading.Event(), threading.Event()

    def stop(execute, sql, *args):
        result = execute(sql, *args)
        if part in sql and not is_there.is_set():
            is_there.set()
            may_go_on.wait(30)
        return result

    def work():
        try:
            if connections["default"].vendor == "mysql":  # as it is without Django's default
                with connections["default"].cursor() as cursor:
                    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            with connections["default"].execute_wrapper(stop):
                Relay("default").step()
        finally:
            connections.close_all()

    with ThreadPoolExecutor() as thread:
        done = thread.submit(work)
        try:
            assert is_there.wait(30)
            yield
        finally:
            may_go_on.set()
        done.result()


def wait_for_locks(seconds):
    """How long this connection waits for a lock, before that is an error."""
    with connections["default"].cursor() as cursor:
        if connections["default"].vendor == "postgresql":
            cursor.execute(f"SET lock_timeout = '{seconds}s'")
        else:
            cursor.execute(f"SET innodb_lock_wait_timeout = {seconds}")


# SQLite has one writer at a time: there, a writer waits for a claim, which is a few statements.
@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True, scope="session")
@pytest.mark.parametrize("part", ["FOR UPDATE", "UPDATE "])
@pytest.mark.parametrize("number", [1, 3])
def test_no_writer_and_no_relay_waits_for_a_claim(outbox, rows, part, number):
    outbox(BATCH_SIZE=2)
    leave(*range(number))
    wait_for_locks(5)
    try:
        with stopped_after(part):
            leave("meanwhile", due=timezone.now() + timedelta(hours=1))
            leave("due")
            relay()
            assert called == [*range(2, number), "due"]
    finally:
        connections["default"].close()

    assert sorted(map(str, called)) == sorted(map(str, [*range(number), "due"]))
    assert len(rows()) == 1


@contextmanager
def plans_of(*parts):
    """How PostgreSQL executes statements that have one of these parts."""
    plans = []

    def explain(execute, sql, params, many, context):
        if any(part in sql for part in parts):
            execute(f"EXPLAIN {sql}", params, many, context)
            plans.append("\n".join(line for (line,) in context["cursor"].fetchall()))
        return execute(sql, params, many, context)

    with connections["default"].execute_wrapper(explain):
        yield plans


@pytest.mark.parametrize("database", ["postgresql"], indirect=True, scope="session")
def test_claim_does_not_look_at_all_that_is_due(outbox):
    # As it may with the statistics of a table that was empty, or on a server that has none.
    outbox(BATCH_SIZE=50)
    fields = {"created": timezone.now(), "due": timezone.now(), "held": False, "task": "-", "payload": "-" * 500}
    Entry.objects.bulk_create(Entry(id=uuid4(), **fields) for _ in range(5000))
    relay = Relay("default")
    relay.step()

    with plans_of("FOR UPDATE", '"attempts" +') as plans:
        relay.step()

    look, take = plans
    assert "airlock_outbox_due" in look
    assert "Sort" not in look
    assert "airlock_outbox_due" not in take


@pytest.mark.parametrize("database", ["postgresql"], indirect=True, scope="session")
def test_notify_wakes_a_relay(outbox, add, published, rows):
    outbox(NOTIFY=True, POLL_SECONDS=3600, FAST_PATH_SECONDS=0)

    def work():
        try:
            with Waker(["default"]) as waker:
                relay = Relay("default")
                relay.step()
                waker.sleep(3600)  # it listens from now on, so there may be news
                relay.step()
                listens.set()
                waker.sleep(3600)
                relay.step()
                waker.stop()
                waker.sleep(3600)
        finally:
            connections.close_all()

    listens = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    assert listens.wait(30)
    with airlock.scope(), atomic():
        airlock.enqueue(add, 1)
    thread.join(30)

    assert not thread.is_alive()
    assert published() == [1]
    assert rows() == []
