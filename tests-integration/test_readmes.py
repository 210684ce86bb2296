"""The snippets of the READMEs do what the READMEs say."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from django.utils.module_loading import import_string

import airlock
from airlock.integrations.django import AirlockMiddleware
from airlock.integrations.executors.celery import celery_executor
from services import Broker

ROOT = Path(__file__).parents[1]


def snippets(readme: str) -> list[str]:
    """The Python snippets of a README."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / readme).read_text(), re.DOTALL | re.MULTILINE)


def executed(snippet: str, **given: Any) -> dict[str, Any]:
    """What a snippet has defined, beside what was given to it."""
    given = {"__name__": "project", **given}
    exec(snippet, given)
    return given


def test_readme_begins_with_an_effect_that_waits_for_the_end_of_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    example, _ = snippets("README.md")

    executed(example)

    assert capsys.readouterr().out == "order processed\npack order 42\n"


def test_readme_names_the_middleware_and_the_executor() -> None:
    _, example = snippets("README.md")

    settings = executed(example)

    assert [import_string(path) for path in settings["MIDDLEWARE"]] == [AirlockMiddleware]
    assert {key: import_string(path) for key, path in settings["AIRLOCK"].items()} == {"EXECUTOR": celery_executor}


def test_readme_of_core_shows_an_effect(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = snippets("packages/airlock-core/README.md")

    executed(example)

    assert capsys.readouterr().out == "pack order 42\n"


@pytest.fixture
def _celery_on_redis(redis_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a snippet's app the broker of the tests, instead of the one it names."""

    class OwnCelery(Celery):
        def __init__(self, name: str, broker: str) -> None:
            super().__init__(name, set_as_current=False)
            self.conf.update(redis_broker.celery)

        def task(self, *args: Any, **options: Any) -> Any:
            return super().task(*args, **options, shared=False)  # not with the apps of other tests

    monkeypatch.setattr("celery.Celery", OwnCelery)


def messages(redis_broker: Broker) -> list[tuple[str, Any]]:
    """The names and the keyword arguments of the tasks that were sent."""
    sent = redis_broker.take(redis_broker.celery["task_default_queue"])
    return [(message.headers["task"].rpartition(".")[2], message.payload[1]) for message in sent]


@pytest.mark.usefixtures("_celery_on_redis")
def test_readme_of_celery_dispatches_at_the_end_of_the_block(redis_broker: Broker) -> None:
    dispatch, _ = snippets("packages/airlock-celery/README.md")

    executed(dispatch)

    assert messages(redis_broker) == [("send_email", {"user_id": 123})]


@pytest.mark.usefixtures("_celery_on_redis")
def test_readme_of_celery_sends_one_email_however_often_the_task_is_retried(redis_broker: Broker) -> None:
    dispatch, hold = snippets("packages/airlock-celery/README.md")
    defined = executed(dispatch)
    messages(redis_broker)  # what the first snippet sends
    attempts = []

    def charge(order_id: int) -> None:
        attempts.append(order_id)
        if len(attempts) < 3:
            raise ConnectionError

    defined = executed(hold, **defined)
    defined["charge"] = charge
    defined["process_order"].apply((7, 8)).get()

    assert attempts == [7, 7, 7]
    assert messages(redis_broker) == [("send_email", {"user_id": 8})]


def test_readme_of_django_names_the_middleware_and_enqueues_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    settings, place = snippets("packages/airlock-django/README.md")
    saved: list[int] = []
    order = SimpleNamespace(id=5, save=lambda: saved.append(5))

    place_order = executed(place)["place_order"]
    with airlock.scope():
        place_order(order)
        assert saved == [5]
        assert capsys.readouterr().out == ""

    assert capsys.readouterr().out == "pack order 5\n"
    assert [import_string(path) for path in executed(settings)["MIDDLEWARE"]] == [AirlockMiddleware]
