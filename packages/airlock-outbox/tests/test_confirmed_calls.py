"""On RabbitMQ, an entry is not deleted before the broker has confirmed what was published, however that was."""

from urllib.parse import urlsplit

import pytest
from celery import Task

import airlock
from own_brokers import Proxy

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.django_db(transaction=True),
]


class Overriding(Task):
    """Its tasks are recorded as calls."""

    def apply_async(self, *args, **options):
        return super().apply_async(*args, **options)


@pytest.fixture
def way(app, rabbitmq_broker):
    """The way to RabbitMQ, which can be cut."""
    address = urlsplit(rabbitmq_broker.celery["broker_url"])
    with Proxy(address.port) as way:
        own = address._replace(netloc=f"{address.username}:{address.password}@127.0.0.1:{way.port}")
        app.conf.update(broker_url=own.geturl(), task_default_queue=rabbitmq_broker.celery["task_default_queue"])
        yield way


@pytest.mark.parametrize(
    "base",
    [
        Task,
        pytest.param(Overriding, marks=pytest.mark.xfail(reason="a call is over when it has written to its socket")),
    ],
)
def test_nothing_is_deleted_that_rabbitmq_has_not_confirmed(base, app, way, outbox, rows):
    outbox(FAST_PATH_SECONDS=60)

    @app.task(name="notify", base=base, shared=False)
    def notify(number): ...

    with airlock.scope():
        airlock.enqueue(notify, 1)
    assert rows() == []

    way.cut_after(10)  # before the message is complete
    way.on_cut = way.go
    with airlock.scope():
        airlock.enqueue(notify, 2)

    assert len(rows()) == 1
