"""A scope that waits for the database."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from threading import local
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async

from airlock import Scope
from airlock._place import no_scope
from airlock._scope import DetachedScope, _Log
from airlock.integrations.django import _settings
from airlock.integrations.django._fate import Fate, Transactions, when_committed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airlock import Executor, Intent, Policy

logger = logging.getLogger("airlock")


class _FateLog(_Log):
    """A log that also keeps the fates of what is enqueued inside transactions."""

    __slots__ = ("_of_thread", "fates")

    def __init__(self) -> None:
        super().__init__(notes=True)
        self.fates: dict[Intent, tuple[Fate, ...]] = {}
        # Looking a connection up costs more than all the rest of an enqueue. Each thread has its own.
        self._of_thread = local()

    @property
    def transactions(self) -> Transactions:
        """Those of the running thread."""
        try:
            found: Transactions = self._of_thread.transactions
        except AttributeError:
            found = self._of_thread.transactions = Transactions()
        return found

    def note(self, intent: Intent) -> None:
        # On the way of every intent, and mostly without a transaction: so it looks for one before it calls anything,
        # and without a loop. Outside of transactions, autocommit is on, or the connection was not used yet.
        try:
            transactions = self._of_thread.transactions
        except AttributeError:
            transactions = self.transactions
        one = transactions.first
        if one.autocommit or (one.connection is None and not one.in_atomic_block):
            one = transactions.second
            if one is None or one.autocommit or (one.connection is None and not one.in_atomic_block):
                return
        fates = transactions.fates()
        if fates:
            self.fates[intent] = fates


class _LoggingScope(Scope):
    """A scope that logs what fails to be dispatched, and goes on."""

    def _dispatch_each(self, intents: Sequence[Intent]) -> None:
        with no_scope():  # a commit may come in another scope
            for failed in self._dispatching(intents):
                unknown = set(self._unknown)
                for intent, error in failed.items():
                    if not isinstance(error, Exception):
                        raise error
                    logger.error(
                        "%s (id %s, enqueued at %s) was not dispatched%s",
                        intent.name,
                        intent.id,
                        intent.origin or "a place that is not known: set AIRLOCK['CAPTURE_ORIGIN'] to see it",
                        ", or perhaps it was: nobody can tell" if intent in unknown else "",
                        exc_info=error,
                    )

    async def _flush_async(self) -> None:
        await flush_off_the_event_loop(self)


class DjangoScope(_LoggingScope):
    """A scope whose effects wait for the transaction, and share its fate.

    An intent depends on every transaction and savepoint, on any database, that is open where it is enqueued, and on
    those that are open when the scope flushes. If one of them is rolled back, it is dropped; it is then in
    `rolled_back_intents`, and in the log at DEBUG. When all have committed, it is dispatched; in autocommit that is at
    the flush. The transaction that a `TestCase` wraps a test in does not count.

    What fails to be dispatched does so after the commit, when it is too late to fail the request. So it is logged as an
    error, with the intent's name, id and origin, to the logger `airlock`; the others still go, and
    `undispatched_intents` keeps what did not.

    Args:
        policy: as for `airlock.Scope`; by default `AIRLOCK["POLICY"]`.
        executor: as for `airlock.Scope`; by default `AIRLOCK["EXECUTOR"]`.

    Raises:
        ImproperlyConfigured: if the setting `AIRLOCK` cannot be used.
        TypeError: if either is of the wrong kind.
    """

    _log_cls = _FateLog
    _rolled_back: tuple[Intent, ...] = ()

    def __init__(self, policy: Policy | None = None, *, executor: Executor | None = None) -> None:
        super().__init__(
            _settings.get("POLICY") if policy is None else policy,
            executor=_settings.get("EXECUTOR") if executor is None else executor,
        )
        self._captures_origin = self._captures_origin or _settings.get("CAPTURE_ORIGIN")

    def dispatch_all(self, intents: Sequence[Intent]) -> None:
        """Dispatch the intents, each when all transactions it depends on have committed; log what fails and go on.

        Args:
            intents: what the policies allowed.
        """
        open_now = self._fate_log.transactions.fates() if intents else ()
        waited_for = {fate.connection for fate in open_now}
        batches: dict[tuple[Fate, ...], list[Intent]] = {}
        for intent in intents:
            # What else may still be open are transactions of other threads.
            pending = tuple(
                fate for fate in self._fates_of(intent) if fate.connection not in waited_for and not fate.is_committed
            )
            batches.setdefault(pending + open_now, []).append(intent)
        for fates, batch in batches.items():
            when_committed(fates, partial(self._dispatch_each, batch), partial(self._drop, batch))

    @property
    def rolled_back_intents(self) -> list[Intent]:
        """The intents that were dropped because a transaction they were enqueued or flushed in was rolled back."""
        return list(self._rolled_back)

    @property
    def undispatched_intents(self) -> list[Intent]:
        """The intents this scope still owes: those that wait for a commit, and those that could not be dispatched."""
        rolled_back = set(self._rolled_back)
        return [intent for intent in super().undispatched_intents if intent not in rolled_back]

    @property
    def _fate_log(self) -> _FateLog:
        # A plain scope around this one has a plain log, and does not care about transactions.
        return self._log if isinstance(self._log, _FateLog) else _FateLog()

    def _fates_of(self, intent: Intent) -> tuple[Fate, ...]:
        return self._fate_log.fates.get(intent, ())

    def _release(self, intents: list[Intent]) -> None:
        rolled_back = {intent for intent in intents if any(fate.is_rolled_back for fate in self._fates_of(intent))}
        self._drop([intent for intent in intents if intent in rolled_back])
        super()._release([intent for intent in intents if intent not in rolled_back])

    def _drop(self, intents: Sequence[Intent]) -> None:
        self._rolled_back += tuple(intents)
        for intent in intents:
            logger.debug("%s (id %s) is dropped: its transaction was rolled back", intent.name, intent.id)


class DetachedDjangoScope(_LoggingScope, DetachedScope):
    """Detached from transactions, too: it does not look at any."""

    def dispatch_all(self, intents: Sequence[Intent]) -> None:
        self._dispatch_each(intents)


DjangoScope._detached_cls = DetachedDjangoScope


async def flush_off_the_event_loop(scope: Scope) -> None:
    """Flush in the thread where Django's database connections live, while the event loop goes on.

    A flush that was begun is finished, also if the client goes away or the task is cancelled meanwhile: what it
    dispatches was agreed to.
    """
    if not scope.intents:
        scope.flush()
        return
    flushing = asyncio.ensure_future(sync_to_async(scope.flush)())
    cancelled = None
    while not flushing.done():
        try:
            await asyncio.shield(flushing)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:
            if cancelled is None:
                raise
            logger.exception("The flush of %r failed", scope)
    if cancelled is not None:
        raise cancelled
