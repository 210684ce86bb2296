"""Old `.delay()` and `.apply_async()` calls in real workers: held like intents, while Celery's own are not touched."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from billiard.exceptions import WorkerLostError
from celery import chord, group

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Orders
    from processes import Process
    from services import Broker

#: On RabbitMQ the results are in files, so that a task of Celery's own waits for the header of a chord.
KINDS: dict[str, dict[str, Any]] = {
    "shim on redis": {"task_cls": "TenantShim", "instrumented": "before"},
    "shim on rabbitmq": {"task_cls": "TenantShim", "instrumented": "after"},
    "intercept on redis": {"intercepted": True},
    "intercept, overridden, wrapped before on redis": {
        "intercepted": True,
        "task_cls": "TenantTask",
        "instrumented": "before",
    },
    "intercept, overridden, wrapped after on rabbitmq": {
        "intercepted": True,
        "task_cls": "TenantTask",
        "instrumented": "after",
    },
}


def started(kind: str, request: pytest.FixtureRequest, start_orders: Callable[..., Orders]) -> Orders:
    broker: Broker = request.getfixturevalue(f"{kind.rpartition(' ')[2]}_broker")
    return start_orders(broker, **KINDS[kind])


@pytest.fixture(scope="module", params=KINDS)
def orders(request: pytest.FixtureRequest, start_orders: Callable[..., Orders]) -> Orders:
    """A worker for each way to route old calls through airlock, with and without others around `apply_async`."""
    return started(request.param, request, start_orders)


@pytest.fixture(scope="module", params=[kind for kind in KINDS if "intercept" in kind])
def intercepted_orders(request: pytest.FixtureRequest, start_orders: Callable[..., Orders]) -> Orders:
    """Those of them where canvases are routed through airlock too: a shim leaves them to Celery."""
    return started(request.param, request, start_orders)


@pytest.fixture(scope="module", params=[kind for kind in KINDS if "redis" in kind])
def redis_orders(request: pytest.FixtureRequest, start_orders: Callable[..., Orders]) -> Orders:
    """Those of them where the results are in Redis."""
    return started(request.param, request, start_orders)


def start(orders: Orders, effects: str, how: str) -> Any:
    return orders["legacy_order"].delay(effects, how)


# Calls of the user


def test_calls_are_held_until_the_body_returns_and_then_sent(orders: Orders) -> None:
    effects = orders.effects()
    result = start(orders, effects, "waits")

    orders.signals.wait(result.id, "begun")
    assert orders.taken(effects) == []
    orders.signals.tell(result.id, "may go on")

    orders.get(result.id)
    assert orders.taken(effects) == [0, "end"]


def test_calls_of_a_body_that_raises_are_gone(orders: Orders) -> None:
    effects = orders.effects()

    with pytest.raises(ValueError, match="no"):
        orders.get(start(orders, effects, "fails").id)

    assert orders.taken(effects) == []


def test_calls_of_a_process_that_dies_are_gone(orders: Orders) -> None:
    effects = orders.effects()

    with pytest.raises(WorkerLostError):
        orders.get(start(orders, effects, "is killed").id)

    assert orders.taken(effects) == []


def test_an_override_of_apply_async_has_run_once_for_a_message(orders: Orders) -> None:
    effects = orders.effects()
    orders.get(start(orders, effects, "succeeds").id)

    overridden = json.loads(orders.environment["AIRLOCK_TEST_KIND"])["task_cls"] != "Task"
    tenants = [message.headers.get("tenants") for message in orders.broker.take(effects)]
    assert tenants == [["us"] if overridden else None] * 2


@pytest.mark.parametrize(
    ("how", "sent"),
    [("signature", ["first"]), ("chain", ["first"]), ("group", ["first", "second"]), ("chord", ["first", "second"])],
)
def test_canvases_are_held_and_sent_or_gone(intercepted_orders: Orders, how: str, sent: list[str]) -> None:
    orders = intercepted_orders
    for fails in (True, False):
        effects = orders.effects()
        result = orders["legacy_canvas"].delay(effects, how, fails)
        orders.signals.wait(effects, "called")
        assert orders.taken(effects) == []
        orders.signals.tell(effects, "may go on")
        result.get(timeout=60, interval=0.02, propagate=False)
        assert orders.taken(effects) == ([] if fails else sent)


# Celery's own


@pytest.mark.parametrize("how", ["retries", "retries automatically"])
def test_retries_are_never_swallowed_and_only_the_last_has_effects(orders: Orders, how: str) -> None:
    effects = orders.effects()

    assert orders.get(start(orders, effects, how).id) == 2

    assert orders.taken(effects) == [2, "end"]


def test_a_retry_that_does_not_throw_is_an_attempt_without_effects(orders: Orders) -> None:
    effects = orders.effects()
    result = start(orders, effects, "goes on after its retry")

    # To Celery, each of the attempts is a success. The last one is over when its effects are there.
    sent: list[Any] = []
    while "end" not in sent:
        orders.signals.wait(result.id, "ended")
        sent += orders.taken(effects)

    assert sent == [2, "end"]


@pytest.mark.parametrize(("how", "result"), [("task", 3), ("chain", 6), ("chord", 10)])
def test_replacements_are_never_swallowed(orders: Orders, how: str, result: int) -> None:
    assert orders.get(orders["replaced"].delay(how).id) == result


def test_next_steps_and_callbacks_are_never_swallowed(orders: Orders) -> None:
    add, total = orders["add"], orders["total"]
    chain = (add.s(1, 1) | add.s(2) | group(add.s(1), add.s(2)) | total.s() | add.s(1)).delay()
    chained = chord([add.s(1, 2) | add.s(3), add.s(3, 4)], total.s() | add.s(1)).delay()
    linked = add.s(10).freeze()
    add.apply_async((1,), link=[add.s(10).set(task_id=linked.id), group(add.s(20), add.s(30))])

    assert orders.get(chain.id) == 12
    assert orders.get(chained.id) == 14
    assert orders.get(linked.id) == 11


def test_errbacks_are_called_and_can_send(orders: Orders) -> None:
    effects = orders.effects()

    result = orders["fail"].apply_async(link_error=orders["compensate"].s(effects))
    result.get(timeout=60, interval=0.02, propagate=False)
    orders.signals.wait(result.id, "ended")

    assert orders.taken(effects) == ["compensate"]


def test_what_is_added_to_a_chord_is_never_swallowed(redis_orders: Orders) -> None:
    # Celery has that with results in Redis only.
    growing, total = redis_orders["growing"], redis_orders["total"]

    result = chord([growing.s(1), growing.s(2)], total.s()).delay()

    assert redis_orders.get(result.id) == 1 + 11 + 2 + 12


def test_what_beat_sends_is_never_swallowed(
    orders: Orders, start_process: Callable[..., Process], tmp_path: Any
) -> None:
    effects = orders.effects()
    settings = json.loads(orders.environment["AIRLOCK_TEST_CELERY"])
    settings["beat_schedule"] = {
        "often": {"task": "notify", "schedule": 0.1, "args": ["now"], "options": {"queue": effects}}
    }
    command = [sys.executable, "-m", "celery", "-A", "celery_orders", "beat", "--loglevel=INFO"]
    command += ["--schedule", str(tmp_path / "schedule")]
    environment = {**orders.environment, "AIRLOCK_TEST_CELERY": json.dumps(settings)}

    sent: list[Any] = []
    with start_process(*command, ready="beat: Starting", env=environment):
        deadline = time.monotonic() + 60
        while not sent and time.monotonic() < deadline:
            sent += orders.taken(effects)

    assert set(sent) == {"now"}
