"""What is published in the request, and how long that may take."""

import secrets
import threading
from contextvars import ContextVar
from urllib.parse import urlsplit

import pytest
from celery import Task, group
from celery._state import set_default_app
from django.db import connection
from django.db.transaction import atomic
from django.utils import timezone
from django.utils.timezone import get_current_timezone_name
from django.utils.timezone import override as time_zone
from django.utils.translation import get_language
from django.utils.translation import override as language

import airlock
from airlock.integrations.celery import AirlockTask
from airlock.integrations.outbox._relay import Relay
from airlock.integrations.outbox.models import Entry
from own_brokers import Proxy
from processes import free_port

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.django_db(transaction=True),
]

every_database = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql", "mariadb"], indirect=True, scope="session"
)

NEVER = 3600


@pytest.fixture
def order(add):
    """Enqueues something in a transaction, in a request of its own."""

    def order(number=1):
        with airlock.scope() as scope, atomic():
            for _ in range(number):
                airlock.enqueue(add, number)
        assert len(scope.dispatched_intents) == number
        return scope

    return order


@every_database
def test_published_at_the_flush_and_then_deleted(add, published, rows, statements):
    with airlock.scope() as scope:
        with atomic():
            airlock.enqueue(add, 1)
            airlock.enqueue(add, 2)
        airlock.enqueue(add, 3)
        assert published() == []

    assert published() == [1, 2, 3]
    assert rows() == []
    assert statements == ["INSERT", "INSERT", "DELETE"]
    assert len(scope.dispatched_intents) == 3


def test_published_when_the_transaction_around_the_scope_commits(add, published, rows):
    with atomic():
        with airlock.scope():
            airlock.enqueue(add, 1)
        assert published() == []

    assert published() == [1]
    assert rows() == []


def test_published_before_it_is_deleted(add, published):
    seen = []

    def wrapper(execute, sql, *args):
        if sql.startswith("DELETE"):
            seen.extend(published())
        return execute(sql, *args)

    with connection.execute_wrapper(wrapper), airlock.scope(), atomic():
        airlock.enqueue(add, 1)

    assert seen == [1]


@pytest.mark.parametrize("name", ["redis", "rabbitmq"])
def test_many_are_published_by_real_brokers_and_deleted(add, app, name, request, rows):
    broker = request.getfixturevalue(f"{name}_broker")
    app.conf.update({**broker.celery, "task_default_queue": broker.queue("fast")})
    with airlock.scope(), atomic():
        for x in range(1500):
            airlock.enqueue(add, x)

    assert [message.payload[0][0] for message in broker.take(broker.queue("fast"))] == list(range(1500))
    assert rows() == []


def test_missing_exchange_concerns_nobody_else(add, app, log, rabbitmq_broker, rows):
    app.conf.update({**rabbitmq_broker.celery, "task_default_queue": rabbitmq_broker.queue("beside")})
    with airlock.scope(), atomic():
        airlock.enqueue(add, 1)
        airlock.enqueue(add, 2, _dispatch_options={"exchange": "not-there", "routing_key": "nowhere"})
        airlock.enqueue(add, 3)
    left = [(row.attempts, row.lease) for row in rows()]
    Relay("default").step()
    with airlock.scope(), atomic():
        airlock.enqueue(add, 4)

    assert left == [(0, None)] * 2
    arrived = rabbitmq_broker.take(rabbitmq_broker.queue("beside"))
    assert [message.payload[0][0] for message in arrived] == [1, 3, 4]
    assert [row.attempts for row in rows()] == [1]
    assert "NOT_FOUND" in rows()[0].error


def test_entry_that_others_have_taken_is_not_deleted(add, app, published, rows):
    with airlock.scope():
        with atomic():
            airlock.enqueue(add, 1)
        Entry.objects.update(lease="11111111-1111-1111-1111-111111111111")

    assert len(rows()) == 1


def test_zero_seconds_leave_everything_to_the_relay(order, outbox, published, rows):
    outbox(FAST_PATH_SECONDS=0)
    order()

    assert published() == []
    (row,) = rows()
    assert (row.held, row.lease) == (False, None)


# -- A broker that is down ---------------------------------------------------------------------------------------------


@pytest.fixture
def way(app, rabbitmq_broker):
    """The way to the broker, which can be closed."""
    app.conf.update(task_publish_retry_policy={"max_retries": 1, "interval_start": 0}, broker_connection_timeout=60)
    app.conf.broker_transport_options = {"max_retries": 1}  # else the oldest Kombu tries for ever to publish a canvas
    app.conf.task_default_queue = rabbitmq_broker.queue(secrets.token_hex(4))
    address = urlsplit(rabbitmq_broker.celery["broker_url"])
    with Proxy(address.port or 5672) as proxy:
        app.conf.broker_url = address._replace(netloc=f"guest:guest@127.0.0.1:{proxy.port}").geturl()
        yield proxy
        wait_for_publications()


@pytest.fixture
def down(way):
    """A way to a broker that is down."""
    way.refuses = True
    return way


@pytest.fixture
def arrived(app, rabbitmq_broker):
    """Takes the messages that have arrived there: the first argument of each."""
    return lambda: [message.payload[0][0] for message in rabbitmq_broker.take(app.conf.task_default_queue)]


@every_database
@pytest.mark.parametrize("number", [1, 10])
def test_broker_that_is_down_fails_no_request(add, app, log, number, order, rows):
    app.conf.broker_url = f"amqp://127.0.0.1:{free_port()}//"
    scope = order(number)

    assert scope.undispatched_intents == []
    assert [(row.held, row.lease, row.attempts) for row in rows()] == [(False, None, 0)] * number


@every_database
def test_what_is_left_to_the_relay_is_due_at_once(database, down, order, rows):
    order()

    if database == "sqlite":
        assert rows()[0].due <= timezone.now()
    else:
        now = {"postgresql": "CLOCK_TIMESTAMP()", "mariadb": "UTC_TIMESTAMP(6)"}[database]
        assert Entry.objects.extra(where=[f"due <= {now}"]).count() == 1


def test_outage_is_logged_once(down, log, order):
    for _ in range(3):
        order()

    assert [record.levelname for record in log.records] == ["ERROR"]
    assert "left to the relay" in log.text


def test_broker_that_has_failed_is_left_alone(down, order, outbox, rows):
    outbox(BREAKER_SECONDS=NEVER)
    order()
    asked = down.asked
    order()

    assert asked > 0
    assert down.asked == asked
    assert len(rows()) == 2


def test_broker_is_asked_again_after_a_while(arrived, down, log, order, outbox, rows):
    outbox(BREAKER_SECONDS=1e-6)
    order()
    down.refuses = False
    order(2)
    order(3)

    assert arrived() == [2, 2, 3, 3, 3]
    assert len(rows()) == 1
    assert [record.levelname for record in log.records] == ["ERROR", "INFO"]


def test_only_one_asks_a_broker_again_that_was_down(down, order, outbox, rows):
    outbox(BREAKER_SECONDS=1e-6, FAST_PATH_SECONDS=0.05)
    order()
    outbox(BREAKER_SECONDS=NEVER, FAST_PATH_SECONDS=0.05)
    down.answers.clear()
    asked = down.asked
    order()
    order()

    assert down.asked == asked + 1
    assert len(rows()) == 3
    down.answers.set()


def test_canvas_is_left_to_the_relay_if_the_broker_is_down(add, down, log, outbox, rows):
    outbox(FAST_PATH_SECONDS=60)  # an old Kombu waits between its attempts
    with airlock.scope(), atomic():
        airlock.enqueue(add.s(1) | add.s(2))

    assert [(row.held, row.lease) for row in rows()] == [(False, None)]
    assert [record.levelname for record in log.records] == ["ERROR"]


def test_process_that_can_start_no_thread_leaves_it_to_the_relay(log, monkeypatch, order, rows):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    order(2)
    monkeypatch.undo()

    assert [(row.held, row.lease) for row in rows()] == [(False, None)] * 2
    assert "can't start new thread" in log.text


# -- A broker that hangs -----------------------------------------------------------------------------------------------


def wait_for_publications():
    for thread in threading.enumerate():
        if thread.name == "airlock-outbox-publication":
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def hanging(outbox, way):
    """A way to a broker that does not answer, until `answers` is set."""
    outbox(FAST_PATH_SECONDS=0.05, BREAKER_SECONDS=NEVER)
    way.answers.clear()
    return way


def test_request_does_not_wait_for_a_broker_that_hangs(hanging, log, order, rows):
    order()

    assert [record.levelname for record in log.records] == ["ERROR"]
    assert "did not answer" in log.text
    (row,) = rows()
    assert row.lease is not None  # the thread may still publish it
    hanging.answers.set()


def test_nobody_else_waits_for_a_broker_that_hangs(hanging, order, rows):
    order()
    asked = hanging.asked
    order()

    assert hanging.asked == asked
    assert sorted(row.lease is None for row in rows()) == [False, True]
    hanging.answers.set()


def test_broker_that_never_answers_collects_no_threads(hanging, order, outbox, rows):
    outbox(FAST_PATH_SECONDS=0.01, BREAKER_SECONDS=1e-6)
    for _ in range(8):
        order()

    assert [thread.name for thread in threading.enumerate()].count("airlock-outbox-publication") == 5
    assert [row.lease is None for row in rows()] == [False] * 5 + [True] * 3
    hanging.answers.set()


def test_canvas_is_not_waited_for_either(add, hanging, rows):
    with airlock.scope(), atomic():
        airlock.enqueue(add.s(1) | add.s(2))

    assert len(rows()) == 1
    hanging.answers.set()


class Overriding(Task):
    """Its own code publishes it."""

    def apply_async(self, *args, **options):
        return super().apply_async(*args, **options)


@pytest.mark.parametrize("answers", [True, False])
def test_override_is_not_waited_for_either(answers, app, arrived, hanging, rows):
    app.conf.broker_transport_options |= {"confirm_publish": True}  # else it is the relay's
    hanging.answers.clear()
    task = app.task(note, base=Overriding, name="overriding")
    with airlock.scope(), atomic():
        airlock.enqueue(task, 1)

    assert len(rows()) == 1
    hanging.refuses = not answers
    hanging.answers.set()
    wait_for_publications()
    if answers:
        assert arrived() == [1]
    assert [(row.held, row.lease) for row in rows()] == [(False, None)] * (not answers)


class Slow:
    """An executor for a queue that takes its time."""

    def __init__(self):
        self.answers = threading.Event()
        self.jobs = []

    def __call__(self, intent):
        assert self.answers.wait(30)
        self.jobs.append(intent.args)


slow = Slow()


def test_other_queues_are_not_waited_for_either(outbox, rows):
    outbox(FAST_PATH_SECONDS=0.05)
    with airlock.scope(executor=slow), atomic():
        airlock.enqueue(note, 1)

    assert slow.jobs == []
    assert len(rows()) == 1
    slow.answers.set()
    wait_for_publications()
    assert slow.jobs == [(1,)]
    assert rows() == []


@every_database
def test_late_success_deletes(arrived, hanging, log, order, rows):
    order()
    hanging.answers.set()
    wait_for_publications()

    assert arrived() == [1]
    assert rows() == []
    assert [record.levelname for record in log.records] == ["ERROR", "INFO"]


@every_database
def test_late_failure_leaves_it_to_the_relay(hanging, log, order, rows):
    order()
    hanging.refuses = True
    hanging.answers.set()
    wait_for_publications()

    assert [(row.held, row.lease) for row in rows()] == [(False, None)]
    assert [record.levelname for record in log.records] == ["ERROR"]


# -- What is called ----------------------------------------------------------------------------------------------------

calls = []
threads = []


def note(x):
    calls.append(x)
    threads.append(threading.current_thread())


def fail(x):
    raise ValueError(x)


def be_cut_off():
    raise ConnectionResetError


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()
    threads.clear()


def test_callable_is_called_at_the_flush_and_then_deleted(rows):
    with airlock.scope(), atomic():
        airlock.enqueue(note, 1)

    assert calls == [1]
    assert threads == [threading.current_thread()]
    assert rows() == []


def test_callable_that_cannot_reach_something_says_nothing_of_the_broker(add, log, outbox, published, rows):
    outbox(BREAKER_SECONDS=NEVER)
    with airlock.scope(), atomic():
        airlock.enqueue(be_cut_off)
    with airlock.scope(), atomic():
        airlock.enqueue(add, 1)

    assert published() == [1]
    assert len(rows()) == 1
    assert "be_cut_off" in log.text


def test_override_that_cannot_reach_something_says_nothing_of_the_broker(add, app, log, outbox, published, rows):
    outbox(BREAKER_SECONDS=NEVER)

    class Locking(Task):
        def apply_async(self, *args, **options):
            raise ConnectionResetError("no lock")

    task = app.task(note, base=Locking, name="locking")
    with airlock.scope(), atomic():
        airlock.enqueue(task, 1)
    with airlock.scope(), atomic():
        airlock.enqueue(add, 2)

    assert published() == [2]
    assert [row.task for row in rows()] == ["locking"]
    assert [record.getMessage().partition(" ")[0] for record in log.records] == ["locking"]


def test_override_runs_in_the_context_of_its_intent(app, published, rows):
    asked_for = ContextVar("asked_for", default=None)

    class Asking(Task):
        def apply_async(self, args, kwargs, **options):
            return super().apply_async([asked_for.get()], kwargs, **options)

    task = app.task(note, base=Asking, name="asking")
    with airlock.scope(), atomic():
        asked_for.set("then")
        airlock.enqueue(task, 1)
        asked_for.set("later")

    assert published() == ["then"]
    assert rows() == []


def test_override_is_called_with_the_language_that_was_active(app, published, rows):
    class Speaking(Task):
        def apply_async(self, args, kwargs, **options):
            return super().apply_async([f"{get_language()} {get_current_timezone_name()}"], kwargs, **options)

    task = app.task(note, base=Speaking, name="speaking")
    with airlock.scope(), atomic(), language("de"), time_zone("Asia/Tokyo"):
        airlock.enqueue(task, "what is active")

    assert published() == ["de Asia/Tokyo"]
    assert rows() == []


def publish_from_a_task(app, base):
    """The ids that a message carries of the task which has enqueued it, and of the root of that."""
    noting = app.task(note, base=base, name="noting")

    @app.task(base=AirlockTask)
    def process():
        airlock.enqueue(noting, 1)

    process.apply(task_id="processing").get()
    Relay("default").step()
    with app.connection_for_write() as broker:
        message = broker.SimpleQueue(app.conf.task_default_queue).get(timeout=10)
        message.ack()
    return message.headers["parent_id"], message.headers["root_id"]


@pytest.mark.parametrize("seconds", [60, 0], ids=["request", "relay"])
@pytest.mark.usefixtures("published")
def test_override_is_told_which_task_has_enqueued_it(app, outbox, rows, seconds):
    class Locking(Task):
        def apply_async(self, args, kwargs, **options):
            return super().apply_async(args, kwargs, **options)

    outbox(FAST_PATH_SECONDS=seconds)
    assert publish_from_a_task(app, Locking) == ("processing", "processing")
    assert rows() == []


@pytest.mark.usefixtures("published")
def test_override_is_given_no_options_that_it_does_not_take(app, rows):
    class Strict(Task):
        def apply_async(self, args, kwargs, task_id=None):
            return super().apply_async(args, kwargs, task_id=task_id)

    publish_from_a_task(app, Strict)
    assert rows() == []


def test_override_is_that_of_the_app_of_the_request(published, app, rows):
    set_default_app(None)  # as in most projects: an app is current in the thread that has made it
    task = app.task(note, base=Overriding, name="overriding")
    with airlock.scope(), atomic():
        airlock.enqueue(task, 1)

    assert published() == [1]
    assert rows() == []


def test_canvas_is_published_as_it_was_recorded(add, published, rows):
    canvas = group(add.si(1), add.si(2))
    with airlock.scope(), atomic():
        airlock.enqueue(canvas)
        canvas.tasks[0].args = (3,)

    assert published() == [1, 2]
    assert rows() == []


def test_callable_that_fails_is_logged_and_left_to_the_relay(log, rows):
    with airlock.scope(), atomic():
        airlock.enqueue(note, 1)
        airlock.enqueue(fail, 2)
        airlock.enqueue(note, 3)

    assert calls == [1]
    assert [row.task.rpartition(".")[2] for row in rows()] == ["fail", "note"]
    assert [(row.held, row.lease) for row in rows()] == [(False, None)] * 2
    assert [record.levelname for record in log.records] == ["ERROR"]
    assert "ValueError: 2" in log.text


def test_callables_are_called_if_the_broker_is_down(add, down, rows):
    with airlock.scope(), atomic():
        airlock.enqueue(add, 1)
        airlock.enqueue(note, 2)

    assert calls == [2]
    assert [row.task for row in rows()] == ["shop.add"]


def interrupt():
    raise KeyboardInterrupt


def test_interruption_leaves_what_is_not_done_to_the_relay(rows):
    with pytest.raises(KeyboardInterrupt), airlock.scope(), atomic():
        airlock.enqueue(note, 1)
        airlock.enqueue(interrupt)
        airlock.enqueue(note, 3)

    assert calls == [1]
    assert [row.task.rpartition(".")[2] for row in rows()] == ["interrupt", "note"]
    assert [(row.held, row.lease) for row in rows()] == [(False, None)] * 2


def test_what_the_relay_may_have_is_not_dispatched_again(rows):
    with pytest.raises(KeyboardInterrupt), airlock.scope() as scope, atomic():
        airlock.enqueue(interrupt)
        airlock.enqueue(note, 3)
    scope.dispatch_all(scope.undispatched_intents)

    assert calls == []
    assert len(rows()) == 2
