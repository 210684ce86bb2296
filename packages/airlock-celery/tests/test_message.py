"""What is recorded and published later is what Celery would have published at once."""

from __future__ import annotations

import datetime as dt
import secrets
from typing import TYPE_CHECKING, Any

import pytest
from celery import Task, chain, signals
from kombu import Exchange, Queue
from kombu.exceptions import EncodeError, OperationalError

import airlock
from airlock.integrations.executors.celery import CeleryExecutor, Message
from processes import free_port
from services import RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery


@pytest.fixture(params=["memory", "redis", "rabbitmq"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "memory":
        return {}
    return dict(request.getfixturevalue(f"{request.param}_broker").celery)


@pytest.fixture
def shop(make_app: Callable[..., Celery], settings: dict[str, Any]) -> Iterator[Celery]:
    """An app with queues of its own."""
    default = f"{RUN}.messages-{secrets.token_hex(4)}"
    app = make_app({**settings, "task_default_queue": default})
    app.set_current()
    now = dt.datetime.now(dt.UTC)
    app.now = lambda: now  # what is counted from now is the same twice
    topics = Exchange(f"{default}-topics", type="topic")
    # The last one takes the events that a task was sent.
    app.conf.task_queues = [
        Queue(default),
        Queue(f"{default}-urgent", max_priority=10),
        Queue(f"{default}-news", topics, routing_key="news.*"),
        Queue(f"{default}-events", Exchange(f"{default}-celeryev", type="topic"), routing_key="task.sent"),
    ]
    app.conf.event_exchange = f"{default}-celeryev"
    app.task(name="notify")(notify)
    app.task(name="notify_ignoring", ignore_result=True)(notify)
    app.task(name="notify_with_options", priority=5, expires=100, compression="zlib")(notify)
    taken(app)
    yield app
    with app.connection_for_write() as connection:
        if connection.transport.driver_type == "amqp":
            for queue in app.amqp.queues.values():
                queue(connection.default_channel).delete()
                queue.exchange(connection.default_channel).delete()


def notify(*args: Any, **kwargs: Any) -> None:
    """Nobody runs it."""


def taken(app: Celery) -> list[Any]:
    """Take all that waits, without what the broker adds. It declares the queues, too."""
    found = []
    varying = {"delivery_tag", "consumer_tag", "message_count"}
    with app.connection_for_read() as connection:
        for name in list(app.amqp.queues):
            source = app.amqp.queues[name](connection.default_channel)
            source.declare()
            for message in iter(lambda: source.get(no_ack=True, accept=None), None):  # noqa: B023
                known = {key: value for key, value in message.properties.items() if key not in varying}
                delivery = {key: value for key, value in message.delivery_info.items() if key not in varying}
                content = (message.content_type, message.content_encoding, message.body)
                headers = message.headers
                if headers.get("ignore_result", 0) is None:  # before Celery 5.7 it is `False` for an unknown task
                    headers["ignore_result"] = False
                found.append((name, headers, known, delivery, content))
    return found


def later(message: Message | None, app: Celery) -> Message:
    """What another process reads of a message."""
    assert message is not None
    return Message.from_json(message.to_json(), app)


def record(app: Celery, task: str, *args: Any, **options: Any) -> Message:
    message = CeleryExecutor(app).record(airlock.Intent(task, args, dispatch_options=options))
    assert message is not None
    return message


def publish(app: Celery, *messages: Message) -> None:
    """Publish as an outbox does: together."""
    intents = [airlock.Intent(message, dispatch_options={"task_id": message.task_id}) for message in messages]
    assert CeleryExecutor(app).dispatch_many(intents) == [None] * len(messages)


#: A task, or a function that makes a signature of it; positional arguments; options, where `-x` is a queue of the test.
CASES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "plain": ("notify", (1, "ä", {"n": [None, 1.5]}), {}),
    "countdown": ("notify", (), {"countdown": 60}),
    "expires": ("notify", (), {"expires": 60}),
    "priority": ("notify", (), {"priority": 9, "queue": "-urgent"}),
    "headers": ("notify", (), {"headers": {"tenant": "a", "raw": b"\xff", "deep": {"n": 1}}}),
    "properties": ("notify", (), {"delivery_mode": 1, "message_id": "m", "reply_to": "somewhere"}),
    "links": ("notify", (), {"link": "notify", "link_error": "notify"}),
    "group": ("notify", (), {"group_id": "g", "group_index": 3}),
    "compression": ("notify", ("x" * 2000,), {"compression": "zlib"}),
    "msgpack": ("notify", (1, "ä"), {"serializer": "msgpack"}),
    "queue": ("notify", (), {"queue": "-urgent"}),
    "topic": ("notify", (), {"queue": "-news", "routing_key": "news.sport"}),
    "limits": ("notify", (), {"time_limit": 10, "soft_time_limit": 5, "shadow": "other"}),
    "unknown name": ("elsewhere.ship", (2,), {"countdown": 5}),
    "task options": ("notify_with_options", (), {}),
    "signature": (lambda app: app.tasks["notify"].s(2).set(countdown=9, ignore_result=True), (1,), {}),
    "immutable": (lambda app: app.tasks["notify_ignoring"].si(3), (), {}),
    "ignoring": ("notify_ignoring", (), {}),
    "ignored": ("notify", (), {"ignore_result": True}),
    "not ignored": ("notify_ignoring", (), {"ignore_result": False}),
}


def case_of(app: Celery, case: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    task, args, options = CASES[case]
    default = app.conf.task_default_queue
    own = {key: f"{default}{value}" for key, value in options.items() if key == "queue"}
    links = {key: app.signature(value) for key, value in options.items() if key.startswith("link")}
    return task(app) if callable(task) else task, args, {"task_id": "t1", **options, **own, **links}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("protocol", [2, 1], ids=["protocol 2", "protocol 1"])
def test_a_message_arrives_as_if_published_at_once(shop: Celery, case: str, protocol: int) -> None:
    shop.conf.task_protocol = protocol
    task, args, options = case_of(shop, case)
    message = later(CeleryExecutor(shop).record(airlock.Intent(task, args, dispatch_options=options)), shop)
    assert (message.task_id, taken(shop)) == ("t1", [])

    publish(shop, message)
    recorded = taken(shop)
    if isinstance(task, str):
        task = shop.tasks.get(task) or shop.signature(task)
    task.apply_async(args, {}, **options)

    assert len(recorded) == 1
    assert recorded == taken(shop)


@pytest.mark.parametrize("settings", ["memory", "rabbitmq"], indirect=True)
def test_the_event_that_a_task_was_sent_goes_along(shop: Celery) -> None:
    shop.conf.task_send_sent_event = True
    publish(shop, *(later(record(shop, "notify", number), shop) for number in range(3)))

    arrived = [queue.rpartition("-")[2] for queue, *_ in taken(shop)]
    assert arrived.count("events") == 3
    assert len(arrived) == 6


def test_a_message_is_published_by_itself_too(shop: Celery) -> None:
    record(shop, "notify", 1).apply_async()

    assert len(taken(shop)) == 1


@pytest.mark.parametrize("of", [{"broker_url": "amqp://127.0.0.1:{}//"}, {"result_backend": "redis://127.0.0.1:{}/0"}])
def test_nobody_is_asked_while_recording(make_app: Callable[..., Celery], of: dict[str, str]) -> None:
    app = make_app({key: url.format(free_port()) for key, url in of.items()})
    app.task(name="notify")(notify)
    message = record(app, "notify")

    if "broker_url" in of:
        with pytest.raises(OperationalError):
            message.apply_async(retry=False)


@pytest.mark.parametrize("settings", [{}], ids=["memory"])
class TestWhatIsRecorded:
    def test_what_has_to_be_called_is_not_recorded(self, shop: Celery) -> None:
        class Overriding(Task):
            def apply_async(self, *args: Any, **options: Any) -> Any: ...

        task = shop.tasks["notify"]
        executor = CeleryExecutor(shop)
        overriding = shop.task(name="overriding", base=Overriding)(notify)
        for called in (notify, overriding, chain(task.s(), task.s())):
            assert executor.record(airlock.Intent(called)) is None
        assert executor.record(airlock.Intent(task, dispatch_options={"retry": False})) is None
        shop.conf.task_always_eager = True
        assert executor.record(airlock.Intent(task)) is None

    def test_a_message_is_what_it_records(self, shop: Celery) -> None:
        message = record(shop, "notify")

        assert CeleryExecutor(shop).record(airlock.Intent(message)) is message
        assert (message.task, message.task_id in repr(message)) == ("notify", True)

    def test_it_has_the_headers_of_where_it_was_recorded(self, shop: Celery) -> None:
        def trace(headers: dict[str, Any], **told: Any) -> None:
            headers["trace"] = "abc"

        signals.before_task_publish.connect(trace)
        try:
            message = record(shop, "notify")
        finally:
            signals.before_task_publish.disconnect(trace)
        message.apply_async()

        assert taken(shop)[0][1]["trace"] == "abc"

    def test_an_argument_that_cannot_be_serialised_is_refused(self, shop: Celery) -> None:
        with pytest.raises(EncodeError):
            record(shop, "notify", object())

    @pytest.mark.parametrize(
        ("options", "advice"),
        [
            ({"serializer": "pickle"}, "another serializer"),
            ({"queue": Queue("unknown")}, "task_queues"),
            ({"headers": {"what": object()}}, "strings, numbers"),
        ],
        ids=["pickle", "queue", "header"],
    )
    def test_what_another_process_could_not_publish_is_refused(
        self, shop: Celery, options: dict[str, Any], advice: str
    ) -> None:
        with pytest.raises(airlock.UsageError, match=advice):
            record(shop, "notify", **options)

    def test_an_exchange_of_its_own_is_kept_by_name(self, shop: Celery) -> None:
        topics = shop.amqp.queues[f"{shop.conf.task_default_queue}-news"].exchange
        later(record(shop, "notify", exchange=topics, routing_key="news.sport"), shop).apply_async()

        assert [queue.rpartition("-")[2] for queue, *_ in taken(shop)] == ["news"]

    def test_a_task_of_another_app_is_refused(self, shop: Celery, make_app: Callable[..., Celery]) -> None:
        with pytest.raises(airlock.UsageError, match="not of"):
            CeleryExecutor(make_app()).record(airlock.Intent(shop.tasks["notify"]))
