"""What becomes of the effects of a task, for everything that may happen to a run of it.

In real workers. The effects go to a queue that nobody consumes, and are looked for there when the run is known to be
over: when Celery has told so or, where its process dies, when its result is there.

The tables of `docs/celery-outcomes.md` say it to users, and each of their rows is shown by a test: that is what `shows`
is about.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded, WorkerLostError
from celery import chord, group
from celery.exceptions import ChordError, TaskRevokedError

import airlock
from airlock.integrations.executors.celery import celery_executor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.result import AsyncResult

    from conftest import Orders
    from processes import Process
    from services import Broker

_Test = TypeVar("_Test")

PAGE = Path(__file__).parent.parent / "docs" / "celery-outcomes.md"

#: The rows of its tables that tests show: their first cells, and their last ones.
SHOWN: dict[str, str] = {}


def shows(*rows: tuple[str, str]) -> Callable[[_Test], _Test]:
    """Say which rows of the tables a test shows, and what they say about the effects."""
    SHOWN.update(rows)
    return lambda test: test


def test_every_row_of_the_tables_is_shown_by_a_test_and_says_what_that_shows() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = [number for number, row in enumerate(cells) if set("".join(row)) == {"-"}]
    headings = {number - 1 for number in rules}
    rows = [(row[0], row[-1]) for number, row in enumerate(cells) if number not in headings.union(rules)]

    assert sorted(rows) == sorted(SHOWN.items())


@pytest.fixture(
    scope="module",
    params=[
        f"{pool} on {broker}" for pool in ("prefork", "threads", "solo", "gevent") for broker in ("redis", "rabbitmq")
    ],
)
def orders(request: pytest.FixtureRequest, start_orders: Callable[..., Orders]) -> Orders:
    """A worker of each pool, with each broker."""
    return started(request, start_orders)


@pytest.fixture(scope="module", params=["prefork on redis", "prefork on rabbitmq"])
def prefork_orders(request: pytest.FixtureRequest, start_orders: Callable[..., Orders]) -> Orders:
    """A worker with processes of its own, which can be killed, with each broker."""
    return started(request, start_orders)


def started(request: pytest.FixtureRequest, start_orders: Callable[..., Orders]) -> Orders:
    pool, _, broker = request.param.partition(" on ")
    return start_orders(request.getfixturevalue(f"{broker}_broker"), pool=pool)


def pool_of(orders: Orders) -> str:
    (pool,) = (option.removeprefix("--pool=") for option in orders.worker.command if option.startswith("--pool="))
    return pool


def start(orders: Orders, effects: str, how: str, task: str = "order", **options: Any) -> AsyncResult:
    return orders[task].apply_async((effects, how), **options)


def finish(orders: Orders, result: AsyncResult) -> Any:
    return result.get(timeout=60, interval=0.02)


# A run, and its attempts


def test_effects_are_held_until_the_body_returns_and_then_sent(orders: Orders) -> None:
    effects = orders.effects()
    result = start(orders, effects, "waits")

    orders.signals.wait(result.id, "begun")
    assert orders.taken(effects) == []
    orders.signals.tell(result.id, "may go on")

    finish(orders, result)
    assert orders.taken(effects) == [0, "end"]


@dataclasses.dataclass
class End:
    """How a run ends, and what is to come of it."""

    how: str
    effects: list[Any]
    state: str
    #: The number of the last attempt.
    attempt: int = 0
    task: str = "order"


GO_OUT, NEVER, OF_THE_LAST = "go out", "never go out", "only those of the last attempt go out"

ENDS = {
    ("returns", GO_OUT): End("succeeds", [0, "end"], "SUCCESS"),
    ("raises an exception", NEVER): End("fails", [], "FAILURE"),
    ("returns, and a dispatch fails", "those before it go out"): End("cannot be dispatched", [0], "FAILURE"),
    ("raises `Ignore`", NEVER): End("is ignored", [], "any"),
    ("raises `Reject`", NEVER): End("is rejected", [], "any", task="late_order"),
    ("raises `Reject(requeue=True)`", OF_THE_LAST): End("is rejected once", [0, "end"], "SUCCESS", task="late_order"),
    ("raises `Retry` by hand", NEVER): End("raises a retry", [], "RETRY"),
    ("`raise self.retry()`", OF_THE_LAST): End("retries", [2, "end"], "SUCCESS", 2),
    ("`raise self.retry(exc=error)` in an `except` block", OF_THE_LAST): End(
        "retries for an exception", [2, "end"], "SUCCESS", 2
    ),
    ("`autoretry_for`", OF_THE_LAST): End("retries automatically", [2, "end"], "SUCCESS", 2),
    ("`self.retry(throw=False)`, and the body goes on", OF_THE_LAST): End(
        "goes on after its retry", [2, "end"], "SUCCESS", 2
    ),
    ("`self.retry()`, and the body catches the `Retry`", OF_THE_LAST): End(
        "catches its retry", [2, "end"], "SUCCESS", 2
    ),
    ("`self.retry()` that cannot be published", NEVER): End("cannot be retried", [], "any"),
    ("`max_retries` is exceeded", NEVER): End("retries in vain", [], "FAILURE", 3),
    ("`max_retries` is exceeded, and the body catches the exception", OF_THE_LAST): End(
        "gives up", [3, "end"], "SUCCESS", 3
    ),
    ("calls a task", "go out with those of the run"): End("calls a task", [0, "called", "end"], "SUCCESS"),
    ("calls a task, and raises", NEVER): End("calls a task, and fails", [], "FAILURE"),
    ("calls a task that raises, and catches that", NEVER): End("calls a task that fails", [0, "end"], "SUCCESS"),
    ("calls itself", "go out with those of the run"): End("calls itself", [0, 0, "end", "end"], "SUCCESS"),
    ("`apply()` of a task", "go out with those of the run"): End("applies a task", [0, "applied", "end"], "SUCCESS"),
    ("`apply()` of a task, and the body raises", NEVER): End("applies a task, and fails", [], "FAILURE"),
    ("`apply()` of a task that fails", NEVER): End("applies a task that fails", [0, "end"], "SUCCESS"),
}


@shows(*ENDS)
@pytest.mark.parametrize("end", ENDS.values(), ids=[row for row, _ in ENDS])
def test_effects_go_out_if_the_run_succeeds_and_only_then(orders: Orders, end: End) -> None:
    effects = orders.effects()
    result = start(orders, effects, end.how, task=end.task)

    if end.how == "is rejected once":
        finish(orders, result)
    orders.signals.wait(result.id, f"ended {end.attempt}")

    assert orders.taken(effects) == end.effects
    if end.state != "any":
        assert result.state == end.state


@shows(("returns, and its result cannot be stored", GO_OUT))
@pytest.mark.parametrize("orders", ["prefork on redis", "threads on redis", "gevent on redis"], indirect=True)
def test_effects_do_not_depend_on_the_result_back_end(orders: Orders) -> None:
    effects = orders.effects()
    result = start(orders, effects, "succeeds", task="unstored_order")

    orders.signals.wait(result.id, "ended")

    assert orders.taken(effects) == [0, "end"]


REPLACEMENTS = {
    ("`self.replace()` by a task", "those of the replacement go out"): ("is replaced by a task", ["replacement"]),
    ("`self.replace()` by a chain", "those of the replacement go out"): ("is replaced by a chain", ["first", "second"]),
    ("`self.replace()` by a group", "those of the replacement go out"): ("is replaced by a group", ["one", "other"]),
    ("`self.replace()`, and the body catches the `Ignore`", "those of the replacement go out"): (
        "goes on after its replacement",
        ["replacement"],
    ),
}


@shows(*REPLACEMENTS)
@pytest.mark.parametrize(("how", "sent"), REPLACEMENTS.values(), ids=[row for row, _ in REPLACEMENTS])
def test_a_task_that_is_replaced_has_the_effects_of_its_replacement(orders: Orders, how: str, sent: list[str]) -> None:
    effects = orders.effects()
    result = start(orders, effects, how)

    # Both runs have its id.
    orders.signals.wait(result.id, "ended as order")
    orders.signals.wait(result.id, "ended as celery.accumulate" if how.endswith("group") else "ended as part")
    assert sorted(orders.taken(effects)) == sent


def test_a_run_does_not_see_the_scope_of_another(orders: Orders) -> None:
    waiting, other = orders.effects(), orders.effects()
    if pool_of(orders) == "solo":
        first = start(orders, waiting, "fails")
    else:
        first = start(orders, waiting, "waits")
        orders.signals.wait(first.id, "begun")

    assert finish(orders, start(orders, other, "succeeds")) == 0
    assert orders.taken(other) == [0, "end"]
    assert orders.taken(waiting) == []

    orders.signals.tell(first.id, "may go on")
    orders.signals.wait(first.id, "ended")


# Canvases


@shows(("a step of a chain raises", "those of the steps before it go out"))
def test_of_a_chain_the_steps_that_succeed_have_effects(orders: Orders) -> None:
    effects, part = orders.effects(), orders["part"]
    last = (part.si(effects, "first") | part.si(effects, "second", fails=True) | part.si(effects, "third")).delay()

    orders.signals.wait(last.parent.id, "ended")

    assert orders.taken(effects) == ["first"]


@shows(("a chord", GO_OUT))
def test_each_task_of_a_chord_has_effects(orders: Orders) -> None:
    effects, part = orders.effects(), orders["part"]
    body = chord([part.si(effects, "one"), part.si(effects, "other")], part.si(effects, "body")).delay()

    assert finish(orders, body) == "body"

    *header, last = orders.taken(effects)
    assert (sorted(header), last) == (["one", "other"], "body")


@shows(("a task in the header of a chord raises", "those of the others in the header go out"))
def test_of_a_chord_that_fails_the_tasks_that_succeed_have_effects(orders: Orders) -> None:
    effects, part = orders.effects(), orders["part"]
    header = group(part.si(effects, "one"), part.si(effects, "failing", fails=True), part.si(effects, "other"))
    body = chord(header, part.si(effects, "body")).delay()

    assert isinstance(body.get(timeout=60, interval=0.02, propagate=False), ChordError)
    for task in body.parent:
        orders.signals.wait(task.id, "ended")
    assert sorted(orders.taken(effects)) == ["one", "other"]


# Time limits


@shows(("the soft time limit is over", NEVER))
def test_a_soft_time_limit_leaves_no_effects(prefork_orders: Orders) -> None:
    effects = prefork_orders.effects()
    result = start(prefork_orders, effects, "takes too long", soft_time_limit=1)

    with pytest.raises(SoftTimeLimitExceeded):
        finish(prefork_orders, result)

    assert prefork_orders.taken(effects) == []


@shows(("the soft time limit is over, and the body catches the exception", GO_OUT))
def test_a_task_that_makes_do_with_its_time_has_effects(prefork_orders: Orders) -> None:
    effects = prefork_orders.effects()
    result = start(prefork_orders, effects, "takes too long, and makes do", soft_time_limit=1)

    assert finish(prefork_orders, result) == 0

    assert prefork_orders.taken(effects) == [0, "end"]


@shows(("the soft time limit is over while its effects are going out", GO_OUT))
def test_a_soft_time_limit_comes_too_late_for_a_run_with_effects(prefork_orders: Orders) -> None:
    effects = prefork_orders.effects()
    result = start(prefork_orders, effects, "takes too long to dispatch", soft_time_limit=1)

    assert finish(prefork_orders, result) == 0

    assert prefork_orders.taken(effects) == [0, "end"]


@shows(("the hard time limit is over", NEVER))
@pytest.mark.parametrize("orders", ["prefork on redis", "prefork on rabbitmq", "gevent on redis"], indirect=True)
def test_a_hard_time_limit_leaves_no_effects(orders: Orders) -> None:
    effects = orders.effects()
    result = start(orders, effects, "takes too long", time_limit=1)

    with pytest.raises(TimeLimitExceeded):
        finish(orders, result)
    if pool_of(orders) == "gevent":  # whose run ends by an exception
        orders.signals.wait(result.id, "ended")

    assert orders.taken(effects) == []


@shows(("a time limit is over of which the pool does not know", GO_OUT))
@pytest.mark.parametrize("orders", ["threads on redis", "solo on redis", "gevent on redis"], indirect=True)
def test_a_time_limit_that_the_pool_does_not_know_changes_nothing(orders: Orders) -> None:
    effects = orders.effects()
    limits = {"soft_time_limit": 0.1} if pool_of(orders) == "gevent" else {"soft_time_limit": 0.1, "time_limit": 0.2}

    assert finish(orders, start(orders, effects, "takes a while", **limits)) == 0

    assert orders.taken(effects) == [0, "end"]


# Lost processes


LOST = {
    ("its process is killed", NEVER): ("is killed", "order"),
    ("the body exits", NEVER): ("exits", "order"),
    ("its process is killed, `acks_late`", NEVER): ("is killed", "late_order"),
}


@shows(*LOST)
@pytest.mark.parametrize(("how", "task"), LOST.values(), ids=[row for row, _ in LOST])
def test_a_process_that_dies_leaves_no_effects(prefork_orders: Orders, how: str, task: str) -> None:
    effects = prefork_orders.effects()
    result = start(prefork_orders, effects, how, task)

    with pytest.raises(WorkerLostError):
        finish(prefork_orders, result)

    assert prefork_orders.taken(effects) == []


@shows(("its process is killed, `acks_late`, `reject_on_worker_lost`", OF_THE_LAST))
def test_a_task_that_is_delivered_again_after_its_process_died_has_effects_once(prefork_orders: Orders) -> None:
    effects = prefork_orders.effects()
    result = start(prefork_orders, effects, "is killed once", task="persistent_order")

    assert finish(prefork_orders, result) == 0
    assert prefork_orders.signals.was_told(result.id, "died")
    assert prefork_orders.taken(effects) == [0, "end"]


@shows(("is revoked with `terminate=True`", NEVER))
@pytest.mark.parametrize("orders", ["prefork on redis", "prefork on rabbitmq", "gevent on redis"], indirect=True)
def test_a_task_that_is_revoked_while_it_runs_leaves_no_effects(orders: Orders) -> None:
    effects = orders.effects()
    result = start(orders, effects, "waits")
    orders.signals.wait(result.id, "begun")

    result.revoke(terminate=True, signal="SIGKILL")

    if pool_of(orders) == "gevent":  # whose run ends by an exception, and has no result
        orders.signals.wait(result.id, "ended")
    else:
        with pytest.raises((TaskRevokedError, Terminated)):
            finish(orders, result)
    orders.signals.tell(result.id, "may go on")
    finish(orders, start(orders, orders.effects(), "succeeds"))
    assert orders.taken(effects) == []


def test_the_process_of_a_task_that_failed_goes_on_to_the_next(prefork_orders: Orders) -> None:
    effects = prefork_orders.effects()
    for how in ["fails", "takes too long"] * 2:
        with pytest.raises((ValueError, SoftTimeLimitExceeded)):
            finish(prefork_orders, start(prefork_orders, effects, how, soft_time_limit=1))

    results = [start(prefork_orders, effects, "succeeds") for _ in range(4)]

    assert [finish(prefork_orders, result) for result in results] == [0] * 4
    assert sorted(orders for orders in prefork_orders.taken(effects) if orders != "end") == [0] * 4


# Lost workers


@dataclasses.dataclass
class Lost:
    """A task in whose run a worker was killed."""

    id: str
    effects: str
    #: What there was in that queue at the time.
    before: list[Any]


@pytest.fixture(
    scope="module",
    params=["prefork on redis", "prefork on rabbitmq", "threads on rabbitmq", "gevent on redis"],
)
def lost_orders(
    request: pytest.FixtureRequest, start_orders: Callable[..., Orders], celery_worker_process: Callable[..., Process]
) -> Iterator[tuple[Orders, dict[str, Lost]]]:
    """A worker that was killed, and the tasks in whose runs that was; another worker has its queue now."""
    pool, _, name = request.param.partition(" on ")
    broker: Broker = request.getfixturevalue(f"{name}_broker")
    if name == "redis":
        # Of its own keys, as below another worker takes all that is there.
        broker = copy.deepcopy(broker)
        broker.celery["broker_transport_options"]["global_keyprefix"] += f"lost {pool}:"
    orders = start_orders(broker, pool=pool, concurrency=4)
    worker = orders.get(orders["notify"].delay().id)["worker"]

    def begin(task: str, how: str, until: str) -> Lost:
        effects = orders.effects()
        result = start(orders, effects, how, task)
        orders.signals.wait(result.id, until)
        return Lost(result.id, effects, [])

    lost = {
        "late": begin("late_order", "waits", "begun"),
        "succeeded": begin("late_order", "waits when it has succeeded", "succeeded"),
        "early": begin("order", "waits", "begun"),
    }
    # It acknowledges a message early when it has put the task among those that are active, or in its next turn.
    while lost["early"].id not in active_tasks(orders, worker):
        time.sleep(0.05)
    active_tasks(orders, worker)
    orders.worker.kill()
    for task in lost.values():
        task.before = orders.taken(task.effects)
        orders.signals.tell(task.id, "may go on")

    settings = json.loads(orders.environment["AIRLOCK_TEST_CELERY"])
    if name == "redis":
        # At its start it takes what was delivered so many seconds ago, and has not been acknowledged.
        settings["broker_transport_options"]["visibility_timeout"] = 0
    env = {**orders.environment, "AIRLOCK_TEST_CELERY": json.dumps(settings)}
    queues = (settings["task_default_queue"],)
    with celery_worker_process("celery_orders", broker, queues=queues, concurrency=1, env=env) as another:
        yield orders, lost
        another.kill()


def active_tasks(orders: Orders, worker: str) -> set[str]:
    """The ids of the tasks that a worker says it has begun."""
    replies = orders.app.control.inspect([worker], timeout=10).active() or {}
    return {task["id"] for tasks in replies.values() for task in tasks}


@shows(("the whole worker is killed", NEVER))
def test_a_worker_that_is_killed_leaves_no_effects(lost_orders: tuple[Orders, dict[str, Lost]]) -> None:
    orders, lost = lost_orders[0], lost_orders[1]["early"]

    # What was in the queue before this would have been run before it.
    finish(orders, start(orders, orders.effects(), "succeeds"))

    assert lost.before == []
    assert orders.taken(lost.effects) == []
    assert not orders.signals.was_told(lost.id, "ended")


@shows(("the whole worker is killed, `acks_late`", OF_THE_LAST))
def test_a_task_that_is_delivered_again_after_its_worker_died_has_effects_once(
    lost_orders: tuple[Orders, dict[str, Lost]],
) -> None:
    orders, lost = lost_orders[0], lost_orders[1]["late"]

    orders.signals.wait(lost.id, "ended")

    assert lost.before == []
    assert orders.taken(lost.effects) == [0, "end"]


@shows(("the whole worker is killed after the dispatch, `acks_late`", "go out, and once more"))
def test_a_task_that_is_delivered_again_after_it_succeeded_has_effects_twice(
    lost_orders: tuple[Orders, dict[str, Lost]],
) -> None:
    orders, lost = lost_orders[0], lost_orders[1]["succeeded"]

    orders.signals.wait(lost.id, "ended")

    assert lost.before == [0, "end"]
    assert orders.taken(lost.effects) == [0, "end"]


# In place


@shows(
    ("`apply()` in a scope", "go out with those of the scope"),
    ("`apply()` in a scope, and the body raises", NEVER),
    ("`apply()`, and the scope around it is discarded", NEVER),
)
def test_a_run_in_place_is_captured_by_the_scope_around_it(prefork_orders: Orders) -> None:
    orders, effects = prefork_orders, prefork_orders.effects()

    with airlock.scope(executor=celery_executor):
        assert orders["order"].apply((effects,)).state == "SUCCESS"
        assert orders["order"].apply((effects, "fails")).state == "FAILURE"
        assert orders.taken(effects) == []
    assert orders.taken(effects) == [0, "end"]

    with pytest.raises(LookupError), airlock.scope(executor=celery_executor):
        orders["order"].apply((effects,))
        raise LookupError
    assert orders.taken(effects) == []


IN_PLACE = {
    ("`apply()` of a task that is retried", OF_THE_LAST): ("retries", [2, "end"]),
    ("`apply()` of a task that is retried automatically", OF_THE_LAST): ("retries automatically", [2, "end"]),
    ("`apply()` of a task that goes on after `self.retry()`", GO_OUT): ("goes on after its retry", [0, "end"]),
    ("`apply()` of a task that is replaced", "those of the replacement go out"): (
        "returns its replacement",
        ["replacement"],
    ),
}


@shows(*IN_PLACE)
@pytest.mark.parametrize(("how", "sent"), IN_PLACE.values(), ids=[row for row, _ in IN_PLACE])
@pytest.mark.parametrize("in_a_scope", [False, True], ids=["in no scope", "in a scope"])
def test_a_run_in_place_has_the_effects_that_it_has_in_a_worker(
    prefork_orders: Orders, how: str, sent: list[Any], in_a_scope: bool
) -> None:
    effects = prefork_orders.effects()

    with airlock.scope(executor=celery_executor) if in_a_scope else nullcontext():
        assert prefork_orders["order"].apply((effects, how)).state == "SUCCESS"

    assert prefork_orders.taken(effects) == sent
