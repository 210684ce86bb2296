"""An `AirlockTask` in a worker of a Django project: its scope is a `DjangoScope`, and waits for the transaction."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from airlock.integrations.celery import AirlockTask, LegacyTaskShim

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Orders
    from services import Broker

KINDS: dict[str, dict[str, Any]] = {
    "in INSTALLED_APPS": {"INSTALLED_APPS": ["airlock.integrations.django"]},
    "installed": {"INSTALLED_APPS": []},
    "not installed": {"INSTALLED_APPS": []},
    "with an executor": {"AIRLOCK": {"EXECUTOR": "django_orders.celery.executor_of_the_project"}},
}


@pytest.fixture(scope="module")
def start_django_orders(
    redis_broker: Broker, start_orders: Callable[..., Orders], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Orders]:
    """A function that starts a worker of one of the `KINDS` of Django projects."""
    sqlite = tmp_path_factory.mktemp("django") / "db.sqlite3"

    def start(kind: str) -> Orders:
        environment = {"AIRLOCK_TEST_SETTINGS": json.dumps(KINDS[kind]), "AIRLOCK_TEST_SQLITE": str(sqlite)}
        if kind == "not installed":
            environment["AIRLOCK_TEST_WITHOUT_AIRLOCK_DJANGO"] = "1"
        return start_orders(redis_broker, app="django_orders.celery", env=environment, concurrency=1)

    return start


@pytest.fixture(scope="module", params=["in INSTALLED_APPS", "installed"])
def orders(request: pytest.FixtureRequest, start_django_orders: Callable[[str], Orders]) -> Orders:
    return start_django_orders(request.param)


def place(orders: Orders, how: str) -> list[Any]:
    """What has come into the broker when an order is over."""
    effects = orders.effects()
    orders.get(orders.app.send_task("place", (effects, how)).id)
    return orders.taken(effects)


def test_each_run_has_a_django_scope(orders: Orders) -> None:
    assert orders.get(orders["parent"].delay().id)["scope"] == "DjangoScope"


def test_effects_go_out_after_the_commit(orders: Orders) -> None:
    assert place(orders, "succeeds") == ["before", "in the transaction", "after"]


def test_what_was_rolled_back_has_no_effect(orders: Orders) -> None:
    assert place(orders, "is rolled back") == ["before", "after"]


def test_a_task_that_raises_has_no_effects(orders: Orders) -> None:
    effects = orders.effects()

    with pytest.raises(ValueError, match="no"):
        orders.get(orders.app.send_task("place", (effects, "fails")).id)

    assert orders.taken(effects) == []


@pytest.mark.parametrize("task_cls", [AirlockTask, LegacyTaskShim])
def test_all_tasks_of_an_app_have_delay_on_commit(task_cls: type[AirlockTask]) -> None:
    app = Celery(task_cls=task_cls, set_as_current=False)

    assert callable(app.Task.delay_on_commit)


def test_a_call_on_commit_goes_out_if_the_run_succeeds(orders: Orders) -> None:
    assert "on commit" in place(orders, "calls on commit")


@pytest.mark.parametrize("how", ["calls on commit, fails", "calls on commit, is rolled back"])
def test_a_call_on_commit_is_gone_with_the_run_or_the_transaction(orders: Orders, how: str) -> None:
    effects = orders.effects()

    orders.app.send_task("place", (effects, how)).get(timeout=60, propagate=False)

    assert "on commit" not in orders.taken(effects)


def test_an_effect_that_cannot_be_dispatched_fails_neither_the_task_nor_the_others(orders: Orders) -> None:
    assert place(orders, "cannot be serialised") == ["before", "in the transaction", "after", "last"]
    assert orders.worker.log.count("was not dispatched") == 1


def test_without_airlock_django_a_run_has_a_plain_scope(start_django_orders: Callable[[str], Orders]) -> None:
    orders = start_django_orders("not installed")

    assert orders.get(orders["parent"].delay().id)["scope"] == "Scope"
    assert place(orders, "succeeds") == ["before", "in the transaction", "after"]


def test_the_executor_of_the_setting_wins_over_that_of_celery(start_django_orders: Callable[[str], Orders]) -> None:
    orders = start_django_orders("with an executor")

    sent = place(orders, "succeeds")

    assert sent == [f"by the project's executor: {told}" for told in ("before", "in the transaction", "after")]


BYPASSES = """
import django
from django.conf import settings

settings.configure(
    AIRLOCK={"BYPASS": "raise"},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["airlock.integrations.django"],
)
django.setup()

import airlock
from celery import Celery
from django.db.transaction import atomic
from kombu.exceptions import EncodeError

app = Celery("shop", broker="memory://")


@app.task(name="notify")
def notify(): ...


def place(boundary):
    with boundary:
        notify.delay()


notify.delay()
for boundary, where in ((atomic(), "an open transaction"), (airlock.scope(), "DjangoScope")):
    try:
        place(boundary)
    except EncodeError as error:
        assert f"notify was published directly at <string>:26, inside {where}" in str(error), error
    else:
        raise AssertionError(where)
with airlock.scope(), atomic():
    airlock.enqueue(notify)
"""


def test_the_setting_finds_what_is_published_directly() -> None:
    done = subprocess.run([sys.executable, "-c", BYPASSES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
