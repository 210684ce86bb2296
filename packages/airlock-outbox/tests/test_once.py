"""A run of a task that is effective once for its database."""

import threading
from contextlib import suppress

import pytest
from celery import uuid
from celery.app.trace import reset_worker_optimizations, setup_worker_optimizations
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from celery.worker.request import Request
from django.contrib.sessions.models import Session
from django.db import connections, transaction
from django.utils import timezone

import airlock
from airlock.integrations.outbox import OnceTask
from airlock.integrations.outbox.models import InboxEntry

pytestmark = [pytest.mark.usefixtures("database"), pytest.mark.django_db(transaction=True)]

every_database = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql", "mariadb"], indirect=True, scope="session"
)


@pytest.fixture
def app(app):
    app.conf.update(result_backend="cache+memory://", broker_transport_options={"polling_interval": 0.005})
    return app


@pytest.fixture
def place(app, add):
    """A task that writes a row, enqueues `add`, and then does what the test wants."""

    def make(then=lambda task: None, base=OnceTask, **options):
        @app.task(name="shop.place", base=base, bind=True, **options)
        def place(self):
            Session.objects.create(session_key=uuid(), expire_date=timezone.now())
            airlock.enqueue(add, "placed")
            return then(self)

        return place

    return make


class Deliveries:
    """Delivers messages to a task as a worker does, as often as a test wants."""

    def __init__(self, app):
        self._app = app
        self.messages = []

    def __call__(self, task_id):
        """Run what waits for the task of this id, and tell in which state it ended."""
        self._take()
        waiting = [message for message in self.messages if message.headers["id"] == task_id]
        request = Request(waiting[-1], app=self._app, hostname="here")
        with suppress(Ignore, Reject):
            request.execute()
        return self._app.AsyncResult(task_id).state

    def _take(self):
        with self._app.connection_for_read() as broker:
            queue = self._app.amqp.queues["orders"](broker.default_channel)
            queue.declare()
            self.messages += iter(lambda: queue.get(no_ack=True), None)


@pytest.fixture
def deliver(app):
    app.conf.task_routes = {"shop.place": "orders"}
    setup_worker_optimizations(app, "here")
    deliver = Deliveries(app)
    yield deliver
    deliver.messages.clear()
    reset_worker_optimizations(app)


def effects():
    """How many rows there are that the runs wrote, and how many that say that they were effective."""
    return Session.objects.count(), InboxEntry.objects.count()


@every_database
def test_second_delivery_does_nothing(place, deliver, published, log):
    sent = place(lambda task: 5).delay()

    assert deliver(sent.id) == "SUCCESS"
    assert sent.get() == 5
    deliver(sent.id)

    assert effects() == (1, 1)
    assert published() == ["placed"]
    assert f"place (id {sent.id}) was skipped: it was delivered again, and has been run before" in log.messages


def test_deliveries_of_other_messages_run(place, deliver, published):
    task = place()
    for sent in (task.delay(), task.delay()):
        deliver(sent.id)

    assert effects() == (2, 2)
    assert published() == ["placed", "placed"]


@every_database
def test_two_at_once_are_effective_once(request, place, published, database):
    begun, may_go_on, results = threading.Event(), threading.Event(), {}

    def wait(task):
        begun.set()
        assert may_go_on.wait(30)
        return "done"

    task, task_id = place(wait), uuid()

    def run(name):
        try:
            results[name] = task.apply(task_id=task_id).get()
        finally:
            connections.close_all()

    first, second = (threading.Thread(target=run, args=(name,)) for name in ("first", "second"))
    first.start()
    assert begun.wait(30)
    second.start()
    # It waits for the database: were it to run, there would be a second row.
    second.join(0.2)
    assert "second" not in results
    may_go_on.set()
    first.join(30)
    second.join(30)

    assert results == {"first": "done", "second": None}
    assert effects() == (1, 1)
    assert published() == ["placed"]


def raise_(error):
    def then(task):
        raise error

    return then


@every_database
@pytest.mark.parametrize(
    "error",
    [ValueError("no"), SoftTimeLimitExceeded(), Ignore(), Reject(), Retry("later")],
    ids=lambda error: repr(error),
)
def test_run_that_raises_may_run_again(place, deliver, published, error):
    failing = [True]

    def then(task):
        if failing.pop():
            failing.append(False)
            raise error

    sent = place(then).delay()
    deliver(sent.id)
    assert effects() == (0, 0)
    failing[:] = [False]
    deliver(sent.id)

    assert effects() == (1, 1)
    assert published() == ["placed"]


def by_retry(task):
    if not task.request.retries:
        raise task.retry(countdown=0)
    return "done"


def by_autoretry(task):
    if not task.request.retries:
        raise LookupError
    return "done"


def by_returning_a_retry(task):
    return "done" if task.request.retries else task.retry(countdown=0, throw=False)


def by_going_on_after_a_retry(task):
    if not task.request.retries:
        task.retry(countdown=0, throw=False)
    return "done"


def by_catching_a_retry(task):
    if not task.request.retries:
        with suppress(Retry):
            task.retry(countdown=0)
    return "done"


@pytest.mark.parametrize(
    "then", [by_retry, by_autoretry, by_returning_a_retry, by_going_on_after_a_retry, by_catching_a_retry]
)
def test_only_the_last_attempt_is_effective(place, deliver, published, then):
    sent = place(then, autoretry_for=(LookupError,), default_retry_delay=0, max_retries=3, acks_late=True).delay()

    deliver(sent.id)
    assert effects() == (0, 0)
    assert deliver(sent.id) == "SUCCESS"

    assert sent.get() == "done"
    assert effects() == (1, 1)
    assert published() == ["placed"]


@pytest.mark.parametrize("then", [by_retry, by_autoretry, by_returning_a_retry])
def test_attempts_in_apply(place, published, then):
    result = place(then, autoretry_for=(LookupError,), default_retry_delay=0).apply()

    assert result.get() == "done"
    assert effects() == (1, 1)
    assert published() == ["placed"]


def test_direct_call_just_runs(place, published):
    task = place()
    task()
    task()

    assert effects() == (2, 0)
    assert published() == ["placed", "placed"]


def test_parts_of_a_run_are_not_deliveries(app, add, published):
    class Base(OnceTask):
        abstract = True

        def run(self, depth=0):
            airlock.enqueue(add, f"base {depth}")
            if depth < 1:
                self.run(depth + 1)

    @app.task(base=Base, bind=True)
    def part(self, depth=0):
        super(type(self), self).run(depth)

    part.apply()

    assert published() == ["base 0", "base 1"]
    assert InboxEntry.objects.count() == 1


@pytest.mark.parametrize("base", [OnceTask, None])
def test_replacement_runs_under_the_same_id(app, place, deliver, published, base):
    app.conf.task_routes = {"shop.*": "orders", "shop.add": "celery"}

    @app.task(name="shop.replacement", **({"base": base} if base else {}))
    def replacement():
        Session.objects.create(session_key=uuid(), expire_date=timezone.now())

    sent = place(lambda task: task.replace(replacement.si())).delay()
    deliver(sent.id)
    assert effects() == (0, 0)
    deliver(sent.id)

    assert effects() == (1, 1 if base else 0)
    assert published() == []


@pytest.mark.parametrize("base", [OnceTask, None])
def test_replacement_in_apply_is_a_part_of_the_run(app, place, base):
    @app.task(name="shop.replacement", **({"base": base} if base else {}))
    def replacement():
        Session.objects.create(session_key=uuid(), expire_date=timezone.now())

    place(lambda task: task.replace(replacement.si())).apply()

    assert effects() == (2, 1)


def test_error_after_the_commit_comes_too_late(place, deliver, published):
    def fail():
        raise ValueError("no")

    sent = place(lambda task: transaction.on_commit(fail)).delay()

    assert deliver(sent.id) == "FAILURE"
    assert effects() == (1, 1)
    assert published() == ["placed"]


def test_inner_transaction_that_rolls_back_does_not_end_the_run(place, deliver, published, rolled_back):
    def then(task):
        with rolled_back():
            Session.objects.create(session_key=uuid(), expire_date=timezone.now())

    sent = place(then).delay()

    assert deliver(sent.id) == "SUCCESS"
    assert effects() == (1, 1)


def test_refused_intents_of_second_delivery_do_not_exist(place, deliver, published, rows):
    sent = place().delay()
    deliver(sent.id)
    deliver(sent.id)

    assert rows() == []


@every_database
@pytest.mark.parametrize(
    ("one", "other"), [("Order-1", "order-1"), ("été", "ete"), ("x" * 300 + "1", "x" * 300 + "2")], ids=str.isascii
)
def test_ids_that_databases_confuse_are_distinct(place, one, other):
    task = place()
    for task_id in (one, other, one):
        task.apply(task_id=task_id)

    assert effects() == (2, 2)


def test_subclass_decides_about_effects_as_ever(place, deliver, published):
    class Silent(OnceTask):
        abstract = True

        def should_flush(self, error):
            return False

    sent = place(base=Silent).delay()
    deliver(sent.id)

    assert effects() == (1, 1)
    assert published() == []


class TestInATestCase:
    pytestmark = pytest.mark.django_db

    def test_is_effective_once(self, place, published, django_capture_on_commit_callbacks):
        task, task_id = place(), uuid()
        with django_capture_on_commit_callbacks(execute=True):
            task.apply(task_id=task_id)
            task.apply(task_id=task_id)

        assert effects() == (1, 1)
        assert published() == ["placed"]
