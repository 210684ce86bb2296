"""Jobs of other queues, recorded in an outbox and put onto the queue later, by a relay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from own_brokers import OwnRedis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from processes import Process

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
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
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
def environment(queue: str, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """A function that returns the environment of a project with an outbox, whose queue is on a certain Redis."""
    return lambda redis: {
        **os.environ,
        "AIRLOCK_TEST_DATABASE": str(tmp_path / "queued.sqlite3"),
        "AIRLOCK_TEST_EXECUTOR": QUEUES[queue][1],
        "AIRLOCK_TEST_QUEUES": redis,
        "DJANGO_SETTINGS_MODULE": "queued.settings",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests-integration"), str(APPS)]),
    }


@pytest.fixture
def python(environment: Callable[[str], dict[str, str]]) -> Callable[..., list[str]]:
    """A function that runs a module of Python there, and returns what that prints."""

    def python(*arguments: str, redis: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            env=environment(redis),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.split()

    return python


def test_job_has_the_id_of_its_intent(queue: str, address: str, python: Callable[..., list[str]]) -> None:
    intent, left = python("queued.enqueue", QUEUES[queue][0], redis=address)

    assert left == "0"
    assert python("queued.take", queue, redis=address) == [intent]


@pytest.mark.parametrize("queue", ["huey", "dramatiq"], indirect=True)  # the others make a small job of it
def test_job_that_redis_cuts_the_connection_for_stops_no_other(
    queue: str, python: Callable[..., list[str]], tmp_path: Path
) -> None:
    server = OwnRedis(tmp_path)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("proto-max-bulk-len", "1mb")
    intent, left = python("queued.enqueue", QUEUES[queue][0], "3000000", redis=server.url)
    assert left == "2"

    python("django", "airlock_relay", "--drain", redis=server.url)

    assert python("queued.take", queue, redis=server.url) == [intent]
    server.stop()


def test_relay_waits_for_a_queue_that_is_away_and_parks_nothing(
    queue: str,
    python: Callable[..., list[str]],
    environment: Callable[[str], dict[str, str]],
    start_process: Callable[..., Process],
    tmp_path: Path,
) -> None:
    server = OwnRedis(tmp_path)
    intent, left = python("queued.enqueue", QUEUES[queue][0], redis=server.url)
    assert left == "1"
    relay = start_process(
        *(sys.executable, "-m", "django", "airlock_relay"), env=environment(server.url), ready="The broker is down: "
    )

    server.start()
    deadline = time.monotonic() + 60
    while not (taken := python("queued.take", queue, redis=server.url)):
        assert time.monotonic() < deadline, relay.log

    assert taken == [intent]
    relay.stop()
    server.stop()
