"""What is published in the request, and how long that may take."""

import socket
import threading

import pytest
from django.db.transaction import atomic

import airlock
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


def test_published_before_it_is_deleted(add, app, rows):
    seen = []

    class Watching(app.amqp.Producer):
        def publish(self, *args, **kwargs):
            seen.extend(rows())
            return super().publish(*args, **kwargs)

    app.amqp.Producer = Watching
    with airlock.scope(), atomic():
        airlock.enqueue(add, 1)

    assert len(seen) == 1
    assert rows() == []


@pytest.mark.parametrize("name", ["redis", "rabbitmq"])
def test_many_are_published_by_real_brokers_and_deleted(add, app, name, request, rows):
    broker = request.getfixturevalue(f"{name}_broker")
    app.conf.update({**broker.celery, "task_default_queue": broker.queue("fast")})
    with airlock.scope(), atomic():
        for x in range(1500):
            airlock.enqueue(add, x)

    assert [message.payload[0][0] for message in broker.take(broker.queue("fast"))] == list(range(1500))
    assert rows() == []


def test_entry_that_others_have_taken_is_not_deleted(add, app, published, rows):
    from airlock.integrations.outbox.models import Entry

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
def down(app):
    """A broker that refuses, and knows how often it was asked."""
    app.conf.task_publish_retry = False
    with Proxy(free_port()) as proxy:
        proxy.refuses = True
        app.conf.broker_url = f"redis://127.0.0.1:{proxy.port}/0"
        yield proxy


@every_database
@pytest.mark.parametrize("number", [1, 10])
def test_broker_that_is_down_fails_no_request(add, app, log, number, order, rows):
    app.conf.broker_url = f"redis://127.0.0.1:{free_port()}/0"
    scope = order(number)

    assert scope.undispatched_intents == []
    assert [(row.held, row.lease, row.attempts) for row in rows()] == [(False, None, 0)] * number


@every_database
def test_what_is_left_to_the_relay_is_due_at_once(add, down, order, rows):
    from django.db import connection

    from airlock.integrations.outbox.models import Entry

    order()

    now = {"postgresql": "CLOCK_TIMESTAMP()", "mysql": "UTC_TIMESTAMP(6)"}
    condition = (
        f"due <= {now[connection.vendor]}" if connection.vendor in now else "due <= datetime('now', '+1 second')"
    )
    assert Entry.objects.extra(where=[condition]).count() == 1


def test_outage_is_logged_once(down, log, order):
    for _ in range(3):
        order()

    assert [record.levelname for record in log.records] == ["ERROR"]
    assert "left to the relay" in log.text


def test_broker_that_has_failed_is_left_alone(down, order, outbox, published, rows):
    outbox(BREAKER_SECONDS=NEVER)
    order()
    asked = down.asked
    order()

    assert asked > 0
    assert down.asked == asked
    assert len(rows()) == 2


def test_broker_is_asked_again_after_a_while(app, down, log, order, outbox, redis_broker, rows):
    outbox(BREAKER_SECONDS=1e-6)
    order()
    app.close()
    app.conf.update({**redis_broker.celery, "task_default_queue": redis_broker.queue("again")})
    order(2)
    order(3)

    assert [message.payload[0][0] for message in redis_broker.take(redis_broker.queue("again"))] == [2, 2, 3, 3, 3]
    assert len(rows()) == 1
    assert [record.levelname for record in log.records] == ["ERROR", "INFO"]


def test_canvas_is_left_to_the_relay_if_the_broker_is_down(add, down, log, rows):
    with airlock.scope(), atomic():
        airlock.enqueue(add.s(1) | add.s(2))

    assert [(row.held, row.lease) for row in rows()] == [(False, None)]
    assert [record.levelname for record in log.records] == ["ERROR"]


# -- A broker that hangs -----------------------------------------------------------------------------------------------


class Hanging:
    """A broker that takes connections and does not answer, until it goes on as another one, or breaks off."""

    def __init__(self):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"

    def go_on_as(self, url):
        self._end(socket.create_connection(("127.0.0.1", int(url.split(":")[2].partition("/")[0]))))

    def break_off(self):
        self._end(None)

    def _end(self, server):
        with self._listening, self._listening.accept()[0] as client:
            if server is None:
                return
            with server:
                to_client = threading.Thread(target=self._pump, args=(server, client))
                to_server = threading.Thread(target=self._pump, args=(client, server))
                to_client.start()
                to_server.start()
                wait_for_publications()
                for end in (client, server):
                    end.shutdown(socket.SHUT_RDWR)
                to_client.join()
                to_server.join()

    @staticmethod
    def _pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass


def wait_for_publications():
    for thread in threading.enumerate():
        if thread.name == "airlock-outbox-publication":
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def hanging(app, outbox):
    outbox(FAST_PATH_SECONDS=0.05, BREAKER_SECONDS=NEVER)
    app.conf.task_publish_retry = False
    hanging = Hanging()
    app.conf.broker_url = hanging.url
    return hanging


def test_request_does_not_wait_for_a_broker_that_hangs(hanging, log, order, rows):
    order()

    assert [record.levelname for record in log.records] == ["ERROR"]
    assert "did not answer" in log.text
    (row,) = rows()
    assert row.lease is not None  # the thread may still publish it
    hanging.break_off()
    wait_for_publications()


def test_nobody_else_waits_for_a_broker_that_hangs(hanging, order, rows):
    order()
    threads = threading.active_count()
    order()

    assert threading.active_count() == threads
    assert sorted(row.lease is None for row in rows()) == [False, True]
    hanging.break_off()
    wait_for_publications()


def test_canvas_is_not_waited_for_either(add, hanging, rows):
    with airlock.scope(), atomic():
        airlock.enqueue(add.s(1) | add.s(2))

    assert len(rows()) == 1
    hanging.break_off()
    wait_for_publications()


@every_database
def test_late_success_deletes(app, hanging, log, order, redis_broker, rows):
    app.conf.task_default_queue = redis_broker.queue("late")
    order()
    hanging.go_on_as(redis_broker.celery["broker_url"])

    assert [message.payload[0][0] for message in redis_broker.take(redis_broker.queue("late"))] == [1]
    assert rows() == []
    assert [record.levelname for record in log.records] == ["ERROR", "INFO"]


@every_database
def test_late_failure_leaves_it_to_the_relay(hanging, log, order, rows):
    order()
    hanging.break_off()
    wait_for_publications()

    assert [(row.held, row.lease) for row in rows()] == [(False, None)]
    assert [record.levelname for record in log.records] == ["ERROR"]


# -- What is called ----------------------------------------------------------------------------------------------------

calls = []


def note(x):
    calls.append(x)


def fail(x):
    raise ValueError(x)


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


def test_callable_is_called_at_the_flush_and_then_deleted(rows):
    with airlock.scope(), atomic():
        airlock.enqueue(note, 1)

    assert calls == [1]
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
