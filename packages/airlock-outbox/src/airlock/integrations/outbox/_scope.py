"""A scope whose intents survive the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airlock import get_configuration
from airlock.ext import open_fates
from airlock.integrations.django import DjangoScope
from airlock.integrations.executors.celery import celery_executor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airlock import Executor, Intent, Policy


class OutboxScope(DjangoScope):
    """A `DjangoScope` that writes its intents into the outbox, in the transaction that they hang on.

    They are dispatched after commit and flush, as ever. What cannot be dispatched then, because the process died or the
    broker is down, a relay dispatches later.

    Args:
        policy: as for `airlock.Scope`.
        executor: as for `airlock.Scope`. Other processes must be able to find it by its name.
    """

    def __init__(self, policy: Policy | None = None, *, executor: Executor | None = None) -> None:
        # Not before Django's apps are loaded, and this module may be imported earlier.
        from airlock.integrations.outbox._executor import OutboxExecutor

        if executor is None:  # not `or`: an executor may be false
            configured = get_configuration().executor
            executor = celery_executor if configured is None else configured
        self._outbox = executor if isinstance(executor, OutboxExecutor) else OutboxExecutor(executor)
        super().__init__(policy, executor=self._outbox)

    def dispatch_all(self, intents: Sequence[Intent]) -> None:
        self._outbox.let_go(intents, open_fates() if self.transactional else ())
        super().dispatch_all(intents)

    def discard(self) -> list[Intent]:
        if not (self.is_active or self.is_flushed or self.is_discarded):  # else it cannot be
            self._outbox.will_discard(self.intents)
        return super().discard()
