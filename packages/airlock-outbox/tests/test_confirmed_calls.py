"""On RabbitMQ, an entry is not deleted before the broker has confirmed what was published, however that was."""

from urllib.parse import urlsplit

import pytest
from celery import Celery, Task, chain, chord, group

import airlock
from airlock.integrations.outbox.management.commands.airlock_relay import Command
from own_brokers import Proxy

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
]


class Overriding(Task):
    """Its tasks are recorded as calls."""

    def apply_async(self, *args, **options):
        return super().apply_async(*args, **options)


#: What can be enqueued, made of a task.
PUBLISHED_AT_ONCE = {
    "task": lambda task: task,
    "group": lambda task: group(task.si(1), task.si(2)),
    "chain": lambda task: chain(task.si(1), task.si(2)),
    "group of chains": lambda task: group(chain(task.si(1), group(task.si(2), task.si(3))), task.si(4)),
    "chain that ends with a group": lambda task: chain(task.si(1), group(task.si(2), task.si(3))),
}
LEFT_TO_THE_RELAY = {
    "override": lambda task: task.app.tasks["overriding"],
    "chord": lambda task: chord([task.si(1), task.si(2)], task.si(3)),
    "chain that begins with a group": lambda task: chain(group(task.si(1), task.si(2)), task.si(3)),
    "group with an override": lambda task: group(task.si(1), LEFT_TO_THE_RELAY["override"](task).si()),
    "group with a chord": lambda task: group(task.si(1), LEFT_TO_THE_RELAY["chord"](task)),
    "options of its own": lambda task: task.si(1).set(retry_policy={"max_retries": 1}),
    "chain with options of its own": lambda task: chain(task.si(1).set(retry=False), task.si(2)),
}


@pytest.fixture
def way(app, rabbitmq_broker):
    """The way to RabbitMQ, which can be cut."""
    address = urlsplit(rabbitmq_broker.celery["broker_url"])
    with Proxy(address.port) as way:
        own = address._replace(netloc=f"{address.username}:{address.password}@127.0.0.1:{way.port}")
        app.conf.update(
            broker_url=own.geturl(),
            task_default_queue=rabbitmq_broker.celery["task_default_queue"],
            task_publish_retry=False,
        )
        yield way


def set_up(app):
    app.conf.result_backend = "cache+memory://"  # for chords
    app.task(name="overriding", base=Overriding)(nothing)
    return app.task(name="notify")(nothing)


def nothing(*numbers): ...


@pytest.fixture
def notify(app):
    return set_up(app)


@pytest.fixture
def relay(app):
    """Relays as another process does, with an app of its own."""
    other = Celery("relay", set_as_current=False)
    set_up(other)

    def relay():
        other.conf.update({key: app.conf[key] for key in ("broker_url", "task_default_queue", "task_publish_retry")})
        make_current(other)
        try:
            Command().run_from_argv(["manage.py", "airlock_relay", "--skip-checks", "--drain"])
        finally:
            make_current(app)

    yield relay
    other.close()


def make_current(app):
    app.set_current()
    app.set_default()


def enqueue(called):
    with airlock.scope():
        airlock.enqueue(called)


def lose_what_is_published(way):
    """Cut the way before the next message is complete. Who does not wait for an answer has written it by then."""
    way.cut_after(10)
    way.on_cut = way.go


@pytest.mark.parametrize("kind", PUBLISHED_AT_ONCE)
def test_nothing_is_deleted_that_rabbitmq_has_not_confirmed(kind, notify, way, outbox, rows):
    outbox(FAST_PATH_SECONDS=60)
    called = PUBLISHED_AT_ONCE[kind](notify)
    enqueue(called)
    assert rows() == []

    lose_what_is_published(way)
    enqueue(called)

    assert len(rows()) == 1


@pytest.mark.parametrize("kind", LEFT_TO_THE_RELAY)
def test_what_cannot_be_confirmed_is_left_to_the_relay(kind, notify, way, outbox, rows, relay):
    outbox(FAST_PATH_SECONDS=60)
    enqueue(LEFT_TO_THE_RELAY[kind](notify))
    assert len(rows()) == 1

    relay()
    assert rows() == []


@pytest.mark.parametrize("kind", [*PUBLISHED_AT_ONCE, *LEFT_TO_THE_RELAY])
def test_a_relay_deletes_nothing_that_rabbitmq_has_not_confirmed(kind, notify, way, outbox, rows, relay):
    outbox(FAST_PATH_SECONDS=0)
    called = {**PUBLISHED_AT_ONCE, **LEFT_TO_THE_RELAY}[kind](notify)
    enqueue(called)
    relay()
    assert rows() == []

    enqueue(called)
    lose_what_is_published(way)
    with pytest.raises(SystemExit):
        relay()

    assert len(rows()) == 1


@pytest.mark.parametrize("kind", LEFT_TO_THE_RELAY)
def test_with_confirm_publish_nothing_is_left_to_the_relay(kind, app, notify, way, outbox, rows):
    outbox(FAST_PATH_SECONDS=60)
    app.conf.broker_transport_options = {"confirm_publish": True}

    enqueue(LEFT_TO_THE_RELAY[kind](notify))

    assert rows() == []


def test_other_brokers_need_no_confirms(app, notify, outbox, rows):
    outbox(FAST_PATH_SECONDS=60)
    app.conf.task_default_queue = "not-that-of-other-tests"

    for make in LEFT_TO_THE_RELAY.values():
        enqueue(make(notify))

    assert rows() == []


def test_what_one_message_has_broken_costs_its_neighbours_no_attempt(notify, way, outbox, rows, relay):
    outbox(FAST_PATH_SECONDS=0, MAX_ATTEMPTS=1, BACKOFF_SECONDS=0.001)
    with airlock.scope():
        airlock.enqueue(notify)
        airlock.enqueue(notify, _dispatch_options={"exchange": "that-is-not-there", "routing_key": "any"})
        airlock.enqueue(notify)

    relay()
    relay()

    (parked,) = rows()
    assert parked.due is None
    assert "that-is-not-there" in parked.error
