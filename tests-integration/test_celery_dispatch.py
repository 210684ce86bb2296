"""What a scope lets go is published, and run by a real worker under the id of its intent."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import amqp
import pytest
import redis
from celery import chord, group, signature

import airlock
from airlock.integrations.executors.celery import CeleryExecutor

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Orders
    from services import Broker


@pytest.fixture(scope="module")
def orders(broker: Broker, start_orders: Callable[..., Orders]) -> Orders:
    """A worker with each broker."""
    return start_orders(broker)


@pytest.fixture
def celery_executor(orders: Orders) -> CeleryExecutor:
    """As `celery_executor`, in a process that has several apps."""
    return CeleryExecutor(orders.app)


def test_intents_are_in_the_broker_at_the_end_of_the_block_and_not_before(
    orders: Orders, celery_executor: CeleryExecutor
) -> None:
    effects = orders.effects()

    with airlock.scope(executor=celery_executor):
        airlock.enqueue(orders["notify"], "first", _dispatch_options={"queue": effects})
        airlock.enqueue("notify", "second", _dispatch_options={"queue": effects})
        assert orders.taken(effects) == []

    assert orders.taken(effects) == ["first", "second"]


def test_nothing_is_in_the_broker_after_a_block_that_raised(orders: Orders, celery_executor: CeleryExecutor) -> None:
    effects = orders.effects()

    with pytest.raises(ValueError, match="no"), airlock.scope(executor=celery_executor):
        airlock.enqueue("notify", "never", _dispatch_options={"queue": effects})
        raise ValueError("no")

    assert orders.taken(effects) == []


# Follow-ups


def test_a_follow_up_is_a_task_of_its_own_on_whichever_worker_takes_it(
    orders: Orders, celery_executor: CeleryExecutor, start_orders: Callable[..., Orders]
) -> None:
    others = start_orders(orders.broker, concurrency=1)

    with airlock.scope(executor=celery_executor):
        intent = airlock.enqueue(orders["parent"], others.app.conf.task_default_queue)
    parent = orders.get(intent.id)
    child = orders.get(parent["child"])

    assert parent["id"] == intent.id
    assert child["id"] == parent["child"] != parent["id"]
    assert child["parent"] == parent["id"]
    assert child["worker"] != parent["worker"]
    assert child["called_directly"] is False


def test_the_request_of_a_run_is_right_in_a_worker(orders: Orders) -> None:
    result = orders["parent"].apply_async((None,))

    parent = orders.get(result.id)

    assert parent["id"] == result.id
    assert parent["args"] == [None]
    assert (parent["called_directly"], parent["is_eager"]) == (False, False)
    assert parent["scope"] == "Scope"


def test_subclasses_of_airlock_task_judge_send_and_end_in_their_own_way(orders: Orders) -> None:
    effects = orders.effects()

    outcomes = []
    for error in (None, "value", "lookup"):
        result = orders["strict_order"].delay(effects, error)
        result.get(timeout=60, interval=0.02, propagate=False)
        outcomes.append(orders.taken(effects))

    assert outcomes == [[], [], ["by its own executor: lookup"]]


# Options


def test_options_are_on_the_message_in_redis(redis_broker: Broker, start_orders: Callable[..., Orders]) -> None:
    emails = redis_broker.queue("emails")
    before = dt.datetime.now(dt.UTC)

    intent = enqueue_with_options(start_orders(redis_broker), emails)

    prefix = redis_broker.celery["broker_transport_options"]["global_keyprefix"]
    with redis.Redis.from_url(redis_broker.celery["broker_url"], decode_responses=True) as client:
        # Where kombu has the messages of this priority of a queue.
        (raw,) = client.lrange(f"{prefix}{emails}\x06\x169", 0, -1)
    message = json.loads(raw)
    assert message["properties"]["priority"] == 9
    assert message["properties"]["delivery_info"]["routing_key"] == emails
    check_message(message["headers"], base64.b64decode(message["body"]), intent, before)


def test_options_are_on_the_message_in_rabbitmq(rabbitmq_broker: Broker, start_orders: Callable[..., Orders]) -> None:
    emails = rabbitmq_broker.queue("emails")
    before = dt.datetime.now(dt.UTC)

    intent = enqueue_with_options(start_orders(rabbitmq_broker), emails)

    server = urlsplit(rabbitmq_broker.celery["broker_url"])
    with amqp.Connection(
        f"{server.hostname}:{server.port}",
        userid=server.username,
        password=server.password,
        virtual_host=unquote(server.path.removeprefix("/")),
    ) as connection:
        message = connection.channel().basic_get(emails, no_ack=True)
    assert message.properties["priority"] == 9
    assert message.delivery_info["routing_key"] == emails
    check_message(message.properties["application_headers"], message.body, intent, before)


def enqueue_with_options(orders: Orders, queue: str) -> airlock.Intent:
    options = {"countdown": 60, "queue": queue, "priority": 9}
    with airlock.scope(executor=CeleryExecutor(orders.app)):
        return airlock.enqueue(orders["notify"], "told", _dispatch_options=options)


def check_message(headers: dict[str, Any], body: bytes | str, intent: airlock.Intent, before: dt.datetime) -> None:
    assert headers["id"] == intent.id
    assert headers["task"] == "notify"
    assert json.loads(body)[:2] == [["told"], {}]
    minute = dt.timedelta(seconds=60)
    assert before + minute <= dt.datetime.fromisoformat(headers["eta"]) <= dt.datetime.now(dt.UTC) + minute


# Every kind of task, under its id


@pytest.mark.parametrize(
    ("make", "result"),
    [
        (lambda orders: orders["add"], 0),
        (lambda orders: "add", 0),
        (lambda orders: orders["add"].s(1, 2), 3),
        (lambda orders: orders["add"].si(1, 2), 3),
        (lambda orders: signature("add", args=(1, 2), app=orders.app), 3),
        (lambda orders: orders["add"].s(1, 2) | orders["add"].s(3) | orders["add"].s(4), 10),
        (lambda orders: chord([orders["add"].s(1, 2), orders["add"].s(3, 4)], orders["total"].s()), 10),
        (lambda orders: group(orders["add"].s(1, 2), orders["add"].s(3, 4)) | orders["total"].s(), 10),
        (lambda orders: orders["add"].s(1, 1) | group(orders["add"].s(1), orders["add"].s(2)) | orders["total"].s(), 7),
        (lambda orders: orders["add"].starmap([(1, 2), (3, 4)]), [3, 7]),
    ],
    ids=[
        "task",
        "name",
        "signature",
        "immutable signature",
        "signature of a name",
        "chain",
        "chord",
        "group | task",
        "chain with a group",
        "starmap",
    ],
)
def test_the_result_is_under_the_id_of_the_intent(
    orders: Orders, celery_executor: CeleryExecutor, make: Callable[[Orders], Any], result: object
) -> None:
    task = make(orders)
    arguments = (0,) if task in ("add", orders["add"]) else ()

    with airlock.scope(executor=celery_executor):
        intent = airlock.enqueue(task, *arguments)
        promised = orders.app.AsyncResult(intent.id)  # before anything was sent

    assert promised.get(timeout=60, interval=0.02) == result


def test_the_messages_of_a_group_have_the_id_of_the_intent_as_that_of_the_group(
    orders: Orders, celery_executor: CeleryExecutor
) -> None:
    effects = orders.effects()
    notify = orders["notify"]

    with airlock.scope(executor=celery_executor):
        intent = airlock.enqueue(group(notify.s("first"), notify.s("second")), _dispatch_options={"queue": effects})

    messages = orders.broker.take(effects)
    assert [message.payload[0] for message in messages] == [["first"], ["second"]]
    assert {message.headers["group"] for message in messages} == {intent.id}


def test_an_unregistered_name_arrives_as_with_send_task(orders: Orders, celery_executor: CeleryExecutor) -> None:
    effects = orders.effects()
    orders.app.send_task("elsewhere.ship", (1,), queue=effects)
    with airlock.scope(executor=celery_executor):
        airlock.enqueue("elsewhere.ship", 1, _dispatch_options={"queue": effects})

    by_hand, by_airlock = orders.broker.take(effects)
    own = {"id", "root_id"}
    assert by_airlock.payload == by_hand.payload
    assert {key: value for key, value in by_airlock.headers.items() if key not in own} == {
        key: value for key, value in by_hand.headers.items() if key not in own
    }


def test_a_plain_callable_is_called_in_this_process(celery_executor: CeleryExecutor) -> None:
    called: list[int] = []

    with airlock.scope(executor=celery_executor):
        airlock.enqueue(called.append, 1)
        assert called == []

    assert called == [1]


# A whole app


@pytest.fixture(scope="module")
def airlock_orders(broker: Broker, start_orders: Callable[..., Orders]) -> Orders:
    """A worker of an app all of whose tasks are an `AirlockTask`, Celery's own included."""
    return start_orders(broker, task_cls="AirlockTask")


def test_a_whole_app_can_be_of_airlock_tasks(airlock_orders: Orders) -> None:
    # On RabbitMQ the results are in files, so that a task of Celery's own waits for the header.
    add, total = airlock_orders["add"], airlock_orders["total"]

    chords = chord([add.s(1, 2), add.s(3, 4)], total.s()).delay()
    mapped = add.starmap([(1, 2)]).delay()
    replaced = [airlock_orders["replaced"].delay(how) for how in ("task", "chain", "chord")]

    assert airlock_orders.get(chords.id) == 10
    assert airlock_orders.get(mapped.id) == [3]
    assert [airlock_orders.get(result.id) for result in replaced] == [3, 6, 10]
    assert airlock_orders.get(airlock_orders["notify"].delay().id)["scope"] == "Scope"


def test_a_chord_of_a_whole_app_can_grow(redis_broker: Broker, start_orders: Callable[..., Orders]) -> None:
    # Celery has that with results in Redis only.
    orders = start_orders(redis_broker, task_cls="AirlockTask")

    result = chord([orders["growing"].s(1), orders["growing"].s(2)], orders["total"].s()).delay()

    assert orders.get(result.id) == 1 + 11 + 2 + 12
