"""Jobs of other queues, recorded in an outbox and put onto the queue later, by a relay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from own_brokers import OwnRedis
from processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
APPS = ROOT / "packages" / "airlock-queues" / "tests" / "apps"

#: The task that each enqueues, and its executor.
QUEUES = {
    "rq": ("rq_jobs.notify", "rq_jobs.executor"),
    "huey": ("huey_jobs.notify", "airlock.integrations.executors.huey.huey_executor"),
    "dramatiq": ("dramatiq_jobs.notify", "airlock.integrations.executors.dramatiq.dramatiq_executor"),
    "django_q": ("django_q_jobs.notify", "airlock.integrations.executors.django_q.django_q_executor"),
}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis of our own."""
    server = OwnRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(params=QUEUES)
def queue(request: pytest.FixtureRequest) -> str:
    """Each queue in turn."""
    return request.param


@pytest.fixture
def python(queue: str, tmp_path: Path) -> Callable[..., list[str]]:
    """A function that runs a module of Python in a project with an outbox, and returns what that prints."""

    def python(*arguments: str, redis: str) -> list[str]:
        environment = {
            **os.environ,
            "AIRLOCK_TEST_DATABASE": str(tmp_path / "queued.sqlite3"),
            "AIRLOCK_TEST_EXECUTOR": QUEUES[queue][1],
            "AIRLOCK_TEST_QUEUES": redis,
            "DJANGO_SETTINGS_MODULE": "queued.settings",
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT / "tests-integration"), str(ROOT / "packages/airlock-queues/tests/apps")]
            ),
        }
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.split()

    return python


def test_job_has_the_id_of_its_intent(queue: str, redis: str, python: Callable[..., list[str]]) -> None:
    intent, left = python("queued.enqueue", QUEUES[queue][0], redis=redis)

    assert left == "0"
    assert python("queued.take", queue, redis=redis) == [intent]


def test_relay_puts_onto_the_queue_what_could_not_be(queue: str, redis: str, python: Callable[..., list[str]]) -> None:
    intent, left = python("queued.enqueue", QUEUES[queue][0], redis=f"redis://127.0.0.1:{free_port()}/0")
    assert left == "1"

    python("django", "airlock_relay", "--drain", redis=redis)

    assert python("queued.take", queue, redis=redis) == [intent]
