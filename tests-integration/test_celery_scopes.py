"""Scopes in scopes, policies, coroutines and generators: what a real worker has run when they are over."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import airlock
from airlock.integrations.executors.celery import celery_executor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from conftest import Orders
    from processes import Process
    from services import Broker

HERE = Path(__file__).parent


class Wishes:
    """Sums that are enqueued, and worked out by a worker."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._intents: list[airlock.Intent] = []

    def __call__(self, number: int, **options: Any) -> None:
        self._intents.append(airlock.enqueue(self._orders["add"], number, **options))

    def run_by_now(self) -> list[int]:
        # The worker has one process, which takes one task after the other: when this one has run, those before it have.
        self._orders.get(self._orders["add"].delay(0).id)
        results = [self._orders.app.AsyncResult(intent.id) for intent in self._intents]
        return [result.result for result in results if result.successful()]


@pytest.fixture(scope="module")
def orders(broker: Broker, start_orders: Callable[..., Orders]) -> Orders:
    """A worker with each broker."""
    return start_orders(broker, concurrency=1)


@pytest.fixture
def wish(orders: Orders) -> Wishes:
    return Wishes(orders)


def test_nested_scopes_that_end_well_are_run_when_the_outermost_has_ended(wish: Wishes) -> None:
    with airlock.scope(executor=celery_executor):
        wish(1)
        with airlock.scope():
            wish(2)
        with suppress(LookupError), airlock.scope():
            wish(3)
            raise LookupError
        wish(4)
        assert wish.run_by_now() == []

    assert wish.run_by_now() == [1, 2, 4]


class MarkedAtOnce(airlock.Scope):
    def before_descendant_flushes(
        self, exiting_scope: airlock.Scope, intents: list[airlock.Intent]
    ) -> list[airlock.Intent]:
        return [intent for intent in intents if intent.name == "marked"]


def test_what_an_enclosing_scope_lets_through_is_run_before_it_ends(wish: Wishes) -> None:
    with airlock.scope(executor=celery_executor, _cls=MarkedAtOnce):
        with airlock.scope(executor=celery_executor):
            wish(1)
            wish(2, _name="marked")
        assert wish.run_by_now() == [2]

    assert wish.run_by_now() == [1, 2]


@pytest.mark.parametrize(
    ("policy", "run"),
    [
        (airlock.AllowAll(), [1, 2]),
        (airlock.DropAll(), []),
        (airlock.BlockTasks({"marked"}), [1]),
        (airlock.AllowTasks({"marked"}), [2]),
        (airlock.LogOnFlush(), [1, 2]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("local", [False, True], ids=["of the scope", "local"])
def test_what_a_policy_lets_pass_is_run(
    wish: Wishes, caplog: pytest.LogCaptureFixture, policy: airlock.Policy, run: list[int], local: bool
) -> None:
    caplog.set_level(logging.INFO, "airlock")

    with (
        airlock.scope(None if local else policy, executor=celery_executor),
        airlock.policy(policy if local else airlock.AllowAll()),
    ):
        wish(1)
        wish(2, _name="marked")

    assert wish.run_by_now() == run
    logged = [record.getMessage().partition(" (id")[0] for record in caplog.records if record.name == "airlock"]
    if isinstance(policy, airlock.LogOnFlush):
        assert logged == ["Flushing add", "Flushing marked"]
    elif run == [1, 2]:
        assert logged == []
    else:
        (line,) = logged
        assert line.endswith(f"dropped by {policy!r}")


@pytest.mark.parametrize(
    "policy", [airlock.AssertNoEffects(), airlock.BlockTasks({"marked"}, raise_on_enqueue=True)], ids=repr
)
def test_what_a_policy_refuses_is_not_run_and_the_rest_is(wish: Wishes, policy: airlock.Policy) -> None:
    with airlock.scope(executor=celery_executor):
        wish(1)
        with airlock.policy(policy), pytest.raises(airlock.PolicyViolation):
            wish(2, _name="marked")
        wish(3)

    assert wish.run_by_now() == [1, 3]


async def test_tasks_of_an_async_scope_are_run_when_it_has_ended(wish: Wishes) -> None:
    async def place(number: int) -> None:
        await asyncio.sleep(0)
        wish(number)

    async with airlock.scope(executor=celery_executor):
        await asyncio.gather(place(1), asyncio.to_thread(wish, 1))
        assert wish.run_by_now() == []
    with suppress(LookupError):
        async with airlock.scope(executor=celery_executor):
            await place(2)
            raise LookupError

    assert wish.run_by_now() == [1, 1]


def test_what_a_decorated_generator_enqueued_is_run_after_its_last_step(wish: Wishes) -> None:
    @airlock.scoped(executor=celery_executor)
    def numbers() -> Iterator[int]:
        for number in (1, 2):
            wish(number)
            yield number

    for _ in numbers():
        assert wish.run_by_now() == []
    next(numbers())  # and never again: closed before its end

    assert wish.run_by_now() == [1, 2]


async def test_what_a_decorated_async_generator_enqueued_is_run_after_its_last_step(wish: Wishes) -> None:
    @airlock.scoped(executor=celery_executor)
    async def numbers() -> AsyncIterator[int]:
        for number in (1, 2):
            wish(number)
            yield number

    async for _ in numbers():
        assert wish.run_by_now() == []

    assert wish.run_by_now() == [1, 2]


def test_a_dry_run_of_a_command_lists_what_the_worker_runs_in_earnest(
    broker: Broker, celery_worker_process: Callable[..., Process], tmp_path: Path
) -> None:
    queue = broker.queue("commands")
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db.sqlite3"), "ATOMIC_REQUESTS": False}
    env = {
        "DJANGO_SETTINGS_MODULE": "ordering.settings",
        "ORDERING_DATABASE": json.dumps(database),
        "AIRLOCK_TEST_CELERY": json.dumps({**broker.celery, "task_default_queue": queue}),
    }

    def manage(*arguments: str) -> str:
        command = [sys.executable, "-m", "django", *arguments]
        run = subprocess.run(
            command, cwd=HERE, env={**os.environ, **env}, capture_output=True, text=True, timeout=120, check=True
        )
        return run.stdout

    manage("migrate", "--run-syncdb", "--verbosity=0")
    listed = manage("confirm_again", "7", "8", "--dry-run")
    manage("confirm_again", "9")
    worker = celery_worker_process("ordering.celery", broker, queues=(queue,), env=env, concurrency=1, cwd=HERE)
    worker.until("succeeded")
    worker.stop()

    assert listed == "Dry run: 2 effects would have gone out.\n  confirm(number='7')\n  confirm(number='8')\n"
    assert worker.log.count("received") == worker.log.count("succeeded") == 1
