"""What interrupts a flush, such as Ctrl-C or the soft time limit of a task, loses nothing, wherever it comes."""

import signal
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from django.db.transaction import atomic

import airlock
from airlock.integrations import outbox as outbox_package
from airlock.integrations.executors.celery import CeleryExecutor
from airlock.integrations.outbox.models import Entry

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.django_db(transaction=True),
]

calls = []


def note(number):
    calls.append(number)


def fail():
    raise ValueError


def raise_soft_time_limit():
    raise SoftTimeLimitExceeded


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


@contextmanager
def interruption_at(step, error):
    """Raises an error at a step of the outbox: where it is called, or something of C has returned to it.

    That is where Python looks for signals. Yields a list whose only entry is the number of steps so far.
    """
    ours = str(Path(outbox_package.__file__).parent)
    steps = [0]

    def look(frame, event, _):
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(ours):
            steps[0] += 1
            if steps[0] == step:
                raise error

    sys.setprofile(look)
    try:
        yield steps
    finally:
        sys.setprofile(None)


def wait_for_publications():
    for thread in threading.enumerate():
        if thread.name == "airlock-outbox-publication":
            thread.join(30)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SoftTimeLimitExceeded])
def test_interrupted_flush_loses_nothing(add, error, log, published):
    def flush(step):
        """A flush of messages and calls, interrupted at a step. Returns how many steps it took."""
        scope = airlock.scope()
        scope.enter()
        with atomic():
            intents = [airlock.enqueue(task, number) for number, task in enumerate([add, note, add, add, note])]
        numbers = {intent.id: number for number, intent in enumerate(intents)}
        scope.exit()
        with interruption_at(step, error) as steps, suppress(error):
            scope.flush()
        wait_for_publications()
        entries = {numbers[str(entry.id)] for entry in Entry.objects.all()}
        arrived = [*published(), *calls]
        assert len(arrived) == len(set(arrived))
        assert {*entries, *arrived} == set(range(5))
        Entry.objects.all().delete()
        calls.clear()
        return steps[0]

    # Each second of them, or this would take a minute on a slow machine; the others with the other error.
    for step in range(1 if error is KeyboardInterrupt else 2, flush(0) + 1, 2):
        flush(step)


def test_soft_time_limit_of_a_task_ends_its_flush(rows):
    with pytest.raises(SoftTimeLimitExceeded), airlock.scope(), atomic():
        airlock.enqueue(note, 1)
        airlock.enqueue(raise_soft_time_limit)
        airlock.enqueue(note, 3)

    assert calls == [1]
    assert [(row.held, row.lease) for row in rows()] == [(False, None)] * 2


class Interrupting(CeleryExecutor):
    """Interrupts the main thread before it first publishes anything, and goes on when it is told to."""

    def __init__(self):
        super().__init__()
        self.has_interrupted = False
        self.go_on = threading.Event()

    def __call__(self, intent):
        if not self.has_interrupted:
            self.has_interrupted = True
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            self.go_on.wait(30)
        super().__call__(intent)


interrupting = Interrupting()


def test_what_is_being_published_when_it_is_interrupted_is_published_once(add, outbox, published, rows):
    """The relay does not get it, nor does a flush that is finished, as that of a task. The thread deletes it."""
    outbox(FAST_PATH_SECONDS=60)
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), airlock.scope(executor=interrupting) as scope, atomic():
            airlock.enqueue(add, 1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    scope.dispatch_all(scope.undispatched_intents)
    assert [row.lease is None for row in rows()] == [False]

    interrupting.go_on.set()
    wait_for_publications()
    assert published() == [1]
    assert rows() == []


def test_interrupted_delete_leaves_the_others_to_the_relay(rows):
    def interrupt(execute, sql, *args):
        if sql.startswith("DELETE"):
            raise KeyboardInterrupt
        return execute(sql, *args)

    with connection.execute_wrapper(interrupt), pytest.raises(KeyboardInterrupt), airlock.scope(), atomic():
        airlock.enqueue(note, 1)
        airlock.enqueue(fail)
        airlock.enqueue(note, 3)

    assert calls == [1]
    assert [row.lease is None for row in rows()] == [False, True, True]
