"""Intents as messages of Dramatiq."""

from __future__ import annotations

import importlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import ConnectionClosed

import airlock
from airlock.integrations.executors.dramatiq import dramatiq_executor
from own_brokers import OwnRabbitMQ
from processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def jobs(client: redis.Redis) -> ModuleType:
    return importlib.import_module("dramatiq_jobs")


@pytest.fixture
def run_all(work: Callable[..., None]) -> Callable[[], None]:
    """A function that starts a worker."""
    command = ["-m", "dramatiq", "dramatiq_jobs", "--processes", "1", "--threads", "1"]
    return lambda: work(*command, ready="is ready for action")


@pytest.fixture
def waiting(jobs: ModuleType) -> Callable[..., list[dramatiq.Message[Any]]]:
    """A function that returns the messages in a queue, in the order of sending."""

    def waiting(queue: str = "default") -> list[dramatiq.Message[Any]]:
        ids = jobs.broker.client.lrange(f"dramatiq:{queue}", 0, -1)
        return [dramatiq.Message.decode(jobs.broker.client.hget(f"dramatiq:{queue}.msgs", each)) for each in ids]

    return waiting


def test_intent_becomes_a_message_with_its_id(jobs: ModuleType, run_all: Callable[[], None], told: Any) -> None:
    run_all()

    with airlock.scope(executor=dramatiq_executor):
        intent = airlock.enqueue(jobs.notify, "hello")
        airlock.enqueue(jobs.last)

    assert told() == [["notify", intent.id, "hello"]]


def test_only_the_attempt_that_succeeds_has_effects(jobs: ModuleType, run_all: Callable[[], None], told: Any) -> None:
    run_all()

    with airlock.scope(executor=dramatiq_executor):
        airlock.enqueue(jobs.order, 1, attempts=9)  # and no other attempt
        airlock.enqueue(jobs.order, 2, attempts=3, _dispatch_options={"max_retries": 2})

    assert [text for _, _, text in told()] == ["order 2, attempt 3"]


def test_async_actors_have_a_scope_too(jobs: ModuleType, run_all: Callable[[], None], told: Any) -> None:
    run_all()

    with airlock.scope(executor=dramatiq_executor):
        airlock.enqueue(jobs.order_async, 1, attempts=2)

    assert [text for _, _, text in told()] == ["order 1, attempt 2"]


def test_run_whose_effects_fail_is_retried(jobs: ModuleType, run_all: Callable[[], None], told: Any) -> None:
    run_all()

    with airlock.scope(executor=dramatiq_executor):
        airlock.enqueue(jobs.order_whose_effect_fails, 1)

    assert [text for _, _, text in told()] == ["order 1, attempt 2"]


def test_follow_ups_go_through_the_configured_executor(jobs: ModuleType) -> None:
    followed: list[airlock.Intent] = []
    airlock.configure(executor=followed.append)

    jobs.order(1, attempts=1)

    assert [intent.name for intent in followed] == ["notify", "last"]


def test_discarded_intents_reach_no_queue(jobs: ModuleType, client: redis.Redis) -> None:
    with pytest.raises(ValueError, match="declined"), airlock.scope(executor=dramatiq_executor):
        airlock.enqueue(jobs.notify, "hello")
        raise ValueError("declined")

    assert client.dbsize() == 0


def test_options_are_those_of_dramatiq(jobs: ModuleType, waiting: Callable[..., Any]) -> None:
    with airlock.scope(executor=dramatiq_executor):
        airlock.enqueue(jobs.notify, "hello", _dispatch_options={"time_limit": 7, "on_success": jobs.last})

    (message,) = waiting()
    assert (message.options["time_limit"], message.options["on_success"]) == (7, "last")


@pytest.mark.parametrize("delay", [60_000, timedelta(minutes=1)])
def test_delay_is_in_milliseconds_or_a_timedelta(
    jobs: ModuleType, waiting: Callable[..., Any], delay: int | timedelta
) -> None:
    with airlock.scope(executor=dramatiq_executor):
        intent = airlock.enqueue(jobs.notify, "hello", _dispatch_options={"delay": delay})

    (message,) = waiting("default.DQ")
    assert message.message_id == intent.id
    assert 0 <= message.options["eta"] - message.message_timestamp - 60_000 < 60_000


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((), {}, "missing a required argument: 'text'"),
        (("hello",), {"on_success": 7}, "on_success value must be an Actor"),
        ((object(),), {}, "not JSON serializable"),
    ],
    ids=["arguments", "option", "not JSON"],
)
def test_what_no_worker_could_run_raises_at_the_call(
    jobs: ModuleType, client: redis.Redis, args: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with airlock.scope(executor=dramatiq_executor), pytest.raises(TypeError, match=message):
        airlock.enqueue(jobs.notify, *args, _dispatch_options=options)

    assert client.dbsize() == 0


def test_groups_and_pipelines_run_when_the_scope_flushes(jobs: ModuleType, waiting: Callable[..., Any]) -> None:
    with airlock.scope(executor=dramatiq_executor):
        airlock.enqueue(dramatiq.group([jobs.notify.message("a"), jobs.notify.message("b")]).run)
        airlock.enqueue((jobs.notify.message("c") | jobs.last.message()).run, delay=None)
        assert waiting() == []

    assert [message.args for message in waiting()] == [("a",), ("b",), ("c",)]


def test_other_callables_are_called_in_place() -> None:
    done: list[int] = []
    with airlock.scope(executor=dramatiq_executor):
        airlock.enqueue(done.append, 1)

    assert done == [1]


def test_policies_know_an_actor_by_its_import_path(jobs: ModuleType, waiting: Callable[..., Any]) -> None:
    with airlock.scope(airlock.BlockTasks({"dramatiq_jobs.notify"}), executor=dramatiq_executor):
        airlock.enqueue(jobs.notify, "hello")
        airlock.enqueue(jobs.last)

    assert [message.actor_name for message in waiting()] == ["last"]


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_broker_that_is_away_is_down(kind: str) -> None:
    broker: dramatiq.Broker = {
        "redis": lambda: RedisBroker(url=f"redis://127.0.0.1:{free_port()}/0"),
        "rabbitmq": lambda: RabbitmqBroker(url=f"amqp://127.0.0.1:{free_port()}"),
    }[kind]()
    actor = dramatiq.actor(taking_text, broker=broker)
    assert dramatiq_executor.why_down(airlock.Intent(actor), None)


@pytest.mark.usefixtures("full_redis")
def test_redis_that_is_full_is_down(jobs: ModuleType) -> None:
    intent = airlock.Intent(jobs.notify, ("hello",))
    with pytest.raises(redis.RedisError, match="maxmemory") as raised:
        dramatiq_executor(intent)

    assert "maxmemory" in (dramatiq_executor.why_down(intent, raised.value) or "")


def test_redis_that_is_there_is_not_to_blame(jobs: ModuleType) -> None:
    assert dramatiq_executor.why_down(airlock.Intent(jobs.notify), redis.ConnectionError("Broken pipe")) is None


def test_stub_broker_is_never_down() -> None:
    actor = dramatiq.actor(taking_text, broker=StubBroker())
    assert dramatiq_executor.why_down(airlock.Intent(actor), None) is None


def test_message_that_rabbitmq_refuses_is_no_outage(tmp_path: Path) -> None:
    server = OwnRabbitMQ(tmp_path, "max_message_size = 1000\n")
    server.start()
    broker = RabbitmqBroker(url=server.url.removesuffix("//"), confirm_delivery=True)
    intent = airlock.Intent(dramatiq.actor(taking_text, broker=broker), ("hello" * 1000,))
    try:
        with pytest.raises(ConnectionClosed, match="larger than configured") as raised:
            dramatiq_executor(intent)
        assert dramatiq_executor.why_down(intent, raised.value) is None
    finally:
        broker.close()
        server.stop()
    assert dramatiq_executor.why_down(intent, raised.value)


def test_rabbitmq_that_is_back_is_not_down(tmp_path: Path) -> None:
    server = OwnRabbitMQ(tmp_path)
    server.start()
    broker = RabbitmqBroker(url=server.url.removesuffix("//"))
    intent = airlock.Intent(dramatiq.actor(taking_text, broker=broker))
    try:
        assert dramatiq_executor.why_down(intent, None) is None
        server.stop()
        assert dramatiq_executor.why_down(intent, None)
        server.start()
        assert dramatiq_executor.why_down(intent, None) is None
    finally:
        broker.close()
        server.stop()


def test_what_is_no_actor_runs_in_place(jobs: ModuleType) -> None:
    assert dramatiq_executor.runs_in_place(airlock.Intent(taking_text))
    assert not dramatiq_executor.runs_in_place(airlock.Intent(jobs.notify))


def taking_text(text: str) -> None: ...
