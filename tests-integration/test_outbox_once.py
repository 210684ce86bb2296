"""A `OnceTask` in workers: whatever delivers its message again, the run is effective once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from celery import uuid

from processes import HERE

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Orders
    from services import Broker


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An entry for `DATABASES`."""
    if request.param != "sqlite":
        address: dict[str, Any] = request.getfixturevalue(f"{request.param}_database")
        return address
    file = tmp_path_factory.mktemp("once") / "db.sqlite3"
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file), "OPTIONS": {"timeout": 60}}


@pytest.fixture(scope="module")
def orders(database: dict[str, Any], broker: Broker, start_orders: Callable[..., Orders]) -> Orders:
    """The project, its database migrated, and a worker."""
    settings = {
        "DATABASES": {"default": database},
        "INSTALLED_APPS": [
            "django.contrib.sessions",
            "airlock.integrations.django",
            "airlock.integrations.outbox",
        ],
        "AIRLOCK": {"SCOPE": "airlock.integrations.outbox.OutboxScope", "OUTBOX": {"HOLD_SECONDS": 1}},
    }
    environment = {"AIRLOCK_TEST_SETTINGS": json.dumps(settings), "AIRLOCK_TEST_SQLITE": ""}
    migrate = [sys.executable, "-m", "django", "migrate", "--verbosity=0", "--settings=django_orders.settings"]
    path = {"PYTHONPATH": str(HERE)}
    subprocess.run(migrate, env={**os.environ, **environment, **path}, check=True, timeout=120)
    return start_orders(broker, app="django_orders.once", env=environment, concurrency=2)


def runs(orders: Orders, task_id: str) -> list[int]:
    result: list[int] = orders.get(orders.app.send_task("runs", (task_id,)).id)
    return result


@pytest.mark.parametrize("how", ["is killed in its transaction", "is killed when it has succeeded"])
def test_redelivered_after_its_process_was_killed(orders: Orders, how: str) -> None:
    effects = orders.effects()

    sent = orders.app.send_task("once", (effects, how))
    orders.signals.wait(sent.id, "ended")

    assert orders.signals.was_told(sent.id, "died")
    assert runs(orders, sent.id) == [1, 1]
    assert orders.taken(effects) == [how]


def test_killed_between_its_commit_and_its_effects(orders: Orders) -> None:
    effects = orders.effects()

    sent = orders.app.send_task("once", (effects, "is killed after its commit"))
    orders.signals.wait(sent.id, "ended")

    assert orders.signals.was_told(sent.id, "died")
    assert f"(id {sent.id}) was skipped: it was delivered again" in orders.worker.log
    assert runs(orders, sent.id) == [1, 1]
    assert orders.taken(effects) == []  # they are the relay's, once the hold of the process that died ends
    deadline = time.monotonic() + 60
    while not (taken := orders.taken(effects)) and time.monotonic() < deadline:
        relaying = orders.app.send_task("airlock.outbox.relay")
        orders.signals.wait(relaying.id, "ended")
    assert taken == ["is killed after its commit"]


def test_published_several_times(orders: Orders) -> None:
    effects, task_id = orders.effects(), uuid()

    for _ in range(8):
        orders.app.send_task("once", (effects, "succeeds"), task_id=task_id)
    deadline = time.monotonic() + 60
    while (
        orders.worker.log.count(f"(id {task_id}) was skipped: it was delivered again") < 7
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    orders.signals.wait(task_id, "ended")

    assert runs(orders, task_id) == [1, 1]
    assert orders.taken(effects) == ["succeeds"]
