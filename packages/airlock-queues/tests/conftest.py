"""What the tests of airlock-queues share: a Redis of their own, and what the workers tell of what they ran."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

import airlock
from own_brokers import OwnRedis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from processes import Process

#: Where the modules are that the workers import, and the tests too.
APPS = Path(__file__).parent / "apps"
sys.path.insert(0, str(APPS))


@pytest.fixture(autouse=True)
def _leave_as_found() -> Iterator[None]:
    yield
    airlock.reset_configuration()
    left_over = []
    while (scope := airlock.get_current_scope()) and scope.is_active:
        left_over.append(scope)
        scope.exit()
    assert not left_over, "the test did not leave its scopes"


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis of our own, for the queues. The apps find it in the environment."""
    server = OwnRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRLOCK_TEST_QUEUES", server.url)
        yield server.url
    server.stop()


@pytest.fixture
def client(address: str) -> Iterator[redis.Redis]:
    """That Redis, with nothing in it."""
    with redis.Redis.from_url(address, decode_responses=True) as client:
        client.flushdb()
        yield client


@pytest.fixture
def full_redis(client: redis.Redis) -> Iterator[None]:
    """The Redis of the queues, which has no memory left."""
    client.config_set("maxmemory", 1)
    yield
    client.config_set("maxmemory", 0)


@pytest.fixture
def told(client: redis.Redis) -> Callable[[], list[Any]]:
    """A function that waits until a job has told that it is the last one.

    Returns:
        What the jobs before it have told, in order.
    """

    def told() -> list[Any]:
        deadline = time.monotonic() + 60
        while True:
            told = [json.loads(line) for line in client.lrange("told", 0, -1)]
            if ["last"] in told:
                return told[: told.index(["last"])]
            assert time.monotonic() < deadline, f"no job was the last one, but there were {told}"
            time.sleep(0.02)

    return told


@pytest.fixture
def work(start_process: Callable[..., Process], address: str) -> Iterator[Callable[..., None]]:
    """A function that starts a worker, which ends with the test.

    Args:
        *arguments: for Python.
        ready: what its log contains when it is ready.
    """
    started: list[Process] = []

    def work(*arguments: str, ready: str) -> None:
        started.append(start_process(sys.executable, *arguments, ready=ready, cwd=APPS))

    yield work
    for process in started:
        process.stop()
