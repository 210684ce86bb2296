"""A queue that is not Celery's, and that takes nothing from anybody for a while."""

import threading
from contextlib import contextmanager

import pytest
from django.core.management import CommandError, call_command
from django.db.transaction import atomic

import airlock

pytestmark = [
    pytest.mark.usefixtures("database", "app"),
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
]

NEVER = 3600


class QueueError(Exception):
    """How the queue fails when it is down, and how what is called in place may fail, too."""


class Queue:
    """Takes jobs, and calls in place what is no job."""

    def __init__(self):
        self.begin_anew()

    def begin_anew(self):
        self.is_down = False
        self.asked = 0
        self.taken = []
        self.threads = []

    def accepts(self, task):
        return isinstance(task, str)

    def runs_in_place(self, intent):
        return intent.task is call_something_else

    def why_down(self, intent, error):
        return "it refuses everybody" if self.is_down else None

    def __call__(self, intent):
        self.asked += 1
        self.threads.append(threading.current_thread())
        if self.runs_in_place(intent):
            intent.task(*intent.args)
        elif intent.args == ("interrupted",):
            raise KeyboardInterrupt
        elif self.is_down or intent.args == ("huge",):
            raise QueueError("it refuses me")
        elif intent.args == ("bad",):
            raise ValueError("bad")
        else:
            self.taken.append(intent.args[0])


class SilentQueue:
    """Cannot even be asked."""

    def runs_in_place(self, intent):
        raise LookupError("no idea")

    def why_down(self, intent, error):
        raise LookupError("no idea")

    def __call__(self, intent):
        raise QueueError("it refuses me")


def job(what):
    raise AssertionError("nobody runs it")


def call_something_else(what):
    raise QueueError("that has nothing to do with the queue")


queue, silent_queue = Queue(), SilentQueue()


@pytest.fixture(autouse=True)
def _empty_queue():
    queue.begin_anew()


def enqueue(*whats, task=job, executor=queue):
    with airlock.scope(executor=executor), atomic():
        for what in whats:
            airlock.enqueue(task, what)


def relay():
    call_command("airlock_relay", "--once", skip_checks=True)


def test_request_leaves_it_to_the_relay_and_nobody_else_tries(log, outbox, rows):
    outbox(BREAKER_SECONDS=NEVER)
    queue.is_down = True
    enqueue(1, 2)
    enqueue(3)

    assert queue.asked == 1
    assert {row.error for row in rows()} == {"left to the relay: the broker fails: it refuses everybody"}
    assert [record.levelname for record in log.records] == ["ERROR"]


def test_outage_costs_no_attempt(outbox, rows):
    queue.is_down = True
    enqueue(1, 2)

    for _ in range(3):
        with pytest.raises(CommandError, match=r"^The broker is down: it refuses everybody$"):
            relay()
    assert [(row.attempts, row.lease) for row in rows()] == [(0, None)] * 2

    queue.is_down = False
    relay()
    assert queue.taken == [1, 2]
    assert rows() == []


def test_probe_finds_an_outage(outbox):
    airlock.configure(executor=queue)
    call_command("airlock_relay", "--check", skip_checks=True)
    queue.is_down = True

    with pytest.raises(CommandError, match=r"^The broker is down: it refuses everybody$"):
        call_command("airlock_relay", "--check", skip_checks=True)


def test_what_fails_by_itself_costs_an_attempt_and_stops_nobody(log, outbox, rows):
    outbox(FAST_PATH_SECONDS=0)
    enqueue("bad", 1)

    relay()

    assert queue.taken == [1]
    assert [(row.attempts, row.error) for row in rows()] == [(1, "ValueError: bad")]


def test_what_the_queue_refuses_as_if_it_was_down_costs_an_attempt_and_stops_nobody(log, outbox, rows):
    outbox(FAST_PATH_SECONDS=0)
    enqueue("huge", "huge", 1, 2)

    relay()

    assert queue.taken == [1, 2]
    assert [(row.attempts, row.error.rpartition(".")[2]) for row in rows()] == [(1, "QueueError: it refuses me")] * 2


def test_what_runs_in_place_is_not_the_queue_whatever_it_raises(log, outbox, rows):
    outbox(FAST_PATH_SECONDS=0)
    enqueue("", task=call_something_else)
    enqueue(1)

    relay()

    assert queue.taken == [1]
    assert [row.attempts for row in rows()] == [1]


def test_carrier_that_fails_is_not_the_queue_whatever_it_raises(log, outbox, rows):
    outbox(BREAKER_SECONDS=NEVER)

    @contextmanager
    def fail():
        raise QueueError("no tenant")
        yield

    airlock.configure(carriers=[fail])
    enqueue(1)
    airlock.configure(carriers=[])
    enqueue(2)

    assert queue.taken == [2]
    assert [row.error for row in rows()] == ["left to the relay: QueueError('no tenant')"]


def test_interruption_of_the_relay_is_no_outage(outbox, rows):
    outbox(FAST_PATH_SECONDS=0)
    enqueue("interrupted")
    queue.is_down = True

    with pytest.raises(KeyboardInterrupt):
        relay()

    assert len(rows()) == 1


def test_only_what_runs_in_place_stays_in_the_thread_of_the_request(log, rows):
    enqueue("", task=call_something_else)
    enqueue(1)

    assert [thread is threading.current_thread() for thread in queue.threads] == [True, False]
    assert queue.taken == [1]  # the broker is not blamed for the other
    assert [row.error for row in rows()] == ["left to the relay: QueueError('that has nothing to do with the queue')"]


def test_queue_that_cannot_be_asked_counts_as_there(log, outbox, rows):
    enqueue(1, executor=silent_queue)
    assert "failed and is left to the relay" in log.text

    relay()

    assert [row.attempts for row in rows()] == [1]
    assert "could not be asked whether its queue is down" in log.text
