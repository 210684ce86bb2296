"""Many intents at a time: what arrives, and what is called on the way, is the same as with `apply_async` one by one.

On each transport, and, in the sessions of the matrix, with each version of Celery.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import importlib
import inspect
import json
import re
import secrets
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import amqp
import pytest
from amqp import ChannelError, spec
from amqp.exceptions import MessageNacked
from celery import Task, chord, group, signals
from celery.canvas import Signature
from celery.result import AsyncResult, GroupResult
from kombu import Consumer, Exchange, Queue, serialization
from kombu.exceptions import EncodeError, OperationalError
from kombu.transport import pyamqp
from kombu.transport import redis as redis_transport

import airlock
from airlock.integrations.executors import _celery_batch
from airlock.integrations.executors import celery as celery_executors
from airlock.integrations.executors._celery_batch import Batch, OpenBatch, once
from airlock.integrations.executors.celery import CeleryExecutor
from services import RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from celery import Celery


#: The transports, and how their messages go to the broker.
TRANSPORTS = {
    "memory": _celery_batch.Batch,
    "filesystem": _celery_batch.Batch,
    "redis": _celery_batch._RedisBatch,
    "rabbitmq": _celery_batch._AmqpBatch,
    "rabbitmq with confirms": _celery_batch._AmqpBatch,
}


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def settings(transport: str, request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Settings of an app whose broker is of this transport."""
    own: dict[str, Any] = {"task_default_queue": f"{RUN}.batches-{secrets.token_hex(4)}"}
    if transport == "filesystem":
        (tmp_path / "messages").mkdir()
        folders = {f"data_folder_{way}": str(tmp_path / "messages") for way in ("in", "out")}
        control = {"control_folder": str(tmp_path / "control")}
        return {**own, "broker_url": "filesystem://", "broker_transport_options": folders | control}
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


class Strict(Task):
    """Tasks that take no option but these."""

    def apply_async(self, args: Any = None, kwargs: Any = None, task_id: str | None = None) -> Any:
        return super().apply_async(args, kwargs, task_id=task_id)


class Twice(Task):
    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        super().apply_async(args, {"which": "first"}, **options | {"task_id": f"{options['task_id']}-too"})
        return super().apply_async(args, kwargs, **options)


class Cautious(Task):
    """Tasks that are not published at all."""

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        return None


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
        """Whether messages arrive in order. In files they do not, within a millisecond."""
        return self.app.conf.broker_url != "filesystem://"

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
    for base in (Task, Recording, Strict, Twice, Cautious):
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

    def others(kind: str) -> list[Wish]:
        return [wish(app.tasks[f"notify_{kind}"], 1), wish(), wish(app.tasks[f"notify_{kind}"], 2)]

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
        "recording": others("recording"),
        "strict": others("strict"),
        "twice": others("twice"),
        "cautious": others("cautious"),
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
    *(
        "passing queues",
        "properties",
        "limits",
        "links",
        "task options",
        "names",
        "signatures",
        "stamps",
        "canvas",
        "large",
        "timeouts",
    ),
    *("recording", "strict", "twice", "cautious"),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("protocol", [2, 1], ids=["protocol 2", "protocol 1"])
def test_the_same_is_called_and_the_same_arrives(shop: Shop, transport: str, case: str, protocol: int) -> None:
    shop.app.conf.task_protocol = protocol

    alone = seen_of(shop, one_by_one, case)
    many = seen_of(shop, together, case)

    assert many == alone


def test_each_transport_goes_the_way_it_should(shop: Shop, transport: str) -> None:
    with OpenBatch(shop.app, once) as batch:
        assert type(batch) is TRANSPORTS[transport]


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


class SilentError(Exception):
    def __bool__(self) -> bool:
        return False


def test_an_exception_that_is_false_is_a_failure_all_the_same(shop: Shop) -> None:
    class Failing(Task):
        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            raise SilentError

    failing = shop.app.task(name="notify_failing", base=Failing)(notify)
    scope = left_with(shop, *notices(shop, 1), (failing, (2,), {}, {}), *notices(shop, 3))
    with pytest.raises(SilentError):
        scope.flush()

    assert numbers(scope.dispatched_intents) == told(shop) == [1]
    assert numbers(scope.undispatched_intents) == [2, 3]
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


def test_an_override_that_publishes_nothing_is_as_good_as_any(shop: Shop) -> None:
    cautious = shop.app.tasks["notify_cautious"]
    scope = left_with(shop, (cautious, (1,), {}, {}), (cautious, (2,), {}, {}))

    assert scope.flush() == scope.intents
    assert told(shop) == []


def test_callables_are_called_in_their_turn(shop: Shop) -> None:
    waiting = []

    def look() -> None:
        waiting.append(told(shop))

    scope = left_with(shop, *notices(shop, 1, 2), (look, (), {}, {}), *notices(shop, 3, 4), (look, (), {}, {}))
    scope.flush()

    assert waiting == [[1, 2], [3, 4]]
    assert scope.undispatched_intents == []


def test_a_callable_that_raises_stops_those_after_it(shop: Shop) -> None:
    def fail(number: int) -> None:
        raise ValueError("no")

    scope = left_with(shop, *notices(shop, 1, 2), (fail, (3,), {}, {}), *notices(shop, 4, 5))
    with pytest.raises(ValueError, match="no"):
        scope.flush()

    assert numbers(scope.dispatched_intents) == told(shop) == [1, 2]
    assert numbers(scope.undispatched_intents) == [3, 4, 5]


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


def test_an_override_that_raises_when_it_has_published_leaves_an_unknown_outcome(shop: Shop, transport: str) -> None:
    class Failing(Task):
        def apply_async(self, *args: Any, **options: Any) -> Any:
            super().apply_async(*args, **options)
            raise ValueError("no")

    failing = shop.app.task(name="notify_failing", base=Failing)(notify)
    scope = left_with(shop, *notices(shop, 1), (failing, (2,), {}, {}), *notices(shop, 3))
    with pytest.raises(ValueError, match="no"):
        scope.flush()

    assert told(shop) == [1, 2]
    assert numbers(scope.dispatched_intents) == [1]
    assert numbers(scope.undispatched_intents) == [2, 3]
    # Where a message goes at once, nobody looks whether it did.
    assert numbers(scope.unknown_intents) == ([2] if TRANSPORTS[transport] is not Batch else [])


def test_large_flushes_go_in_chunks(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = CeleryExecutor(shop.app)
    monkeypatch.setattr(celery_executors, "MAX_INTENTS", 7)
    monkeypatch.setattr(_celery_batch, "MAX_INTENTS", 7)
    sizes = []
    send = _celery_batch._CollectingBatch._settle

    def note(batch: Any, owners: list[int], outcome: Any) -> None:
        sizes.append(len(batch._results))
        send(batch, owners, outcome)

    monkeypatch.setattr(_celery_batch._CollectingBatch, "_settle", note)
    scope = left_with(shop, *notices(shop, *range(30)), executor=executor)
    scope.flush()

    assert numbers(scope.dispatched_intents) == told(shop) == list(range(30))
    assert all(size <= 7 for size in sizes)


def test_large_messages_do_not_wait_for_each_other(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_celery_batch, "MAX_BYTES", 10_000)
    texts = [str(number) * 4_000 for number in range(9)]
    scope = left_with(shop, *notices(shop, *texts))
    scope.flush()

    assert numbers(scope.dispatched_intents) == told(shop) == texts


# What the broker refuses


@pytest.mark.parametrize("transport", ["rabbitmq with confirms"], indirect=True)
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
    with pytest.raises((OperationalError, MessageNacked)) as raised_alone:  # which it is depends on the py-amqp
        notify.apply_async((11,), queue=small.name)
    assert type(raised.value) is type(raised_alone.value)

    assert sorted(told(shop)) == [0, 1, 2, 3, 4, 6, 8]
    assert numbers(scope.dispatched_intents) == [0, 1, 2, 3, 4, 6, 8]
    assert numbers(scope.undispatched_intents) == [5, 7, 9]
    assert scope.unknown_intents == []


@pytest.mark.parametrize("transport", ["rabbitmq", "rabbitmq with confirms"], indirect=True)
def test_a_returned_message_fails_exactly_its_intent(shop: Shop) -> None:
    notify = shop.app.tasks["notify_task"]
    nowhere = {"exchange": f"{shop.app.conf.task_default_queue}-topics", "routing_key": "nowhere", "declare": []}
    scope = left_with(
        shop,
        (notify, (1,), {}, {"mandatory": True}),
        (notify, (2,), {}, nowhere | {"mandatory": True}),
        (notify, (3,), {}, nowhere),
        (notify, (4,), {}, {}),
    )

    with pytest.raises(ChannelError, match="NO_ROUTE"):
        scope.flush()

    assert told(shop) == [1, 4]
    assert numbers(scope.dispatched_intents) == [1, 3, 4]
    assert numbers(scope.undispatched_intents) == [2]
    assert scope.unknown_intents == []


@pytest.mark.parametrize("transport", ["rabbitmq", "rabbitmq with confirms"], indirect=True)
def test_who_listens_for_returned_messages_takes_care_of_them(shop: Shop) -> None:
    returned = []
    notify = shop.app.tasks["notify_task"]
    nowhere = {"exchange": f"{shop.app.conf.task_default_queue}-topics", "routing_key": "nowhere", "declare": []}
    with shop.app.producer_or_acquire() as producer:
        producer.channel.events["basic_return"].add(lambda *what: returned.append(what[2]))
    scope = left_with(shop, (notify, (1,), {}, nowhere | {"mandatory": True}), *notices(shop, 2))

    scope.flush()

    assert returned == ["nowhere"]
    assert told(shop) == [2]
    assert scope.undispatched_intents == []


@pytest.mark.parametrize("transport", ["rabbitmq", "rabbitmq with confirms"], indirect=True)
def test_an_exchange_that_does_not_exist_leaves_what_was_sent_with_it_unknown(shop: Shop) -> None:
    notify = shop.app.tasks["notify_task"]
    nowhere = {"exchange": "not-there", "routing_key": "nowhere", "declare": []}
    firsts, lasts = notices(shop, *range(10)), notices(shop, *range(11, 30))
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
def test_a_queue_that_takes_nothing_fails_exactly_its_intents(shop: Shop, broken: str) -> None:
    notify = shop.app.tasks["notify_task"]
    scope = left_with(shop, *[(notify, (n,), {}, {"queue": broken} if n in (2, 3) else {}) for n in range(5)])

    with pytest.raises(OperationalError, match="WRONGTYPE"):
        scope.flush()

    assert told(shop) == numbers(scope.dispatched_intents) == [0, 1, 4]
    assert numbers(scope.undispatched_intents) == [2, 3]
    assert scope.unknown_intents == []


@pytest.mark.parametrize("transport", ["redis"], indirect=True)
def test_a_group_of_which_a_part_was_accepted_is_unknown(shop: Shop, broken: str) -> None:
    notify = shop.app.tasks["notify_task"]
    parts = group(notify.s(2), notify.s(3).set(queue=broken))
    scope = left_with(shop, *notices(shop, 1), (parts, (), {}, {}), *notices(shop, 4))

    with pytest.raises(OperationalError, match="WRONGTYPE"):
        scope.flush()

    assert told(shop) == [1, 2, 4]
    assert scope.undispatched_intents == scope.unknown_intents == scope.intents[1:2]


@pytest.mark.parametrize("transport", ["redis"], indirect=True)
def test_a_queue_that_cannot_be_declared_stops_those_after_it(shop: Shop) -> None:
    # Kombu makes another connection when that fails, so what was kept before goes over that one.
    broken = f"{shop.app.conf.task_default_queue}-broken"
    with shop.app.connection_for_write() as connection:
        connection.default_channel.client.set(broken, "no list")
    notify = shop.app.tasks["notify_task"]
    scope = left_with(shop, *notices(shop, 0, 1), (notify, (2,), {}, {"queue": broken}), *notices(shop, 3))

    with pytest.raises(OperationalError, match="WRONGTYPE"):
        scope.flush()

    assert told(shop) == numbers(scope.dispatched_intents) == [0, 1]
    assert numbers(scope.undispatched_intents) == [2, 3]
    assert scope.unknown_intents == []


class SoftTimeLimitError(Exception):
    """As a signal handler raises it, wherever the code is."""


@pytest.mark.parametrize("transport", ["redis", "rabbitmq with confirms"], indirect=True)
def test_what_interrupts_when_all_was_accepted_is_raised_all_the_same(
    shop: Shop, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_with(shop, *notices(shop, 0, 0)).flush()
    batch_class, name = (_celery_batch, "_connection_of") if transport == "redis" else (amqp.Connection, "drain_events")
    original = getattr(batch_class, name)

    @contextlib.contextmanager
    def late_connection_of(channel: Any) -> Iterator[Any]:
        with original(channel) as connection:
            yield connection
        if sys._getframe(2).f_code.co_name == "_send":
            raise SoftTimeLimitError

    def late_drain_events(connection: Any, timeout: float | None = None) -> None:
        original(connection, timeout)
        if timeout is None and not batches[-1]._sent:
            raise SoftTimeLimitError

    batches: list[Any] = []
    attach = _celery_batch._CollectingBatch.attach
    monkeypatch.setattr(
        _celery_batch._CollectingBatch, "attach", lambda batch: (batches.append(batch), attach(batch))[1]
    )
    monkeypatch.setattr(batch_class, name, late_connection_of if transport == "redis" else late_drain_events)
    scope = left_with(shop, *notices(shop, 1, 2))
    with pytest.raises(SoftTimeLimitError):
        scope.flush()
    monkeypatch.undo()

    assert scope.unknown_intents == scope.intents
    left_with(shop, *notices(shop, 3, 4)).flush()
    assert told(shop) == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("transport", ["redis", "rabbitmq"], indirect=True)
def test_what_interrupts_the_look_at_a_connection_is_raised(
    shop: Shop, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_with(shop, *notices(shop, 0, 0)).flush()

    def interrupt(*args: Any, **kwargs: Any) -> Any:
        raise SoftTimeLimitError

    scope = left_with(shop, *notices(shop, 1, 2))
    with monkeypatch.context() as patch:
        if transport == "redis":
            patch.setattr(_celery_batch, "_connection_of", interrupt)
        else:
            patch.setattr(_celery_batch, "_may_have_come", lambda transport: True)
            patch.setattr(amqp.Connection, "drain_events", interrupt)
        with pytest.raises(SoftTimeLimitError):
            scope.flush()

    assert scope.undispatched_intents == scope.intents
    assert scope.unknown_intents == []
    left_with(shop, *notices(shop, 3, 4)).flush()
    assert told(shop) == [0, 0, 3, 4]


@pytest.mark.parametrize("transport", ["redis"], indirect=True)
def test_an_answer_that_was_not_noted_leaves_its_intent_unknown(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    settle = _celery_batch._CollectingBatch._settle
    calls = []

    def interrupted_settle(batch: Any, owners: Any, outcome: Any) -> None:
        calls.append(outcome)
        if len(calls) == 2:
            raise SoftTimeLimitError
        settle(batch, owners, outcome)

    monkeypatch.setattr(_celery_batch._CollectingBatch, "_settle", interrupted_settle)
    scope = left_with(shop, *notices(shop, 1, 2, 3))
    with pytest.raises(SoftTimeLimitError):
        scope.flush()
    monkeypatch.undo()

    assert numbers(scope.dispatched_intents) == [1]
    assert numbers(scope.unknown_intents) == [2, 3]
    assert told(shop) == [1, 2, 3]


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


@pytest.mark.parametrize("transport", ["redis"], indirect=True)
def test_what_is_refused_of_a_flush_in_an_override_fails_there(shop: Shop, broken: str, inner: list[str]) -> None:
    scopes = []

    class Flushing(Task):
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            notify = shop.app.tasks["notify_task"]
            scopes.append(left_with(shop, *[(notify, (letter,), {}, {"queue": broken}) for letter in inner]))
            with pytest.raises(OperationalError, match="WRONGTYPE"):
                scopes[0].flush()
            return super().apply_async(args, kwargs, **options)

    flushing = shop.app.task(name="notify_flushing", base=Flushing)(notify)
    scope = left_with(shop, *notices(shop, "1"), (flushing, ("2",), {}, {}), *notices(shop, "3"))
    scope.flush()

    assert numbers(scopes[0].undispatched_intents) == inner
    assert scopes[0].unknown_intents == []
    assert told(shop) == numbers(scope.dispatched_intents) == ["1", "2", "3"]


def test_flushes_in_overrides_and_in_other_threads_need_no_look_for_the_broker(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected = []
    connection_for_write = shop.app.connection_for_write

    class Flushing(Task):
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            with monkeypatch.context() as patch:
                patch.setattr(
                    shop.app, "connection_for_write", lambda: connected.append(args) or connection_for_write()
                )
                left_with(shop, *notices(shop, "here"), executor=executor).flush()
                thread = threading.Thread(target=left_with(shop, *notices(shop, "there"), executor=executor).flush)
                thread.start()
                thread.join()
            return super().apply_async(args, kwargs, **options)

    flushing = shop.app.task(name="notify_flushing", base=Flushing)(notify)
    executor = CeleryExecutor(shop.app)
    left_with(shop, *notices(shop, "0"), executor=executor).flush()
    left_with(shop, (flushing, ("1",), {}, {}), *notices(shop, "2"), executor=executor).flush()

    assert sorted(told(shop)) == ["0", "1", "2", "here", "there"]
    assert connected == []


def test_a_flush_of_another_app_in_an_override_keeps_the_order(
    shop: Shop, transport: str, make_app: Callable[..., Celery], settings: dict[str, Any], inner: list[str]
) -> None:
    other = make_app(settings)
    notify_other = other.task(name="notify_other")(notify)

    class Flushing(Task):
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            left_with(shop, *[(notify_other, (letter,), {}, {}) for letter in inner]).flush()
            return super().apply_async(args, kwargs, **options)

    flushing = shop.app.task(name="notify_flushing", base=Flushing)(notify)
    scope = left_with(shop, *notices(shop, "1", "2"), (flushing, ("3",), {}, {}), (notify_other, ("4",), {}, {}))
    scope.flush()

    # Two apps have two connections.
    keeps_order = shop.keeps_order and transport != "rabbitmq"
    assert (told(shop) if keeps_order else sorted(told(shop))) == (
        ["1", "2", *inner, "3", "4"] if keeps_order else ["1", "2", "3", "4", *inner]
    )


@pytest.mark.parametrize("transport", ["redis", "rabbitmq"], indirect=True)
def test_nobody_waits_in_a_flush_for_connections_that_other_flushes_have(
    make_app: Callable[..., Celery], settings: dict[str, Any], transport: str
) -> None:
    # With this, the app has connections of its own.
    odd = secrets.randbelow(10**6)
    options = {"visibility_timeout": 3600 + odd} if transport == "redis" else {"client_properties": {"tests": odd}}
    app = make_app(settings | {"broker_transport_options": options})
    notify_task = app.task(name="notify_task")(notify)
    shop = Shop(app, [app.conf.task_default_queue])
    closed = []

    class Greedy(Task):
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            with contextlib.ExitStack() as acquired:
                # More than there are. (Kombu's pool of producers begins with twice as many as its limit says.)
                for _ in range(2 * app.pool.limit + 1):
                    producer = acquired.enter_context(app.producer_pool.acquire(block=True, timeout=5))
                    assert producer.channel is not None
                connection = acquired.enter_context(app.pool.acquire(block=True, timeout=5))
                connection.ensure_connection(max_retries=0)
                used = producer.connection, connection
            closed.append([not connection.connected for connection in used])
            return super().apply_async(args, kwargs, **options)

    greedy = app.task(name="notify_greedy", base=Greedy)(notify)
    left_with(shop, (notify_task, ("1",), {}, {}), (greedy, ("2",), {}, {}), (notify_task, ("3",), {}, {})).flush()

    assert closed == [[True, True]]
    assert told(shop) == ["1", "2", "3"]
    with app.producer_pool.acquire(block=True, timeout=5) as producer:
        assert producer.connection.connected  # one of those that are kept
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete(app.conf.task_default_queue)
    app.pool.force_close_all()


def test_other_threads_publish_at_once(shop: Shop) -> None:
    seen = []

    class Threaded(Task):
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            thread = threading.Thread(target=shop.app.tasks["notify_task"].delay, args=("from the thread",))
            thread.start()
            thread.join()
            seen.append(told(shop))
            return super().apply_async(args, kwargs, **options)

    threaded = shop.app.task(name="notify_threaded", base=Threaded)(notify)
    left_with(shop, (threaded, ("1",), {}, {}), *notices(shop, "2")).flush()

    assert seen == [["from the thread"]]
    assert told(shop) == ["1", "2"]


def test_nothing_of_a_batch_is_left_behind(shop: Shop) -> None:
    left_with(shop, *notices(shop, 1, 2)).flush()

    with shop.app.producer_or_acquire() as producer:
        assert {"_publish", "maybe_declare"}.isdisjoint(vars(producer))
        left = set(vars(producer.channel))
    assert {"_put", "_put_fanout", "conn_or_acquire"}.isdisjoint(left)
    shop.app.tasks["notify_task"].delay(3)
    assert told(shop) == [1, 2, 3]


@pytest.mark.parametrize("transport", ["redis", "rabbitmq"], indirect=True)
def test_a_channel_that_cannot_be_used_leaves_nothing_behind(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(channel: Any) -> None:
        raise OperationalError("no more channels")

    with OpenBatch(shop.app, once) as batch:
        used = batch.producer.channel
        own = set(vars(used)) - {"_put", "_put_fanout", "basic_publish"}
        monkeypatch.setattr(batch, "_attach_to", fail)
        with pytest.raises(OperationalError, match="no more channels"):
            batch._follow(object())

    assert set(vars(used)) == own
    assert {"_publish", "maybe_declare"}.isdisjoint(vars(batch.producer))


def test_a_subclass_that_looks_at_each_intent_goes_on_doing_so(shop: Shop) -> None:
    looked = []

    class Looking(CeleryExecutor):
        def __call__(self, intent: airlock.Intent, /) -> object:
            looked.append(intent.args[0])
            return super().__call__(intent)

    left_with(shop, *notices(shop, 1, 2, 3), executor=Looking(shop.app)).flush()

    assert looked == told(shop) == [1, 2, 3]


def test_an_eager_app_runs_tasks_one_after_the_other(make_app: Callable[..., Celery]) -> None:
    app = make_app({"task_always_eager": True})
    ran: list[int] = []

    @app.task(name="note")
    def note(number: int) -> None:
        ran.append(number)

    with airlock.scope(executor=CeleryExecutor(app)):
        airlock.enqueue(note, 1)
        airlock.enqueue(ran.append, 2)
        airlock.enqueue(note, 3)

    assert ran == [1, 2, 3]


# Other versions


@pytest.mark.parametrize(
    ("package", "version"), [("kombu", "5.8b1"), ("kombu", "6.0.0rc1"), ("driver", "99.1"), ("driver", "unknown")]
)
def test_an_unknown_version_goes_one_by_one(
    shop: Shop,
    transport: str,
    package: str,
    version: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", logger="airlock")
    package = package.replace("driver", "redis" if transport == "redis" else "amqp")
    monkeypatch.setattr(importlib.import_module(package), "__version__", version)
    _celery_batch._is_known.cache_clear()
    try:
        with OpenBatch(shop.app, once) as batch:
            assert type(batch) is Batch
        left_with(shop, *notices(shop, 1, 2, object(), 3)).flush()
    except EncodeError:
        pass
    finally:
        _celery_batch._is_known.cache_clear()

    assert told(shop) == [1, 2]
    assert "one by one" in caplog.text


@pytest.mark.parametrize("transport", ["rabbitmq"], indirect=True)
def test_a_transport_that_publishes_in_a_way_of_its_own_goes_on_doing_so(
    make_app: Callable[..., Celery], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    published = []

    class OwnChannel(pyamqp.Channel):
        def basic_publish(self, message: Any, *args: Any, **kwargs: Any) -> Any:
            published.append(message.headers["task"])
            return super().basic_publish(message, *args, **kwargs)

    monkeypatch.setattr(pyamqp.Connection, "Channel", OwnChannel)
    # So that it has connections of its own.
    app = make_app(settings | {"broker_transport_options": {"client_properties": {"tests": secrets.token_hex(4)}}})
    notify_task = app.task(name="notify_task")(notify)
    shop = Shop(app, [app.conf.task_default_queue])

    left_with(shop, (notify_task, (1,), {}, {}), (notify_task, (2,), {}, {})).flush()

    assert published == ["notify_task", "notify_task"]
    assert told(shop) == [1, 2]
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete(app.conf.task_default_queue)
    app.pool.force_close_all()


@pytest.mark.parametrize("transport", ["redis"], indirect=True)
def test_an_unknown_way_to_use_redis_goes_one_by_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="airlock")

    def put(channel: Any, queue: str, message: Any, **_: Any) -> None:
        if json.loads(base64.b64decode(message["body"]))[0] == ["3"]:
            with channel.conn_or_acquire() as client:
                client.linsert(queue, "before", "", "")
        return known(channel, queue, message)

    known = redis_transport.Channel._put
    monkeypatch.setattr(redis_transport.Channel, "_put", put)
    scope = left_with(shop, *notices(shop, *"12345"))
    scope.flush()

    assert told(shop) == ["1", "2", "3", "4", "5"]
    assert scope.undispatched_intents == []
    assert "linsert" in caplog.text


@pytest.mark.parametrize("transport", ["redis"], indirect=True)
def test_the_pool_of_an_older_redis_py_will_do(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenBatch(shop.app, once) as batch:
        pool = batch.producer.channel.pool
        get_connection = pool.get_connection
        arguments = inspect.signature(get_connection).parameters

        def by_name(command_name: str) -> Any:
            is_old = arguments["command_name"].default is inspect.Parameter.empty
            return get_connection(command_name) if is_old else get_connection()

        with monkeypatch.context() as patch:
            patch.setattr(pool, "get_connection", by_name)
            assert batch.is_alive()


@pytest.mark.parametrize("transport", ["rabbitmq"], indirect=True)
def test_only_rabbitmq_is_asked_what_it_has(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    wait = amqp.Channel.wait

    def note(channel: Any, method: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(method)
        return wait(channel, method, *args, **kwargs)

    left_with(shop, *notices(shop, 0, 1)).flush()  # which declares the queue
    monkeypatch.setattr(amqp.Channel, "wait", note)
    left_with(shop, *notices(shop, *range(2, 20))).flush()
    assert asked == [spec.Channel.FlowOk]
    with shop.app.producer_or_acquire() as producer:
        monkeypatch.setitem(producer.channel.connection.server_properties, "product", "another")
    left_with(shop, *notices(shop, *range(20, 40))).flush()
    assert asked == [spec.Channel.FlowOk]

    assert told(shop) == list(range(40))


# Results


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


@pytest.mark.parametrize("transport", ["redis"], indirect=True)
def test_only_results_that_somebody_keeps_are_subscribed_to(shop: Shop) -> None:
    kept = []

    class Keeping(Task):
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            result = super().apply_async(args, kwargs, **options)
            kept.append(result)
            return result

    keeping = shop.app.task(name="notify_keeping", base=Keeping)(notify)
    scope = left_with(shop, *notices(shop, 1, 2), (keeping, (3,), {}, {}), *notices(shop, 4))
    scope.flush()

    subscribed = {
        bytes(key).rpartition(b"-meta-")[2].decode() for key in shop.app.backend.result_consumer.subscribed_to
    }
    assert subscribed == {scope.intents[2].id}
    kept[0].backend.store_result(kept[0].id, "done", "SUCCESS")
    assert kept[0].get(timeout=10) == "done"
    kept.clear()


@pytest.mark.parametrize("transport", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize("results", ["disabled://", "rpc://"])
def test_results_may_be_kept_nowhere_or_come_as_messages(
    make_app: Callable[..., Celery], settings: dict[str, Any], results: str
) -> None:
    app = make_app(settings | {"result_backend": results})
    notify_task = app.task(name="notify_task")(notify)
    shop = Shop(app, [app.conf.task_default_queue])

    left_with(shop, (notify_task, (1,), {}, {}), (notify_task, (2,), {}, {})).flush()

    assert told(shop) == [1, 2]
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete(app.conf.task_default_queue)


READS: dict[str, Callable[[AsyncResult], Any]] = {
    "get": lambda result: result.get(timeout=10, interval=0.01),
    "state": lambda result: result.state,
    "get of a group": lambda result: GroupResult("all", [result]).get(timeout=10, interval=0.01),
    "state of a group": lambda result: GroupResult("all", [result]).ready(),
    "iteration over a group": lambda result: list(GroupResult("all", [result]).iter_native(timeout=10)),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_what_was_published_is_sent_before_a_result_is_read(shop: Shop, read: Callable[[AsyncResult], Any]) -> None:
    seen = []

    class Reading(Task):
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            result = super().apply_async(args, kwargs, **options)
            result.backend.store_result(result.id, "done", "SUCCESS")
            seen.append((bool(read(result)), told(shop)))
            return result

    reading = shop.app.task(name="notify_reading", base=Reading)(notify)
    left_with(shop, *notices(shop, 1), (reading, (2,), {}, {}), *notices(shop, 3)).flush()

    assert seen == [(True, [1, 2])]
    assert told(shop) == [3]
