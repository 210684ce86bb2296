"""A scope whose intents survive the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from airlock import get_configuration
from airlock.ext import label_of, open_fates
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
        try:
            from airlock.integrations.outbox._executor import OutboxExecutor
        except RuntimeError as error:  # from a model without an app
            if apps.is_installed("airlock.integrations.outbox"):
                raise
            raise ImproperlyConfigured(
                "OutboxScope has no tables, as its app is not installed. "
                'Add "airlock.integrations.outbox" to INSTALLED_APPS, and run: manage.py migrate airlock_outbox'
            ) from error

        if executor is None:  # not `or`: an executor may be false
            configured = get_configuration().executor
            executor = celery_executor if configured is None else configured
        #: What records the intents, around the executor that dispatches them.
        self.outbox_executor = executor if isinstance(executor, OutboxExecutor) else OutboxExecutor(executor)
        super().__init__(policy, executor=self.outbox_executor)

    def dispatch_all(self, intents: Sequence[Intent]) -> None:
        self.outbox_executor.decide(intents, open_fates() if self.transactional else (), label_of(self))
        super().dispatch_all(intents)
