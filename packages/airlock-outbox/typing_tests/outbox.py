"""What an editor knows of the outbox."""

from typing import Any, assert_type

from celery import Celery, Task

import airlock
from airlock.integrations.celery import AirlockTask
from airlock.integrations.outbox import OnceTask, OutboxScope, Status, status

with airlock.scope(_cls=OutboxScope) as scope:
    assert_type(scope, OutboxScope)
    assert_type(airlock.enqueue("shop.ship", 1), airlock.Intent)

assert_type(OutboxScope(airlock.AllowAll(), executor=print).rolled_back_intents, list[airlock.Intent])
OutboxScope(executor="celery")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
airlock.configure(scope_cls=OutboxScope)

app = Celery()


@app.task(base=OnceTask, bind=True)
def charge(self: Task[..., Any], order_id: int) -> int:
    return order_id


task: Task[..., Any] = OnceTask()
task_cls: type[AirlockTask] = OnceTask

assert_type(status(), Status)
assert_type(status("default").parked, int)
assert_type(status().oldest_due_seconds, float)
assert_type(status().as_dict(), dict[str, int | float])
status(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
