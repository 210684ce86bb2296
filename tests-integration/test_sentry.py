"""Breadcrumbs of what becomes of intents, as Sentry's SDK sends them."""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest
import sentry_sdk
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.integrations.threading import ThreadingIntegration
from sentry_sdk.transport import Transport

import airlock
from airlock.ext import subscribe
from airlock.integrations.sentry import AirlockIntegration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DSN = "http://nobody@127.0.0.1:9/1"


@pytest.fixture
def sent(request: pytest.FixtureRequest) -> Iterator[list[dict[str, Any]]]:
    """The events that were sent to Sentry. A parameter is one more integration."""
    events: list[dict[str, Any]] = []

    class Keeping(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            events.append(envelope.get_event())

    # The default ones leave breadcrumbs of their own, and so does looking for a release.
    settings: dict[str, Any] = {"default_integrations": False, "release": "1"}
    with sentry_sdk.isolation_scope() as scope:
        scope.clear()
        integrations = [AirlockIntegration(), ThreadingIntegration(), *getattr(request, "param", [])]
        sentry_sdk.init(DSN, transport=Keeping, integrations=integrations, **settings)
        yield events
    sentry_sdk.init(**settings)


def crumbs(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The breadcrumbs of an event that is captured here."""
    sentry_sdk.capture_message("look")
    found: list[dict[str, Any]] = sent[-1].get("breadcrumbs", {}).get("values", [])
    return found


def seen(sent: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(crumb["level"], crumb["message"]) for crumb in crumbs(sent)]


def refuse(intent: airlock.Intent) -> None:
    raise LookupError("no such queue")


class Logging(airlock.Scope):
    dispatch_errors = "log"


def test_a_dispatched_intent_leaves_a_breadcrumb(sent: list[dict[str, Any]]) -> None:
    with airlock.scope():
        intent = airlock.enqueue(int, "7")

    (crumb,) = crumbs(sent)
    assert (crumb["category"], crumb["level"], crumb["message"]) == ("airlock", "debug", "dispatched: int")
    data = dict(crumb["data"])
    assert data.pop("scope").startswith("Scope ")
    assert data == {"id": intent.id, "task": "builtins.int", "reason": None}


def test_each_end_leaves_one_with_its_level_and_reason(sent: list[dict[str, Any]]) -> None:
    with airlock.scope(airlock.BlockTasks({"float"}), _cls=Logging, executor=refuse), airlock.scope():
        airlock.enqueue(float)
        airlock.enqueue(int)
    with pytest.raises(ValueError, match="wrong"), airlock.scope():
        airlock.enqueue(str)
        raise ValueError("wrong")

    assert seen(sent) == [("info", "dropped: float"), ("error", "failed: int"), ("info", "discarded: str")]
    assert [crumb["data"]["reason"] for crumb in crumbs(sent)][1:] == [
        "LookupError('no such queue')",
        "discarded, because ValueError was raised",
    ]


def fail(events: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("sent", [[LoggingIntegration()]], indirect=True)
def test_beside_the_log_each_end_leaves_one_and_errors_are_events_as_ever(
    sent: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="airlock")
    with airlock.scope(airlock.BlockTasks({"float"}), _cls=Logging, executor=refuse):
        airlock.enqueue(float)
        airlock.enqueue(int)
    with pytest.raises(ValueError, match="wrong"), airlock.scope():
        airlock.enqueue(str)
        raise ValueError("wrong")
    assert len(caplog.messages) == 3  # which are breadcrumbs of the logging integration

    assert seen(sent) == [("info", "dropped: float"), ("error", "failed: int"), ("info", "discarded: str")]
    failed, _ = sent
    assert failed["exception"]["values"][-1]["type"] == "LookupError"
    assert failed["logger"] == "airlock"


@pytest.mark.parametrize("sent", [[LoggingIntegration()]], indirect=True)
def test_what_else_the_log_says_is_a_breadcrumb_as_ever(sent: list[dict[str, Any]]) -> None:
    unsubscribe = subscribe(fail)
    with airlock.scope():
        airlock.enqueue(float)
    unsubscribe()

    assert [message.partition(" <")[0] for _, message in seen(sent)] == [
        "The listener",
        "dispatched: float",
        "The listener",
    ]


def test_arguments_are_in_no_breadcrumb(sent: list[dict[str, Any]]) -> None:
    with airlock.scope(airlock.BlockTasks({"float"}), _cls=Logging, executor=refuse):
        airlock.enqueue(int, "4111 1111")
        airlock.enqueue(float, "4111 1111")

    assert len(crumbs(sent)) == 2
    assert "4111" not in str(crumbs(sent))


def test_a_long_flush_leaves_room_for_what_was_before(sent: list[dict[str, Any]]) -> None:
    sentry_sdk.add_breadcrumb(message="before")
    with airlock.scope():
        for _ in range(500):
            airlock.enqueue(int)

    messages = [crumb["message"] for crumb in crumbs(sent)]
    assert messages == ["before", *["dispatched: int"] * 20, "dispatched: 480 more"]


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_trail_in_a_thread_is_that_of_the_thread(sent: list[dict[str, Any]]) -> None:
    found: list[tuple[str, str]] = []

    def work() -> None:
        with airlock.scope():
            airlock.enqueue(float)
        found.extend(seen(sent))

    in_thread(work)

    assert found == [("debug", "dispatched: float")]
    assert seen(sent) == []


def test_what_a_thread_enqueues_leaves_its_breadcrumb_where_it_is_dispatched(sent: list[dict[str, Any]]) -> None:
    with airlock.scope():
        context = copy_context()
        in_thread(lambda: context.run(airlock.enqueue, float))

    assert seen(sent) == [("debug", "dispatched: float")]


async def test_the_trail_of_a_coroutine_is_that_of_its_request(sent: list[dict[str, Any]]) -> None:
    async def request(task: Callable[[], object]) -> list[tuple[str, str]]:
        with sentry_sdk.isolation_scope():
            async with airlock.scope():
                airlock.enqueue(task)
                await asyncio.sleep(0)
            return seen(sent)

    found = await asyncio.gather(request(int), request(float))

    assert found == [[("debug", "dispatched: int")], [("debug", "dispatched: float")]]


def test_a_client_without_the_integration_leaves_none(sent: list[dict[str, Any]]) -> None:
    transport = sentry_sdk.get_client().transport
    sentry_sdk.init(DSN, transport=transport, default_integrations=False, release="1")
    with airlock.scope():
        airlock.enqueue(int)

    assert crumbs(sent) == []
