"""A short run of the crash test of the outbox. `nox -s crash` is the long one: `outbox_crash.py`."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest

from outbox_crash import LastingRedis, Run
from own_databases import Served, SQLite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Each database in turn."""
    if request.param == "sqlite":
        return SQLite(tmp_path)
    settings = request.getfixturevalue(f"{request.param}_database")
    return Served({**settings, "NAME": settings["TEST"]["NAME"]})


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LastingRedis]:
    """A Redis of its own, as it is stopped and killed."""
    redis = LastingRedis(tmp_path)
    redis.start()
    yield redis
    redis.stop()


def test_what_was_committed_arrives_whatever_dies(database: Any, broker: LastingRedis, tmp_path: Path) -> None:
    seed = secrets.token_hex(4)
    run = Run(database, broker, tmp_path, seed)
    run.crash(transactions=200, kills=20, pause=(2, 4), timeout=20)

    verdict = run.verdict()
    assert not verdict.defects, f"with the seed {seed}"
    assert verdict.arrived > 10
    assert verdict.kills.total() > 2
