"""What type checkers see of airlock-celery. Every `ignore` below stands at what must be refused.

Read by mypy and pyright only, both of which complain about an `ignore` that is not needed.
"""

from typing import Any, assert_type

from celery import Celery, Task, chain, group
from celery.result import AsyncResult

import airlock
from airlock.integrations.celery import (
    AirlockTask,
    LegacyTaskShim,
    install_global_intercept,
    uninstall_global_intercept,
)
from airlock.integrations.executors.celery import CeleryExecutor, celery_executor

app = Celery()


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


# The executor is one wherever an executor is taken.

executor: airlock.Executor = celery_executor
executor = CeleryExecutor()
executor = CeleryExecutor(app)
CeleryExecutor("app")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
airlock.configure(executor=celery_executor)

with airlock.scope(executor=celery_executor):
    assert_type(airlock.enqueue(add, 1, y=2), airlock.Intent)
    airlock.enqueue("shop.ship", 1, fast=True)
    airlock.enqueue(add.s(1))
    airlock.enqueue(chain(add.s(1), add.s(2)))
    airlock.enqueue(group(add.s(1), add.s(2)))
    airlock.enqueue(add, 1, _dispatch_options={"countdown": 60, "queue": "emails", "priority": 9})


# Tasks, and what they may override.


class Judging(AirlockTask):
    def get_policy(self) -> airlock.Policy | None:
        return airlock.BlockTasks({"send_email"})

    def get_executor(self) -> airlock.Executor | None:
        return celery_executor

    def should_flush(self, error: BaseException | None) -> bool:
        return super().should_flush(error) or isinstance(error, LookupError)


class Sending(AirlockTask):
    def get_executor(self) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return "celery"


task: Task[..., Any] = Judging()
task = LegacyTaskShim()

Celery(task_cls=AirlockTask)
Celery(task_cls="airlock.integrations.celery:AirlockTask")

# The ways from `.delay()`.

result: AsyncResult[Any] = LegacyTaskShim().delay(1)
install_global_intercept()
install_global_intercept(app, wrap_task_execution=False)
install_global_intercept(app, False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
install_global_intercept("app")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
uninstall_global_intercept()
