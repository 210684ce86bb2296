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
def app(redis_broker: Broker) -> Celery:
    app = Celery(set_as_current=False)
    app.conf.update(redis_broker.celery)
    return app


@pytest.fixture
def send_email(app: Celery) -> Any:
    @app.task(name="send_email")
    def send_email(user_id: int) -> None: ...

    return send_email


def test_readme_of_celery_dispatches_at_the_end_of_the_block(
    app: Celery, redis_broker: Broker, send_email: Any
) -> None:
    dispatch, _ = snippets("packages/airlock-celery/README.md")

    executed(dispatch, send_email=send_email)

    (message,) = redis_broker.take(app.conf.task_default_queue)
    assert message.headers["task"] == "send_email"
    assert message.payload[1] == {"user_id": 123}


def test_readme_of_celery_sends_one_email_however_often_the_task_is_retried(
    app: Celery, redis_broker: Broker, send_email: Any
) -> None:
    _, hold = snippets("packages/airlock-celery/README.md")
    attempts = []

    def charge(order_id: int) -> None:
        attempts.append(order_id)
        if len(attempts) < 3:
            raise ConnectionError

    process_order = executed(hold, app=app, airlock=airlock, send_email=send_email, charge=charge)["process_order"]
    process_order.apply((7,)).get()

    assert attempts == [7, 7, 7]
    (message,) = redis_broker.take(app.conf.task_default_queue)
    assert message.payload[1] == {"user_id": 7}


def test_readme_of_django_names_the_middleware_and_enqueues_below_it() -> None:
    settings, place = snippets("packages/airlock-django/README.md")
    done: list[Any] = []
    order = SimpleNamespace(id=5, save=lambda: done.append("saved"))

    place_order = executed(place, notify_warehouse=done.append)["place_order"]
    with airlock.scope():
        place_order(order)
        assert done == ["saved"]

    assert done == ["saved", 5]
    assert [import_string(path) for path in executed(settings)["MIDDLEWARE"]] == [AirlockMiddleware]
