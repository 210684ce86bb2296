"""What the tests with real workers share."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

import airlock
from celery_orders import Signals, make_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from celery import Celery, Task

    from processes import Process
    from services import Broker


@pytest.fixture(autouse=True)
def _configure_nothing() -> Iterator[None]:
    yield
    airlock.reset_configuration()


class Orders:
    """The project of `celery_orders`, with a worker of its own."""

    def __init__(
        self, app: Celery, broker: Broker, worker: Process, signals: Signals, environment: dict[str, str]
    ) -> None:
        #: As it is in the processes that are not workers.
        self.app = app
        self.broker = broker
        self.worker = worker
        self.signals = signals
        #: Environment variables for other processes of the project.
        self.environment = environment

    def __getitem__(self, name: str) -> Task:
        return self.app.tasks[name]

    def effects(self) -> str:
        """Make a queue for the effects of one test, which no worker consumes."""
        queue = self.broker.queue(f"effects-{secrets.token_hex(4)}")
        with self.app.connection_for_write() as connection:
            self.app.amqp.queues.new_missing(queue)(connection.default_channel).declare()
        return queue

    def taken(self, effects: str) -> list[Any]:
        """Take the effects that wait in such a queue: the first argument of each."""
        return [message.payload[0][0] for message in self.broker.take(effects)]

    def get(self, task_id: str) -> Any:
        """Wait for the result of a task."""
        return self.app.AsyncResult(task_id).get(timeout=60, interval=0.02)


@pytest.fixture(scope="module")
def start_orders(
    celery_worker_process: Callable[..., Process], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Orders]]:
    """A function that starts a worker of `celery_orders`, with a queue of its own. It stops after the module.

    Called with the same arguments again, it returns the worker that runs.

    Args:
        broker: its broker.
        task_cls, intercepted, instrumented: what kind of project it is; see `celery_orders`.
        app: the module to start it from.
        env: environment variables besides the present ones.
        **options: for `celery_worker_process`.
    """
    started: dict[str, Orders] = {}

    def start(
        broker: Broker,
        *,
        task_cls: str = "Task",
        intercepted: bool = False,
        instrumented: str | None = None,
        app: str = "celery_orders",
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> Orders:
        kind = {"task_cls": task_cls, "intercepted": intercepted, "instrumented": instrumented}
        key = repr((broker.name, kind, app, env, options))
        if key not in started:
            signals: Path = tmp_path_factory.mktemp("signals")
            queue = broker.queue(f"orders-{secrets.token_hex(4)}")
            settings = {**broker.celery, "task_default_queue": queue, "signals": str(signals)}
            env = {
                "AIRLOCK_TEST_CELERY": json.dumps(settings),
                "AIRLOCK_TEST_KIND": json.dumps(kind),
                "DJANGO_SETTINGS_MODULE": "",  # other tests set it for their servers
                **(env or {}),
            }
            worker = celery_worker_process(app, broker, queues=(queue,), env=env, **options)
            started[key] = Orders(make_app(settings), broker, worker, Signals(signals), env)
        return started[key]

    yield start
    for orders in started.values():
        orders.worker.terminate()  # all of them first, as each takes its time
    for orders in started.values():
        orders.worker.stop()
