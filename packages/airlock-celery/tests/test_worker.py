"""A whole worker, in this process, with each supported Celery; the integration tests have real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, Task, chord
from celery.contrib.testing.app import TestApp, setup_default_app
from celery.contrib.testing.worker import start_worker

import airlock
from airlock.integrations.celery import AirlockTask
from airlock.integrations.executors.celery import celery_executor

if TYPE_CHECKING:
    from collections.abc import Iterator

# A worker takes seconds to stop, so there is one for all tests, and these are its tasks.


def add_tasks(app: Celery) -> None:
    @app.task(bind=True, name="notify")
    def notify(self: Task, told: Any) -> dict[str, Any]:
        request = self.request
        return {
            "told": told,
            "id": request.id,
            "parent": request.parent_id,
            "called_directly": request.called_directly,
        }

    @app.task(bind=True, name="order", default_retry_delay=0)
    def order(self: Task, attempts: int) -> str:
        intent = airlock.enqueue(notify, self.request.retries)
        sent.append(intent.id)
        if self.request.retries + 1 < attempts:
            raise self.retry()
        return intent.id

    @app.task(name="fail")
    def fail() -> None:
        sent.append(airlock.enqueue(notify, "failed").id)
        raise ValueError("no")

    @app.task(name="total")
    def total(numbers: list[Any]) -> int:
        return len(numbers)


#: The ids of all that was enqueued by a worker.
sent: list[str] = []


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    app = TestApp(
        "worker_tests",
        config={"task_default_queue": "worker-tests", "broker_transport_options": {"polling_interval": 0.005}},
        task_cls=AirlockTask,
    )
    with setup_default_app(app):  # at the end of which the apps of other tests no longer get these tasks
        add_tasks(app)
        with start_worker(app, pool="threads", concurrency=1, perform_ping_check=False, loglevel="ERROR"):
            yield app


def test_a_follow_up_is_a_task_of_its_own(app: Celery) -> None:
    with airlock.scope(executor=celery_executor):
        intent = airlock.enqueue("order", 1)

    follow_up = app.AsyncResult(intent.id).get(timeout=10, interval=0.01)
    assert app.AsyncResult(follow_up).get(timeout=10, interval=0.01) == {
        "told": 0,
        "id": follow_up,
        "parent": intent.id,
        "called_directly": False,
    }


def test_only_the_attempt_that_succeeds_has_effects(app: Celery) -> None:
    sent.clear()

    follow_up = app.tasks["order"].delay(3).get(timeout=10, interval=0.01)

    assert app.AsyncResult(follow_up).get(timeout=10, interval=0.01)["told"] == 2
    assert sent[-1] == follow_up
    assert [app.AsyncResult(other).state for other in sent] == ["PENDING", "PENDING", "SUCCESS"]


def test_a_task_that_fails_has_no_effects(app: Celery) -> None:
    sent.clear()

    with pytest.raises(ValueError, match="no"):
        app.tasks["fail"].delay().get(timeout=10, interval=0.01)

    # What was published before this would have run before it.
    app.tasks["notify"].delay("after").get(timeout=10, interval=0.01)
    assert [app.AsyncResult(other).state for other in sent] == ["PENDING"]


def test_a_chord_of_tasks_comes_to_its_body(app: Celery) -> None:
    order = app.tasks["order"]
    with airlock.scope(executor=celery_executor):
        intent = airlock.enqueue(chord([order.s(1), order.s(2)], app.tasks["total"].s()))

    assert app.AsyncResult(intent.id).get(timeout=10, interval=0.01) == 2
