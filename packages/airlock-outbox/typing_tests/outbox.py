"""What an editor knows of the outbox."""

from typing import assert_type

import airlock
from airlock.integrations.celery import AirlockTask
from airlock.integrations.outbox import OnceTask, OutboxScope

with airlock.scope(_cls=OutboxScope) as scope:
    assert_type(scope, OutboxScope)
    assert_type(airlock.enqueue("shop.ship", 1), airlock.Intent)

assert_type(OutboxScope(airlock.AllowAll(), executor=print).rolled_back_intents, list[airlock.Intent])
OutboxScope(executor="celery")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
airlock.configure(scope_cls=OutboxScope)

task_cls: type[AirlockTask] = OnceTask
