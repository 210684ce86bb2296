"""A trace goes on from the `enqueue` call into the worker, and metrics know the outbox."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from processes import HERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Orders
    from services import Broker


def run(environment: dict[str, str], *command: str) -> str:
    """Run a Python module, and return what it has printed."""
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "", **environment}
    ended = subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def told(environment: dict[str, str], *arguments: str) -> Any:
    """What a program of `telemetry` tells in its last line."""
    return json.loads(run(environment, "telemetry", *arguments).splitlines()[-1])


@pytest.fixture(scope="module")
def orders(redis_broker: Broker, start_orders: Callable[..., Orders]) -> Orders:
    """A worker of `third_party`."""
    return start_orders(redis_broker, app="third_party", concurrency=1)


@pytest.fixture
def outbox(orders: Orders, postgresql_database: dict[str, Any]) -> Iterator[Callable[..., dict[str, str]]]:
    """A function that returns the environment of a project with an outbox, for the options of that."""

    def environment(database: dict[str, Any] = postgresql_database, **options: Any) -> dict[str, str]:
        return {
            **orders.environment,
            "DJANGO_SETTINGS_MODULE": "relayed.settings",
            "AIRLOCK_TEST_DATABASE": json.dumps(database),
            "AIRLOCK_TEST_OUTBOX": json.dumps(options),
        }

    run(environment(), "django", "migrate", "--verbosity=0")
    yield environment
    run(environment(), "django", "airlock_outbox", "discard", "--task=traced", "--no-input")


def ways(orders: Orders, told: Any) -> list[list[str]]:
    """For each task that has run, the names of the spans above its run."""
    spans = {span["id"]: span for span in told["spans"]}
    found = []
    for task_id in told["ids"]:
        span = spans.get(orders.get(task_id)["opentelemetry"]["span"])
        names = []
        while span:
            names.append(span["name"])
            span = spans.get(span["parent"])
        found.append(names)
    return found


def expected(count: int) -> list[list[str]]:
    return [["apply_async/traced", "create traced", f"order {number}"] for number in range(count)]


def links_of_sends(told: Any) -> list[list[str]]:
    names = {span["id"]: span["name"] for span in told["spans"]}
    return [[names[link] for link in span["links"]] for span in told["spans"] if span["name"] == "send traced"]


@pytest.mark.parametrize("count", [1, 3], ids=["one", "several"])
def test_a_run_descends_from_the_enqueue_call(orders: Orders, count: int) -> None:
    enqueued = told(orders.environment, "enqueue", str(count))

    assert ways(orders, enqueued) == expected(count)
    assert links_of_sends(enqueued) == [["create traced"] * count]


@pytest.mark.parametrize("count", [1, 3], ids=["one", "several"])
def test_a_run_from_the_outbox_descends_from_the_enqueue_call(
    orders: Orders, outbox: Callable[..., dict[str, str]], count: int
) -> None:
    enqueued = told(outbox(), "enqueue_in_transaction", str(count))

    assert ways(orders, enqueued) == expected(count)


def test_a_run_from_the_relay_descends_from_the_enqueue_call(
    orders: Orders, outbox: Callable[..., dict[str, str]]
) -> None:
    environment = outbox(FAST_PATH_SECONDS=0)
    enqueued = told(environment, "enqueue_in_transaction", "3")
    run(environment, "django", "airlock_relay", "--drain")

    assert ways(orders, enqueued) == expected(3)


def test_the_outbox_is_measured(outbox: Callable[..., dict[str, str]]) -> None:
    metrics = told(outbox(FAST_PATH_SECONDS=0), "measure", "3")

    states = {attributes["airlock.outbox.state"]: value for attributes, value in metrics["airlock.outbox.entries"]}
    assert states == {"held": 0, "due": 3, "in_flight": 0, "waiting": 0, "parked": 0, "paused": 0}
    ((_, age),) = metrics["airlock.outbox.oldest_due"]
    assert age > 0


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        yield server.getsockname()[1]


@pytest.mark.parametrize("answers", [True, False], ids=["refuses", "is silent"])
def test_metrics_do_not_need_the_database(
    outbox: Callable[..., dict[str, str]], postgresql_database: dict[str, Any], silent_port: int, answers: bool
) -> None:
    away = {**postgresql_database, "HOST": "127.0.0.1", "PORT": 1 if answers else silent_port}
    metrics = told(outbox(away), "measure_while_away")

    assert "airlock.outbox.entries" not in metrics
    assert [value for _, value in metrics["airlock.intents"]] == [1]
