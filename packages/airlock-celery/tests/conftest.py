"""What the tests of airlock-celery share: an app on a broker in memory, a look into it, and a worker."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest
from celery.app.trace import reset_worker_optimizations, setup_worker_optimizations
from celery.contrib.testing.app import TestApp, setup_default_app
from celery.worker.request import Request
from kombu import Queue

import airlock
from airlock.integrations.celery import uninstall_global_intercept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery, Task


@pytest.fixture(autouse=True)
def _leave_as_found() -> Iterator[None]:
    yield
    airlock.reset_configuration()
    uninstall_global_intercept()
    left_over = []
    while (scope := airlock.get_current_scope()) and scope.is_active:
        left_over.append(scope)
        scope.exit()
    assert not left_over, "the test did not leave its scopes"


@pytest.fixture
def make_app() -> Iterator[Callable[..., Celery]]:
    """A function that makes an app, with queues of its own, on a broker in memory.

    Args:
        config: settings, besides those of Celery's own test app.
        **arguments: for `Celery`.
    """
    apps = []

    def make(config: dict[str, Any] | None = None, **arguments: Any) -> Celery:
        app = TestApp(
            "tests",
            config={
                "task_default_queue": f"celery-{secrets.token_hex(4)}",
                "broker_transport_options": {"polling_interval": 0.005},
                **(config or {}),
            },
            **arguments,
        )
        apps.append(app)
        return app

    with setup_default_app(make()):  # which restores what is current, and what an app gets of the tasks of others
        yield make
    for app in apps:
        app.close()


@pytest.fixture
def app(make_app: Callable[..., Celery]) -> Celery:
    """The current app."""
    app = make_app()
    app.set_current()
    app.set_default()
    return app


class Waiting:
    """What waits in the broker."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def take(self, queue: str | None = None) -> list[Any]:
        """Take all messages that wait in a queue, oldest first."""
        with self._app.connection_for_read() as connection:
            source = Queue(queue or self._app.conf.task_default_queue)(connection.default_channel)
            return list(iter(lambda: source.get(no_ack=True, accept=["json", "pickle"]), None))

    def calls(self, queue: str | None = None) -> list[tuple[str, list[Any]]]:
        """Take all messages, as the short names of the tasks and the positional arguments."""
        return [(message.headers["task"].rpartition(".")[2], message.payload[0]) for message in self.take(queue)]


@pytest.fixture
def waiting(app: Celery) -> Waiting:
    return Waiting(app)


@pytest.fixture
def notify(app: Celery) -> Task:
    """An effect: the task that the tests enqueue. It goes to the queue `effects`, which no worker consumes."""
    queue = f"effects-{secrets.token_hex(4)}"

    @app.task(name="shop.notify")
    def notify(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("an effect is for the broker: no test is to run it")

    app.conf.task_routes = {"shop.notify": queue}
    return notify


@pytest.fixture
def notified(app: Celery, waiting: Waiting, notify: Task) -> Callable[[], list[Any]]:
    """A function that takes the effects which wait in the broker: the first argument of each, oldest first."""
    queue = app.conf.task_routes["shop.notify"]
    return lambda: [message.payload[0][0] for message in waiting.take(queue)]


@pytest.fixture
def work_off(app: Celery, waiting: Waiting) -> Iterator[Callable[[], list[str]]]:
    """A function that runs what waits in the default queue, and what that brings, as a worker does.

    A worker, prepared as Celery does it, and Celery's way from a message to a run, in this very thread. A countdown
    does not hold anything up. (In `test_worker.py`, a whole worker runs in another thread, and in the integration
    tests in other processes.)

    Returns:
        The states the runs ended in.
    """
    setup_worker_optimizations(app, "here")

    def run_all() -> list[str]:
        states = []
        while messages := waiting.take():
            for message in messages:
                request = Request(message, app=app, hostname="here")
                request.execute()
                states.append(app.AsyncResult(request.id).state)
        return states

    yield run_all
    reset_worker_optimizations(app)
