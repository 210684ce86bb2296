"""What a task enqueues is held until its body returns; sent when it succeeds; gone when it does not.

In real workers. The effects go to a queue that nobody consumes, and are looked for there when the run is known to be
over: when its result is there, or, where it has none, when Celery has told so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded, WorkerLostError
from celery.exceptions import TaskRevokedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.result import AsyncResult

    from conftest import Orders
    from services import Broker


@pytest.fixture(scope="module", params=["prefork on redis", "prefork on rabbitmq", "threads", "solo", "gevent"])
def orders(request: pytest.FixtureRequest, start_orders: Callable[..., Orders]) -> Orders:
    """A worker of each pool, and of the usual one with each broker."""
    pool, _, broker = request.param.partition(" on ")
    return start_orders(request.getfixturevalue(f"{broker or 'redis'}_broker"), pool=pool)


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def prefork_orders(request: pytest.FixtureRequest, start_orders: Callable[..., Orders]) -> Orders:
    """A worker with processes of its own, which can be killed, with each broker."""
    broker: Broker = request.getfixturevalue(f"{request.param}_broker")
    return start_orders(broker)


def start(orders: Orders, effects: str, how: str, task: str = "order", **options: Any) -> AsyncResult:
    return orders[task].apply_async((effects, how), **options)


def finish(orders: Orders, result: AsyncResult) -> Any:
    return result.get(timeout=60, interval=0.02)


def test_effects_are_held_until_the_body_returns_and_then_sent(orders: Orders) -> None:
    effects = orders.effects()
    result = start(orders, effects, "waits")

    orders.signals.wait(result.id, "begun")
    assert orders.taken(effects) == []
    orders.signals.tell(result.id, "may go on")

    finish(orders, result)
    assert orders.taken(effects) == [0, "end"]


def test_a_task_that_raises_has_no_effects(orders: Orders) -> None:
    effects = orders.effects()
    result = start(orders, effects, "fails")

    with pytest.raises(ValueError, match="no"):
        finish(orders, result)

    assert orders.taken(effects) == []


@pytest.mark.parametrize("how", ["retries", "retries automatically"])
def test_of_several_attempts_the_one_that_succeeds_has_effects(orders: Orders, how: str) -> None:
    effects = orders.effects()
    result = start(orders, effects, how)

    assert finish(orders, result) == 2
    assert orders.taken(effects) == [2, "end"]


@pytest.mark.parametrize("how", ["is rejected", "is ignored"])
def test_a_task_that_is_rejected_or_ignored_has_no_effects(orders: Orders, how: str) -> None:
    effects = orders.effects()
    result = start(orders, effects, how)

    orders.signals.wait(result.id, "ended")

    assert orders.taken(effects) == []


def test_a_run_does_not_see_the_scope_of_another(orders: Orders) -> None:
    waiting, other = orders.effects(), orders.effects()
    if "--pool=solo" in orders.worker.command:
        first = start(orders, waiting, "fails")
    else:
        first = start(orders, waiting, "waits")
        orders.signals.wait(first.id, "begun")

    assert finish(orders, start(orders, other, "succeeds")) == 0
    assert orders.taken(other) == [0, "end"]
    assert orders.taken(waiting) == []

    orders.signals.tell(first.id, "may go on")
    orders.signals.wait(first.id, "ended")


# What only processes can come to


def test_a_soft_time_limit_leaves_no_effects(prefork_orders: Orders) -> None:
    effects = prefork_orders.effects()
    result = start(prefork_orders, effects, "takes too long", soft_time_limit=1)

    with pytest.raises(SoftTimeLimitExceeded):
        finish(prefork_orders, result)

    assert prefork_orders.taken(effects) == []


def test_a_hard_time_limit_leaves_no_effects(prefork_orders: Orders) -> None:
    effects = prefork_orders.effects()
    result = start(prefork_orders, effects, "takes too long", time_limit=1)

    with pytest.raises(TimeLimitExceeded):
        finish(prefork_orders, result)

    assert prefork_orders.taken(effects) == []


@pytest.mark.parametrize("how", ["is killed", "exits"])
def test_a_process_that_dies_leaves_no_effects(prefork_orders: Orders, how: str) -> None:
    effects = prefork_orders.effects()
    result = start(prefork_orders, effects, how)

    with pytest.raises(WorkerLostError):
        finish(prefork_orders, result)

    assert prefork_orders.taken(effects) == []


def test_a_task_that_is_revoked_while_it_runs_leaves_no_effects(prefork_orders: Orders) -> None:
    effects = prefork_orders.effects()
    result = start(prefork_orders, effects, "waits")
    prefork_orders.signals.wait(result.id, "begun")

    result.revoke(terminate=True, signal="SIGKILL")

    with pytest.raises((TaskRevokedError, Terminated)):
        finish(prefork_orders, result)
    prefork_orders.signals.tell(result.id, "may go on")
    finish(prefork_orders, start(prefork_orders, prefork_orders.effects(), "succeeds"))
    assert prefork_orders.taken(effects) == []


def test_a_task_that_is_delivered_again_after_its_process_died_has_effects_once(prefork_orders: Orders) -> None:
    effects = prefork_orders.effects()
    result = start(prefork_orders, effects, "is killed once", task="late_order")

    assert finish(prefork_orders, result) == 0
    assert prefork_orders.signals.was_told(result.id, "died")
    assert prefork_orders.taken(effects) == [0, "end"]


def test_the_process_of_a_task_that_failed_goes_on_to_the_next(prefork_orders: Orders) -> None:
    effects = prefork_orders.effects()
    for how in ["fails", "takes too long"] * 2:
        with pytest.raises((ValueError, SoftTimeLimitExceeded)):
            finish(prefork_orders, start(prefork_orders, effects, how, soft_time_limit=1))

    results = [start(prefork_orders, effects, "succeeds") for _ in range(4)]

    assert [finish(prefork_orders, result) for result in results] == [0] * 4
    assert sorted(orders for orders in prefork_orders.taken(effects) if orders != "end") == [0] * 4


def test_a_time_limit_of_greenlets_leaves_no_effects(start_orders: Callable[..., Orders], redis_broker: Broker) -> None:
    orders = start_orders(redis_broker, pool="gevent")
    effects = orders.effects()
    result = start(orders, effects, "takes too long", time_limit=1)

    orders.signals.wait(result.id, "ended")

    assert orders.taken(effects) == []
