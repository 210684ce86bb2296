"""Intents as tasks of Huey."""

from __future__ import annotations

import importlib
import shutil
import sqlite3
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import redis
from huey import FileHuey, MemoryHuey, RedisHuey, SqliteHuey
from huey.exceptions import TaskTimeout

import airlock
from airlock.integrations.executors.huey import airlock_task, huey_executor
from processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def jobs(client: redis.Redis) -> ModuleType:
    return importlib.import_module("huey_jobs")


@pytest.fixture
def run_all(work: Callable[..., None]) -> Callable[[], None]:
    """A function that starts a worker."""
    return lambda: work("-m", "huey.bin.huey_consumer", "huey_jobs.huey", "--delay=0.02", ready="Huey consumer started")


def test_intent_becomes_a_task_with_its_id(jobs: ModuleType, run_all: Callable[[], None], told: Any) -> None:
    run_all()

    with airlock.scope(executor=huey_executor):
        intent = airlock.enqueue(jobs.notify, "hello")
        airlock.enqueue(jobs.last)
        assert len(jobs.huey) == 0

    assert told() == [["notify", intent.id, "hello"]]


@pytest.mark.parametrize("name", ["order", "order_that_asks_for_a_retry"])
def test_only_the_attempt_that_succeeds_has_effects(
    jobs: ModuleType, run_all: Callable[[], None], told: Any, name: str
) -> None:
    run_all()

    with airlock.scope(executor=huey_executor):
        airlock.enqueue(jobs.order, 1, attempts=9)  # and no other attempt
        airlock.enqueue(getattr(jobs, name), 2, attempts=3, _dispatch_options={"retries": 2})

    assert [text for _, _, text in told()] == ["order 2, attempt 3"]


def test_follow_ups_go_through_the_configured_executor(jobs: ModuleType) -> None:
    followed: list[airlock.Intent] = []
    airlock.configure(executor=followed.append)

    jobs.order.call_local(1, attempts=1)

    assert [intent.name for intent in followed] == ["notify", "last"]


def test_discarded_intents_reach_no_queue(jobs: ModuleType) -> None:
    with pytest.raises(ValueError, match="declined"), airlock.scope(executor=huey_executor):
        airlock.enqueue(jobs.notify, "hello")
        raise ValueError("declined")

    assert len(jobs.huey) == 0


def test_options_are_those_of_huey(jobs: ModuleType) -> None:
    with airlock.scope(executor=huey_executor):
        airlock.enqueue(jobs.notify, "hello", urgent=True, _dispatch_options={"retries": 7, "id": "mine"})
        later = airlock.enqueue(jobs.notify, "later", _dispatch_options={"delay": 3600, "retry_delay": 3})

    tasks = {task.id: task for task in jobs.huey.pending()}
    assert (tasks["mine"].retries, tasks["mine"].data) == (7, (("hello",), {"urgent": True}))
    assert (tasks[later.id].retry_delay, tasks[later.id].data) == (3, (("later",), {}))
    assert not jobs.huey.ready_to_run(tasks[later.id])


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((), {}, TypeError, "missing a required argument: 'text'"),
        (("hello",), {"retires": 7}, TypeError, "retires"),
        ((lambda: None,), {}, Exception, "pickle"),
    ],
    ids=["arguments", "option", "not to be pickled"],
)
def test_what_no_worker_could_run_raises_at_the_call(
    jobs: ModuleType, args: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with airlock.scope(executor=huey_executor), pytest.raises(error, match=message):
        airlock.enqueue(jobs.notify, *args, _dispatch_options=options)

    assert len(jobs.huey) == 0


def test_boundary_above_the_task_is_refused(jobs: ModuleType) -> None:
    with pytest.raises(TypeError, match=r"Put @airlock_task below @huey.task\(\)"):
        airlock_task(jobs.notify)


def test_other_callables_are_called_in_place() -> None:
    done: list[int] = []
    with airlock.scope(executor=huey_executor):
        airlock.enqueue(done.append, 1)

    assert done == [1]


class LoggingScope(airlock.Scope):
    dispatch_errors = "log"


def test_time_limit_of_a_task_interrupts_a_flush() -> None:
    def interrupted(intent: airlock.Intent) -> None:
        raise TaskTimeout

    with pytest.raises(TaskTimeout), airlock.scope(_cls=LoggingScope, executor=interrupted) as scope:
        intents = [airlock.enqueue(print, number) for number in range(2)]

    assert scope.unknown_intents == intents[:1]


def test_policies_know_a_task_by_its_import_path(jobs: ModuleType) -> None:
    with airlock.scope(airlock.BlockTasks({"huey_jobs.notify"}), executor=huey_executor):
        airlock.enqueue(jobs.notify, "hello")
        airlock.enqueue(jobs.last)

    assert [task.name for task in jobs.huey.pending()] == ["last"]


@pytest.mark.parametrize("storage", ["redis", "sqlite", "file"])
def test_storage_that_is_away_is_down(storage: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    huey: Any = {
        "redis": lambda: RedisHuey(url=f"redis://127.0.0.1:{free_port()}/0"),
        "sqlite": lambda: SqliteHuey(filename=str(tmp_path / "jobs"), timeout=0.01),
        "file": lambda: FileHuey(path=str(tmp_path / "jobs")),
    }[storage]()
    task = huey.task()(taking_text)
    with ExitStack() as stack:
        if storage == "sqlite":
            stack.enter_context(sqlite3.connect(tmp_path / "jobs")).execute("BEGIN EXCLUSIVE")
        elif storage == "file":
            shutil.rmtree(tmp_path / "jobs")
        assert huey_executor.why_down(airlock.Intent(task), None)


@pytest.mark.usefixtures("full_redis")
def test_redis_that_is_full_is_down(jobs: ModuleType) -> None:
    intent = airlock.Intent(jobs.notify, ("hello",))
    with pytest.raises(redis.RedisError, match="maxmemory") as raised:
        huey_executor(intent)

    assert "maxmemory" in (huey_executor.why_down(intent, raised.value) or "")


def test_redis_that_is_there_is_not_to_blame(jobs: ModuleType) -> None:
    assert huey_executor.why_down(airlock.Intent(jobs.notify), redis.ConnectionError("Broken pipe")) is None
    assert jobs.huey.get("airlock") is None  # nothing is left there


def test_what_is_no_task_runs_in_place_and_so_does_an_immediate_huey(jobs: ModuleType) -> None:
    immediate = MemoryHuey(immediate=True).task()(taking_text)

    assert not huey_executor.runs_in_place(airlock.Intent(jobs.notify))
    assert all(huey_executor.runs_in_place(airlock.Intent(task)) for task in (taking_text, immediate))


def taking_text(text: str) -> None: ...
