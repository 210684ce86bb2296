"""Many intents at a time: what arrives is the same as with `.delay()` one by one, and the account of it is right.

On each transport, and, in the sessions of the matrix, with each version of Celery.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import pytest
from amqp import ChannelError
from amqp.exceptions import MessageNacked
from celery import Task, chain, chord, group, signals
from celery.canvas import Signature
from kombu import Consumer, Exchange, Producer, Queue, serialization
from kombu.exceptions import EncodeError, OperationalError

import airlock
from airlock.integrations.executors.celery import CeleryExecutor
from own_brokers import Proxy
from services import RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery

TRANSPORTS = ["memory", "redis", "rabbitmq", "rabbitmq with confirms"]

#: With Kombu 5.7, what goes to Redis goes together, and fails together.
CAN_BATCH = hasattr(Producer, "batch")


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def settings(transport: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of an app whose broker is of this transport."""
    own: dict[str, Any] = {"task_default_queue": f"{RUN}.batches-{secrets.token_hex(4)}"}
    if transport == "redis":
        return request.getfixturevalue("redis_broker").celery | own
    if transport.startswith("rabbitmq"):
        options = {"confirm_publish": "confirms" in transport}
        return request.getfixturevalue("rabbitmq_broker").celery | own | {"broker_transport_options": options}
    return own


class Recording(Task):
    """Tasks that look at how they are published."""

    seen: ClassVar[list[Any]]

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append((args, dict(kwargs)))
        return super().apply_async(*args, **kwargs)


def notify(*args: Any, **kwargs: Any) -> None:
    """Nobody runs it."""


@dataclass
class Shop:
    """An app, its queues, and all that can be seen of what it publishes."""

    app: Celery
    queues: list[str]
    seen: list[Any] = field(default_factory=list)

    @property
    def keeps_order(self) -> bool:
        """Whether messages arrive in order. On RabbitMQ they need not, of what is confirmed and what is not."""
        return self.app.conf.broker_transport_options.get("confirm_publish", True)

    def take(self) -> list[Any]:
        """Take all that waits in the queues."""
        with self.app.producer_or_acquire() as producer:
            if producer.connection.transport.driver_type == "amqp":
                # It answers when it has read all that was published before over this connection.
                producer.channel.queue_declare(self.queues[0], passive=True)
        taken = []
        with self.app.connection_for_read() as connection:
            for name in self.queues:
                source = Queue(name, no_declare=True)(connection.default_channel)
                source.maybe_bind(connection.default_channel)
                for message in iter(lambda: source.get(no_ack=True, accept=None), None):  # noqa: B023
                    varying = {"delivery_tag", "consumer_tag", "message_count"}
                    taken.append(
                        {
                            "queue": name,
                            "headers": message.headers,
                            "properties": {k: v for k, v in message.properties.items() if k not in varying},
                            "delivery": {k: v for k, v in message.delivery_info.items() if k not in varying},
                            "content": (message.content_type, message.content_encoding, message.body),
                        }
                    )
        return taken


@pytest.fixture
def shop(make_app: Callable[..., Celery], settings: dict[str, Any]) -> Iterator[Shop]:
    app = make_app(settings)
    app.set_current()
    default = app.conf.task_default_queue
    others = [f"{default}-{name}" for name in ("emails", "reports", "topic", "passing", "expiring")]
    app.conf.task_queues = [
        Queue(default),
        Queue(others[0], max_priority=10),
        Queue(others[1], Exchange(f"{default}-direct"), routing_key="reports"),
        Queue(others[2], Exchange(f"{default}-topics", type="topic"), routing_key="news.*"),
        Queue(others[3], auto_delete=True),
        Queue(others[4], expires=60),
    ]
    app.conf.task_routes = {"notify_by_route": {"queue": others[0], "priority": 3}}
    # So that what is counted from now is the same twice.
    now = dt.datetime.now(dt.UTC)
    app.now = lambda: now
    for base in (Task, Recording):
        app.task(name=f"notify_{base.__name__.lower()}", base=base)(notify)
    app.task(name="notify_by_route")(notify)
    app.task(name="notify_with_options", priority=5, expires=100, serializer="pickle", compression="zlib")(notify)
    app.task(name="notify_ignoring", ignore_result=True)(notify)
    serialization.register("shouting", lambda body: json.dumps(body).upper(), json.loads, "application/x-shouting")
    shop = Shop(app, [default, *others])
    with app.connection_for_write() as connection:
        for queue in app.amqp.queues.values():
            queue(connection.default_channel).declare()

    def see(what: str) -> Callable[..., None]:
        def receiver(signal: object, **told: Any) -> None:
            shop.seen.append((what, repr(told)))

        return receiver

    receivers = {name: see(name) for name in ("before_task_publish", "after_task_publish", "task_sent")}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver)
    Recording.seen = shop.seen
    yield shop
    serialization.unregister("shouting")
    for name, receiver in receivers.items():
        getattr(signals, name).disconnect(receiver)
    shop.take()
    with app.connection_for_write() as connection:
        if connection.transport.driver_type == "amqp":  # what the others have is gone with this run
            for queue in app.amqp.queues.values():
                queue(connection.default_channel).delete()
                queue.exchange(connection.default_channel).delete()


#: A wish: a task, its arguments, its options. There is nothing in it that changes when it is published.
Wish = tuple[Any, tuple[Any, ...], dict[str, Any], dict[str, Any]]


def wishes_of(app: Celery) -> dict[str, list[Wish]]:
    default = app.conf.task_default_queue
    notify = app.tasks["notify_task"]
    later = app.now() + dt.timedelta(hours=7)

    def wish(task: Any = notify, *args: Any, **options: Any) -> Wish:
        return (task, args, {}, options)

    return {
        "plain": [(notify, (number, "ä"), {"key": {"n": [None, 1.5]}}, {}) for number in range(20)],
        "times": [
            *(wish(countdown=60), wish(eta=later), wish(expires=60)),
            *(wish(expires=later), wish(expires=later, eta=later)),
        ],
        "queues": [wish(queue=f"{default}{name}") for name in ("-emails", "", "-reports", "-emails")],
        "routing": [
            wish(exchange=f"{default}-topics", routing_key="news.sport"),
            wish(exchange=f"{default}-direct", routing_key="reports"),
            wish(exchange=f"{default}-topics", routing_key="nowhere"),
            wish(routing_key=f"{default}-emails", exchange=""),
        ],
        "routes": [wish(app.tasks["notify_by_route"]), wish(), wish(app.tasks["notify_by_route"], priority=8)],
        "priorities": [wish(priority=number, queue=f"{default}-emails") for number in (0, 9, 3, 9)],
        "serialisers": [wish(notify, 1, serializer=name) for name in ("json", "pickle", "shouting")],
        "compression": [wish(notify, "x" * 2000, compression=name) for name in ("zlib", "bzip2", None)],
        "headers": [wish(headers={"tenant": "a", "deep": {"n": 1}}), wish(shadow="other"), wish(reply_to="somewhere")],
        "properties": [wish(delivery_mode=1), wish(message_id="m1", app_id="shop"), wish(correlation_id="c1")],
        "limits": [wish(time_limit=10, soft_time_limit=5), wish(retry=False), wish(retry_policy={"max_retries": 1})],
        "links": [wish(link=notify.s(2), link_error=notify.si(3)), wish(root_id="r", parent_id="p")],
        "task options": [wish(app.tasks["notify_with_options"]), wish(app.tasks["notify_ignoring"])],
        "names": [wish("notify_task", 1), wish("elsewhere.ship", 2, countdown=5)],
        "signatures": [
            wish(notify.s(2).set(countdown=9), 1),
            *(wish(notify.si(3)), wish(app.signature("elsewhere", args=(1,)))),
        ],
        "stamps": [wish(stamped_headers=["stamp"], stamp="seen")],
        "canvas": [
            wish(notify.s(1) | notify.s(2) | notify.s(3)),
            wish(),
            wish(group(notify.s(number) for number in range(3))),
            wish(group(notify.s(number) for number in range(3)) | notify.s()),
            wish(chord([notify.s(1), notify.s(2)], notify.s(3))),
            wish(notify.chunks([(1,), (2,), (3,)], 2)),
        ],
        "passing queues": [wish(queue=f"{default}-{name}") for name in ("passing", "expiring", "passing", "expiring")],
        "large": [wish(notify, "x" * size) for size in (1, 200_000, 131_064, 1)],
        "timeouts": [wish(), wish(timeout=5), wish()],
        "overrides": [wish(app.tasks["notify_recording"], 1), wish(), wish(app.tasks["notify_recording"], 2)],
    }


def one_by_one(shop: Shop, wishes: list[Wish], ids: list[str]) -> None:
    for (task, args, kwargs, options), task_id in zip(wishes, ids, strict=True):
        if isinstance(task, str):
            task = shop.app.tasks.get(task) or shop.app.signature(task)
        task.apply_async(args, kwargs, **{"task_id": task_id, **options})


def together(shop: Shop, wishes: list[Wish], ids: list[str]) -> None:
    with airlock.scope(executor=CeleryExecutor(shop.app)) as scope:
        for (task, args, kwargs, options), task_id in zip(wishes, ids, strict=True):
            airlock.enqueue(task, *args, _dispatch_options={"task_id": task_id, **options}, **kwargs)
    assert scope.undispatched_intents == []


def seen_of(shop: Shop, publish: Callable[..., None], case: str) -> tuple[list[str], list[str]]:
    """What is seen on the way, and what arrives, with the ids that Celery makes up replaced by their place."""
    wishes = wishes_of(shop.app)[case]
    shop.seen.clear()
    publish(shop, wishes, [f"id-{number}" for number in range(len(wishes))])
    made: dict[str, str] = {}

    def stable(what: object) -> str:
        uuid = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
        return re.sub(uuid, lambda match: made.setdefault(match[0], f"made-{len(made)}"), repr(what))

    seen, arrived = list(map(stable, shop.seen)), list(map(stable, shop.take()))
    return seen, arrived if shop.keeps_order else sorted(arrived)


CASES = [
    *("plain", "times", "queues", "routing", "routes", "priorities", "serialisers", "compression", "headers"),
    *("properties", "limits", "links", "task options", "names", "signatures", "stamps", "canvas", "passing queues"),
    *("large", "timeouts", "overrides"),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("protocol", [2, 1], ids=["protocol 2", "protocol 1"])
def test_the_same_is_called_and_the_same_arrives(shop: Shop, transport: str, case: str, protocol: int) -> None:
    shop.app.conf.task_protocol = protocol

    alone = seen_of(shop, one_by_one, case)
    many = seen_of(shop, together, case)

    assert many == alone


# Accounts


def left_with(shop: Shop, *wishes: Wish, executor: CeleryExecutor | None = None) -> airlock.Scope:
    """A scope that was left and not yet flushed."""
    scope = airlock.scope(executor=executor or CeleryExecutor(shop.app))
    scope.enter()
    for task, args, kwargs, options in wishes:
        airlock.enqueue(task, *args, _dispatch_options=options, **kwargs)
    scope.exit()
    return scope


def told(shop: Shop) -> list[Any]:
    """The first argument of each message that waits."""
    told = [json.loads(message["content"][2])[0][0] for message in shop.take()]
    return told if shop.keeps_order else sorted(told)


def numbers(intents: list[airlock.Intent]) -> list[Any]:
    return [intent.args[0] for intent in intents]


def notices(shop: Shop, *firsts: Any) -> list[Wish]:
    return [(shop.app.tasks["notify_task"], (first,), {}, {}) for first in firsts]


def test_an_argument_that_cannot_be_serialised_stops_those_after_it(shop: Shop) -> None:
    scope = left_with(shop, *notices(shop, 1, 2, object(), 4, 5))

    with pytest.raises(EncodeError) as raised:
        scope.flush()

    assert scope.intents[2].id in raised.value.__notes__[0]
    assert numbers(scope.dispatched_intents) == told(shop) == [1, 2]
    assert scope.undispatched_intents == scope.intents[2:]
    assert scope.unknown_intents == []


def test_a_task_that_cannot_even_be_looked_at_fails_alone(shop: Shop) -> None:
    class Homeless(Signature):
        @property
        def app(self) -> Any:
            raise LookupError("which app?")

    scope = left_with(shop, *notices(shop, 1), (Homeless("notify_task"), (2,), {}, {}), *notices(shop, 3))
    with pytest.raises(LookupError, match="which app"):
        scope.flush()

    assert numbers(scope.dispatched_intents) == told(shop) == [1]
    assert numbers(scope.undispatched_intents) == [2, 3]
    assert scope.unknown_intents == []


def test_callables_are_called_in_their_turn(shop: Shop) -> None:
    waiting = []

    def look() -> None:
        waiting.append(told(shop))

    scope = left_with(shop, *notices(shop, 1, 2), (look, (), {}, {}), *notices(shop, 3, 4), (look, (), {}, {}))
    scope.flush()

    assert waiting == [[1, 2], [3, 4]]
    assert scope.undispatched_intents == []


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_an_override_that_raises_stops_those_after_it(shop: Shop, error: BaseException) -> None:
    class Failing(Task):
        def apply_async(self, *args: Any, **options: Any) -> Any:
            raise error

    failing = shop.app.task(name="notify_failing", base=Failing)(notify)
    scope = left_with(shop, *notices(shop, 1, 2), (failing, (3,), {}, {}), *notices(shop, 4, 5))
    with pytest.raises(type(error)) as raised:
        scope.flush()

    assert raised.value is error
    assert numbers(scope.dispatched_intents) == told(shop) == [1, 2]
    assert numbers(scope.undispatched_intents) == [3, 4, 5]


def test_a_large_flush_arrives_whole_and_in_order(shop: Shop) -> None:
    scope = left_with(shop, *notices(shop, *range(2500)))
    scope.flush()

    assert numbers(scope.dispatched_intents) == told(shop) == list(range(2500))


# What the broker refuses

FULL = {"x-max-length": 0, "x-overflow": "reject-publish"}


@pytest.mark.parametrize("transport", ["rabbitmq", "rabbitmq with confirms"], indirect=True)
def test_a_refused_message_fails_exactly_its_intent(shop: Shop) -> None:
    default = shop.app.conf.task_default_queue
    small = Queue(f"{default}-small", queue_arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    shop.app.amqp.queues.add(small)
    shop.queues.append(small.name)
    notify = shop.app.tasks["notify_task"]
    scope = left_with(
        shop, *[(notify, (number,), {}, {"queue": small.name if number % 2 else default}) for number in range(10)]
    )

    with pytest.raises((OperationalError, MessageNacked)) as raised:
        scope.flush()
    if shop.app.conf.broker_transport_options["confirm_publish"]:
        with pytest.raises((OperationalError, MessageNacked)) as raised_alone:  # which it is depends on the py-amqp
            notify.apply_async((11,), queue=small.name)
        assert type(raised.value) is type(raised_alone.value)

    assert sorted(told(shop)) == [0, 1, 2, 3, 4, 6, 8]
    assert numbers(scope.dispatched_intents) == [0, 1, 2, 3, 4, 6, 8]
    assert numbers(scope.undispatched_intents) == [5, 7, 9]
    assert scope.unknown_intents == []


@pytest.mark.parametrize("transport", ["rabbitmq", "rabbitmq with confirms"], indirect=True)
@pytest.mark.parametrize("canvas", [group, chain])
def test_a_canvas_is_confirmed(shop: Shop, canvas: Any) -> None:
    default = shop.app.conf.task_default_queue
    full = Queue(f"{default}-full", queue_arguments=FULL)
    shop.app.amqp.queues.add(full)
    shop.queues.append(full.name)
    first, second = (shop.app.tasks["notify_task"].si(number) for number in range(2))
    left_with(shop, (canvas(first, second), (), {}, {})).flush()
    scope = left_with(shop, (canvas(first.set(queue=full.name), second), (), {}, {}), *notices(shop, 3))

    with pytest.raises((OperationalError, MessageNacked)):
        scope.flush()

    assert scope.undispatched_intents == scope.intents
    assert told(shop)[0] == 0


@pytest.mark.parametrize("transport", ["rabbitmq", "rabbitmq with confirms"], indirect=True)
def test_an_exchange_that_does_not_exist_fails_exactly_its_intent(shop: Shop) -> None:
    notify = shop.app.tasks["notify_task"]
    nowhere = {"exchange": "not-there", "routing_key": "nowhere", "declare": []}
    full = Queue(f"{shop.app.conf.task_default_queue}-full", queue_arguments=FULL)
    shop.app.amqp.queues.add(full)
    shop.queues.append(full.name)
    refused = (notify, (5,), {}, {"queue": full.name})
    scope = left_with(shop, *notices(shop, 1, 2), refused, (notify, (3,), {}, nowhere), *notices(shop, 4))

    with pytest.raises((ChannelError, OperationalError, MessageNacked)):
        scope.flush()

    assert numbers(scope.dispatched_intents) == told(shop) == [1, 2]
    assert numbers(scope.undispatched_intents) == [5, 3, 4]
    assert scope.unknown_intents == []

    again = left_with(shop, *notices(shop, 1, 2))
    again.flush()
    assert told(shop) == [1, 2]


@pytest.mark.parametrize("transport", ["rabbitmq", "rabbitmq with confirms"], indirect=True)
def test_an_exchange_that_was_deleted_leaves_what_was_sent_with_it_unknown(shop: Shop) -> None:
    notify = shop.app.tasks["notify_task"]
    lost = Exchange(f"{shop.app.conf.task_default_queue}-lost", "fanout")
    nowhere = {"exchange": lost.name, "routing_key": "nowhere", "declare": []}
    firsts, lasts = notices(shop, *range(10)), notices(shop, *range(11, 30))
    with shop.app.connection_for_write() as connection:
        bound = lost(connection.default_channel)
        bound.declare()
        left_with(shop, (notify, (10,), {}, nowhere)).flush()
        bound.delete()
    scope = left_with(shop, *firsts, (notify, (10,), {}, nowhere), *lasts)

    with pytest.raises(ChannelError, match="NOT_FOUND"):
        scope.flush()

    dispatched = numbers(scope.dispatched_intents)
    assert set(dispatched) <= set(told(shop)) <= set(range(10))
    assert scope.unknown_intents == scope.undispatched_intents
    assert numbers(scope.undispatched_intents) == [number for number in range(30) if number not in dispatched]

    again = left_with(shop, *notices(shop, 1, 2))
    again.flush()
    assert told(shop) == [1, 2]


@pytest.fixture
def broken(shop: Shop) -> str:
    """A queue of Redis that takes nothing more, once it was declared."""
    broken = f"{shop.app.conf.task_default_queue}-broken"
    shop.app.tasks["notify_task"].apply_async(queue=broken)
    with shop.app.connection_for_write() as connection:
        connection.default_channel.client.set(broken, "no list")
    return broken


@pytest.mark.parametrize("transport", ["redis"], indirect=True)
def test_a_batch_that_redis_refuses_a_part_of_is_unknown(shop: Shop, broken: str) -> None:
    notify = shop.app.tasks["notify_task"]
    scope = left_with(shop, *[(notify, (n,), {}, {"queue": broken} if n == 2 else {}) for n in range(4)])

    with pytest.raises(Exception, match=r"uncertain|WRONGTYPE"):
        scope.flush()

    if CAN_BATCH:
        assert scope.unknown_intents == scope.undispatched_intents == scope.intents
        assert told(shop) == [0, 1, 3]
    else:
        assert scope.unknown_intents == []
        assert told(shop) == numbers(scope.dispatched_intents) == [0, 1]


# Who does not answer


@pytest.mark.parametrize("transport", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize("firsts", [[], [1]], ids=["before its channel is open", "before it has confirmed"])
def test_a_silent_rabbitmq_is_not_waited_for_for_ever(
    shop: Shop, settings: dict[str, Any], make_app: Callable[..., Celery], firsts: list[int]
) -> None:
    address = urlsplit(settings["broker_url"])
    with Proxy(address.port) as way:
        url = address._replace(netloc=f"{address.username}:{address.password}@127.0.0.1:{way.port}").geturl()
        app = make_app(
            settings
            | {"broker_url": url, "broker_connection_timeout": 1, "task_publish_retry": False}
            | {"broker_transport_options": {"read_timeout": 1}}
        )
        distant = Shop(app, shop.queues)
        app.task(name="notify_task")(notify)
        with app.producer_or_acquire() as producer:
            producer.connection.ensure_connection()
        left_with(distant, *notices(distant, *firsts)).flush()

        way.answers.clear()
        scope = left_with(distant, *notices(distant, 2, 3))
        with pytest.raises(OperationalError, match="timed out"):
            scope.flush()
        assert scope.undispatched_intents == scope.intents

        way.answers.set()
        left_with(distant, *notices(distant, 4)).flush()
    assert 4 in told(shop)


# In between


@pytest.mark.parametrize("option", ["connection", "producer"])
def test_a_connection_of_its_own_keeps_the_order(shop: Shop, transport: str, option: str) -> None:
    notify = shop.app.tasks["notify_task"]
    with shop.app.connection_for_write() as connection:
        own = {"connection": connection, "producer": shop.app.amqp.Producer(connection)}[option]

        class Own(Task):
            def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
                return super().apply_async(args, kwargs, **options, **{option: own})

        hidden = shop.app.task(name="notify_hidden", base=Own)(notify)
        scope = left_with(
            shop,
            *notices(shop, 1, 2),
            (notify, (3,), {}, {option: own}),
            *notices(shop, 4, 5),
            (hidden, (6,), {}, {}),
            *notices(shop, 7, 8),
        )
        scope.flush()

    # Of messages over two connections, RabbitMQ keeps the order only if it has confirmed the first.
    arrived = told(shop) if transport != "rabbitmq" else sorted(told(shop))
    assert arrived == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.fixture(params=["a", "ab"])
def inner(request: pytest.FixtureRequest) -> list[str]:
    """What is flushed in an override: one intent, which is dispatched alone, or several."""
    return list(request.param)


def test_a_flush_in_an_override_goes_out_in_its_turn(shop: Shop, inner: list[str]) -> None:
    seen = []

    class Flushing(Task):
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            left_with(shop, *notices(shop, *inner)).flush()
            seen.append(told(shop))
            return super().apply_async(args, kwargs, **options)

    flushing = shop.app.task(name="notify_flushing", base=Flushing)(notify)
    scope = left_with(shop, *notices(shop, "1", "2"), (flushing, ("3",), {}, {}), *notices(shop, "4", "5"))
    scope.flush()

    assert seen == [["1", "2", *inner]]
    assert told(shop) == ["3", "4", "5"]


def test_a_subclass_that_looks_at_each_intent_goes_on_doing_so(shop: Shop) -> None:
    looked = []

    class Looking(CeleryExecutor):
        def __call__(self, intent: airlock.Intent, /) -> object:
            looked.append(intent.args[0])
            return super().__call__(intent)

    left_with(shop, *notices(shop, 1, 2, 3), executor=Looking(shop.app)).flush()

    assert looked == told(shop) == [1, 2, 3]


@pytest.mark.parametrize("transport", ["redis"], indirect=True)
def test_broadcasts_go_with_the_others(shop: Shop) -> None:
    fanout = Exchange(f"{shop.app.conf.task_default_queue}-fanout", type="fanout")
    listening = Queue(f"{shop.app.conf.task_default_queue}-listening", fanout, routing_key="all")
    heard = []
    notify = shop.app.tasks["notify_task"]
    with (
        shop.app.connection_for_read() as connection,
        Consumer(connection, [listening], callbacks=[lambda body, _: heard.append(body[0][0])], no_ack=True),
    ):
        with contextlib.suppress(TimeoutError):
            connection.drain_events(timeout=0.2)  # from when on it listens
        options = {"exchange": fanout, "routing_key": "all", "declare": [fanout]}
        left_with(shop, *[(notify, (number,), {}, options) for number in (1, 2)]).flush()
        while len(heard) < 2:
            connection.drain_events(timeout=10)

    assert heard == [1, 2]


@pytest.mark.parametrize("transport", ["rabbitmq", "rabbitmq with confirms"], indirect=True)
def test_a_refusal_is_noticed_whatever_the_correlation_id(shop: Shop) -> None:
    full = Queue(
        f"{shop.app.conf.task_default_queue}-full", queue_arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
    )
    shop.app.amqp.queues.add(full)
    notify = shop.app.tasks["notify_task"]
    scope = left_with(shop, *[(notify, (n,), {}, {"queue": full.name, "correlation_id": "order 42"}) for n in (1, 2)])

    with pytest.raises((OperationalError, MessageNacked)):
        scope.flush()

    assert scope.unknown_intents == scope.intents


def test_a_signature_with_a_producer_of_its_own_is_published_by_it(shop: Shop, make_app: Callable[..., Celery]) -> None:
    other = make_app()
    with other.connection_for_write() as connection:
        own = other.amqp.Producer(connection)
        signature = shop.app.tasks["notify_task"].s(1).set(producer=own, queue=other.conf.task_default_queue)
        left_with(shop, (signature, (), {}, {}), *notices(shop, 2, 3)).flush()
        message = connection.default_channel.basic_get(other.conf.task_default_queue)

    assert message is not None
    assert told(shop) == [2, 3]
