"""The snippets of the READMEs do what the READMEs say."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from django.db import transaction
from django.http import HttpResponseRedirect
from django.test import RequestFactory
from django.utils.module_loading import import_string

import airlock
from airlock.integrations.django import AirlockMiddleware
from airlock.integrations.outbox import OutboxScope, status
from airlock.testing import collect_effects

if TYPE_CHECKING:
    from collections.abc import Callable

    from services import Broker

ROOT = Path(__file__).parents[1]


def snippets(readme: str) -> list[str]:
    """The Python snippets of a README."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / readme).read_text(), re.DOTALL | re.MULTILINE)


def executed(snippet: str, **given: Any) -> dict[str, Any]:
    """What a snippet has defined, beside what was given to it."""
    given = {**given, "__name__": "project"}
    exec(snippet, given)
    return given


PROBLEM, CURE, EXAMPLE, SETTINGS, VIEW = snippets("README.md")


@pytest.fixture
def published_by(django_project: None) -> Callable[[str], int]:
    """A function that gives the view of the README a card that is declined, and counts the messages it sends."""
    from config.celery import app
    from shop.models import Order
    from shop.tasks import send_confirmation

    def charge(order: Order, card: str) -> None:
        raise ValueError("the card was declined")

    def publish(source: str) -> int:
        defined = executed(
            source,
            airlock=airlock,
            charge=charge,
            Order=Order,
            redirect=HttpResponseRedirect,
            send_confirmation=send_confirmation,
            transaction=transaction,
        )
        request = RequestFactory().post("/checkout/", {"email": "ada@example.com", "card": "4242"})
        with pytest.raises(ValueError, match="declined"):
            AirlockMiddleware(defined["checkout"])(request)
        assert Order.objects.count() == 0
        with app.connection_for_write() as connection:
            return connection.default_channel.queue_purge(app.conf.task_default_queue) or 0

    with app.connection_for_write() as connection:
        queue = connection.SimpleQueue(app.conf.task_default_queue)  # now it exists
        queue.clear()
        queue.close()
    return publish


def test_task_of_the_view_runs_though_its_order_is_gone(published_by: Callable[[str], int]) -> None:
    assert published_by(PROBLEM) == 1


def test_line_of_the_readme_cures_it(published_by: Callable[[str], int]) -> None:
    cured = re.sub(r"^.*\.delay\(.*\n", CURE, PROBLEM, flags=re.MULTILINE)

    assert CURE in cured
    assert published_by(cured) == 0


def test_line_of_the_readme_sends_when_the_view_succeeds(django_project: None) -> None:
    from shop.models import Order
    from shop.tasks import send_confirmation

    request = RequestFactory().get("/")

    def view(request: Any) -> HttpResponseRedirect:
        order = Order.objects.create(email="ada@example.com")
        executed(CURE.strip(), airlock=airlock, order=order, send_confirmation=send_confirmation)
        return HttpResponseRedirect("orders")

    AirlockMiddleware(view)(request)

    assert [intent.name for intent in request.airlock_scope.dispatched_intents] == ["send_confirmation"]


@pytest.mark.usefixtures("plain_project")
def test_example_of_the_readme_waits_for_the_end_of_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    executed(EXAMPLE)

    assert capsys.readouterr().out == "order saved\npack order 42\n"


@pytest.mark.parametrize("settings", [SETTINGS, snippets("packages/airlock-django/README.md")[0]])
def test_settings_add_to_what_a_project_has(settings: str) -> None:
    defined = executed(
        settings,
        INSTALLED_APPS=["django.contrib.auth"],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    )

    assert defined["INSTALLED_APPS"] == ["django.contrib.auth", "airlock.integrations.django"]
    ours, theirs = defined["MIDDLEWARE"]
    assert import_string(ours) is AirlockMiddleware
    assert theirs == "django.middleware.common.CommonMiddleware"


def place_order_in_the_view_of_the_readme(in_transaction: Callable[[], None] | None = None) -> int:
    """Run the view behind the middleware, and return the id of its order."""
    from shop.models import Order

    def with_more_to_do(request: Any) -> Any:
        with transaction.atomic():
            response = executed(VIEW)["place_order"](request)
            if in_transaction is not None:
                in_transaction()
        return response

    AirlockMiddleware(with_more_to_do)(RequestFactory().post("/", {"email": "ada@example.com"}))
    order = Order.objects.last()
    return order.pk if order else 0


@pytest.mark.usefixtures("django_project")
def test_view_of_the_readme_notifies_the_warehouse(capsys: pytest.CaptureFixture[str]) -> None:
    order_id = place_order_in_the_view_of_the_readme()

    assert order_id > 0
    assert capsys.readouterr().out == f"pack order {order_id}\n"


@pytest.mark.usefixtures("django_project")
def test_view_of_the_readme_is_silent_if_its_transaction_is_rolled_back(capsys: pytest.CaptureFixture[str]) -> None:
    order_id = place_order_in_the_view_of_the_readme(lambda: transaction.set_rollback(True))

    assert order_id == 0
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("plain_project")
def test_readme_of_core_shows_an_effect(capsys: pytest.CaptureFixture[str]) -> None:
    example, test = snippets("packages/airlock-core/README.md")

    defined = executed(example)

    assert capsys.readouterr().out == "pack order 42\n"

    with collect_effects() as effects:
        executed(test, **defined)["test_order_is_packed"](effects)

    assert capsys.readouterr().out == ""


@pytest.fixture
def _celery_on_redis(plain_project: None, redis_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a snippet's app the Redis of the tests, instead of the broker it names."""
    monkeypatch.delenv("CELERY_BROKER_URL")  # which would win

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


@pytest.mark.usefixtures("plain_project")
def test_readme_of_django_enqueues_below_the_middleware(capsys: pytest.CaptureFixture[str]) -> None:
    _, place = snippets("packages/airlock-django/README.md")
    saved: list[int] = []
    order = SimpleNamespace(id=5, save=lambda: saved.append(5))

    place_order = executed(place)["place_order"]
    with airlock.scope():
        place_order(order)
        assert saved == [5]
        assert capsys.readouterr().out == ""

    assert capsys.readouterr().out == "pack order 5\n"


@pytest.mark.usefixtures("plain_project")
def test_readme_of_queues_sends_one_email_however_often_the_job_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where its database will be
    dispatch, hold = snippets("packages/airlock-queues/README.md")
    attempts = []

    def charge(order_id: int) -> None:
        attempts.append(order_id)
        if len(attempts) < 3:
            raise ConnectionError

    defined = executed(hold, **executed(dispatch))
    defined["charge"] = charge
    defined["process_order"](7, 8)
    while (task := defined["huey"].dequeue()) is not None:
        defined["huey"].execute(task)

    assert attempts == [7, 7, 7]
    assert capsys.readouterr().out == "dear user 123\ndear user 8\n"


@pytest.mark.usefixtures("outbox_project")
def test_readme_of_outbox_writes_the_message_with_the_order() -> None:
    from config.celery import app
    from shop.models import Order
    from shop.tasks import send_confirmation

    settings, place = snippets("packages/airlock-outbox/README.md")
    defined = executed(settings, INSTALLED_APPS=["airlock.integrations.django"])
    assert defined["INSTALLED_APPS"] == ["airlock.integrations.django", "airlock.integrations.outbox"]
    assert import_string(defined["AIRLOCK"]["SCOPE"]) is OutboxScope

    place_order = executed(place, send_confirmation=send_confirmation)["place_order"]
    with airlock.scope():
        place_order(Order(email="ada@example.com"))
        assert status().held == 1

    assert status().total == 0
    with app.connection_for_write() as connection:
        assert connection.default_channel.queue_purge(app.conf.task_default_queue)
