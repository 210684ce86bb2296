"""Publishing at once, in a request, that never hangs for it."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from django.db import connections

from airlock.ext import dispatch_one
from airlock.integrations.outbox._settings import options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airlock import Intent
    from airlock.ext import Outcome

logger = logging.getLogger("airlock")


def publish(executor: Any, intents: Sequence[Intent]) -> list[Outcome]:
    """Have an executor publish intents, in batches, up to the first that fails."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(intents) and outcomes.count(None) == len(outcomes):
        rest = intents[len(outcomes) :]
        is_batch = len(rest) > 1 and hasattr(executor, "dispatch_many")
        outcomes += executor.dispatch_many(rest) if is_batch else [dispatch_one(executor, rest[0])]
    return outcomes


#: How many publications may be late at a time. A broker that never answers would collect threads otherwise.
_MOST_LATE = 5

#: Those whose threads are at work.
_running: set[Publication] = set()


class Publication(threading.Thread):
    """Publishes in a thread of its own.

    Args:
        publish: publishes something, and tells what became of each.
        when_late: called in the thread, with the outcomes, if nobody waits for them any more.
    """

    def __init__(self, publish: Callable[[], list[Outcome]], when_late: Callable[[list[Outcome]], None]) -> None:
        super().__init__(name="airlock-outbox-publication", daemon=True)
        self._publish = publish
        self._when_late = when_late
        self._lock = threading.Lock()
        self._done = threading.Event()
        #: Whether nobody waits for the outcomes any more.
        self.is_late = False
        self._outcomes: list[Outcome] = []

    def run(self) -> None:
        _running.add(self)
        try:
            self._outcomes = self._publish()
        except BaseException as error:
            self._outcomes = [error]
        with self._lock:
            self._done.set()
        try:
            if self.is_late:
                self._when_late(self._outcomes)
        finally:
            _running.discard(self)
            connections.close_all()  # those of this thread, if somebody's code has opened any

    def outcomes_within(self, seconds: float) -> list[Outcome] | None:
        """Publish, and wait for the outcomes for so long at most. `None` if that is not enough."""
        try:
            self.start()
            self._done.wait(seconds)
        except RuntimeError as error:  # the process has too many threads
            self._outcomes = [error]
            self._done.set()
        finally:
            with self._lock:
                self.is_late = not self._done.is_set()
        return None if self.is_late else self._outcomes


class Breaker:
    """Leaves a broker alone that has failed, and tries it again after a while."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Know nothing of the broker."""
        self._lock = threading.Lock()
        self._retry_at: float | None = None
        #: What the broker has failed with last.
        self.why = ""
        _running.clear()

    def allows(self) -> bool:
        """Whether to try. While the broker is down, one may at a time."""
        if sum(publication.is_late for publication in list(_running)) >= _MOST_LATE:
            return False
        with self._lock:
            if self._retry_at is None:
                return True
            is_time = time.monotonic() >= self._retry_at
            if is_time:
                self._retry_at = time.monotonic() + options().breaker_seconds
            return is_time

    def failed(self, why: object) -> None:
        """Leave the broker alone for a while."""
        with self._lock:
            is_news = self._retry_at is None
            self.why = str(why) or repr(why)
            self._retry_at = time.monotonic() + options().breaker_seconds
        if is_news:
            logger.error("The broker fails, so what is enqueued is left to the relay: %s", why)

    def succeeded(self) -> None:
        """The broker is there."""
        if self._retry_at is not None:
            with self._lock:
                self._retry_at = None
            logger.info("The broker is back")


breaker = Breaker()

if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
    os.register_at_fork(after_in_child=breaker.reset)  # another thread may have had its lock
