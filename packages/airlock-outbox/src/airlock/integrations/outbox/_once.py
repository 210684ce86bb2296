"""A task whose runs are effective once, however often its message is delivered."""

from __future__ import annotations

import hashlib
import logging
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore, Retry
from django.db import Error, IntegrityError, router, transaction
from django.utils import timezone

from airlock import Intent
from airlock.ext import Event, tell
from airlock.integrations.celery import AirlockTask

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("airlock")

#: The ids of the runs that are going on, here and around.
_current_ids: ContextVar[frozenset[str]] = ContextVar("airlock_outbox_once", default=frozenset())


class OnceTask(AirlockTask):
    """An `AirlockTask` that is effective once for its database, however often its message is delivered.

        @app.task(base=OnceTask)
        def charge(order_id): ...

    Each run is a transaction, and writes the id of the task in it. A delivery that finds the id there logs that, does
    nothing, and returns `None`. Two at the same time: the second one waits for the first, and raises
    `django.db.OperationalError` if that takes longer than the database lets it wait (MariaDB: 50 seconds, SQLite: 5);
    name that in `autoretry_for` if runs take long. A run that raises, or is to be retried, is rolled back, so that its
    retry runs.

    So what it writes into this database, and what it enqueues, happens once. What else it does, such as sending an
    e-mail, is done again if the first run died before its commit. What Celery does after a run is not a part of it:
    after a second delivery the result is `None`, and the next task of a chain is sent again, with the same id. The
    database forgets the ids after `AIRLOCK["OUTBOX"]["INBOX_DAYS"]`. A direct call has no id, and just runs.
    """

    abstract = True

    def around_run(self, run: Callable[[], Any]) -> Any:
        """Carry out the run in a transaction, unless the database remembers one with this id."""
        task_id = self.request.id
        # Within the run itself: the task calls `self.run()`, or is replaced in `apply()`.
        if task_id is None or task_id in _current_ids.get():
            return super().around_run(run)
        alias = _database()
        outer_ids = _current_ids.get()
        token = _current_ids.set(outer_ids | {task_id})
        try:
            with transaction.atomic(using=alias):
                if not _remember(alias, task_id):
                    again = Intent(self, self.request.args or (), self.request.kwargs, id=task_id)
                    tell([Event("skipped", again, reason="it was delivered again, and has been run before")])
                    return None
                result = super().around_run(run)
                handed_on = result if isinstance(result, Retry) else self.handed_on
                # In `apply()`, what replaces a run is a part of it.
                if handed_on and not (isinstance(handed_on, Ignore) and self.request.is_eager):
                    transaction.set_rollback(True, using=alias)
                return result
        finally:
            _current_ids.reset(token)

    def should_flush(self, error: BaseException | None) -> bool:
        """As in `AirlockTask`. What is raised after the commit, as by an `on_commit` callback, comes too late."""
        task_id = self.request.id
        is_inner = task_id in _current_ids.get()
        # It will not be run again, so nobody else would send what it has enqueued.
        return super().should_flush(error) or (
            error is not None and task_id is not None and not is_inner and _remembers(_database(), task_id)
        )


def _database() -> str:
    # Not before Django's apps are loaded, and this module may be imported earlier.
    from airlock.integrations.outbox.models import InboxEntry

    return router.db_for_write(InboxEntry)


def _key(task_id: str) -> str:
    """What the database tells from any other id, though it may not distinguish capitals or accents."""
    if re.fullmatch(r"[a-z0-9._-]{1,255}", task_id):
        return task_id
    return hashlib.sha256(task_id.encode()).hexdigest()


def _remember(alias: str, task_id: str) -> bool:
    """Write down an id, waiting for others that are writing it. `False` if it is there: the transaction is broken."""
    from airlock.integrations.outbox.models import InboxEntry

    try:
        InboxEntry(id=_key(task_id), created=timezone.now()).save(force_insert=True, using=alias)
    except IntegrityError:
        return False
    return True


def _remembers(alias: str, task_id: str) -> bool:
    from airlock.integrations.outbox.models import InboxEntry

    try:
        return InboxEntry.objects.using(alias).filter(id=_key(task_id)).exists()
    except Error:
        logger.warning("Whether %s was committed cannot be told", task_id, exc_info=True)
        return False
