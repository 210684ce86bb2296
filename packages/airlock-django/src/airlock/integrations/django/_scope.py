"""A scope for Django: what fails after the commit is logged, and the event loop is not blocked."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async

from airlock import Scope
from airlock.integrations.django import _settings

if TYPE_CHECKING:
    from airlock import Executor, Intent, Policy

logger = logging.getLogger("airlock")


class DjangoScope(Scope):
    """A scope for Django projects.

    As in every scope of a process that uses airlock-django, an intent hangs on the `atomic()` blocks, on any database,
    that are open where it is enqueued, and on those that are open when the scope flushes. If one of them is
    rolled back, it is dropped, and is in `rolled_back_intents`. When all have committed it is dispatched; in autocommit
    that is at the flush. The transaction that a `TestCase` wraps a test in does not count.

    What fails to be dispatched does so after the commit, when it is too late to fail the request. So it is logged as an
    error, with the intent's name, id and origin, to the logger `airlock`. The others still go, and
    `undispatched_intents` keeps what did not. `AIRLOCK["DISPATCH_ERRORS"] = "raise"` raises the first failure instead,
    after all were tried.

    Args:
        policy: as for `airlock.Scope`; by default `AIRLOCK["POLICY"]`.
        executor: as for `airlock.Scope`; by default `AIRLOCK["EXECUTOR"]`.

    Raises:
        ImproperlyConfigured: if the setting `AIRLOCK` cannot be used.
        TypeError: if either is of the wrong kind.
    """

    def __init__(self, policy: Policy | None = None, *, executor: Executor | None = None) -> None:
        super().__init__(policy, executor=executor)
        self.dispatch_errors = _settings.dispatch_errors()

    async def aflush(self) -> list[Intent]:
        """Flush in the thread where Django's database connections live, while the event loop goes on.

        A flush that was begun is finished, also if the client goes away or the task is cancelled meanwhile: what it
        dispatches was agreed to.
        """
        if not self.intents:
            return self.flush()
        cancelled: asyncio.CancelledError | None = None
        is_told = False

        def flush() -> list[Intent]:
            try:
                return self.flush()
            except Exception as error:
                if cancelled is not None:  # so that nobody else will hear of it
                    tell(error)
                raise

        def tell(error: BaseException) -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                logger.error("The flush of %r failed", self, exc_info=error)

        flushing = asyncio.ensure_future(sync_to_async(flush)())
        dispatched: list[Intent] = []
        while not flushing.done():
            try:
                dispatched = await asyncio.shield(flushing)
            except asyncio.CancelledError as error:
                cancelled = error
            except Exception:
                if cancelled is None and self.is_flushed:
                    raise
        if cancelled is not None and not flushing.cancelled() and self.is_flushed:
            failure = flushing.exception()
            if failure is not None:
                tell(failure)
        if not self.is_flushed:
            # The thread is gone, as that of a view which a background task has outlived, or the loop is shutting down.
            dispatched = self.flush() if flushing.cancelled() else await asyncio.to_thread(self.flush)
        if cancelled is not None:
            raise cancelled
        return dispatched
