"""Remembers what scopes kept back or a relay has sent late, and why, for `manage.py airlock_explain`.

Listeners make a record of each group of events in which that happened. A thread writes the records to a cache: so no
request waits for the cache, or fails because of it; no event loop is blocked; and what is written to a database is not
rolled back with the transaction that the scope was in.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db import connections

from airlock.ext import subscribe
from airlock.integrations.django._ring import KEPT_BACK, SENT_LATE, Record, Ring
from airlock.integrations.django._settings import explain_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airlock.ext import Event

logger = logging.getLogger("airlock")

_KEPT_BACK = frozenset({"dropped", "discarded", "rolled_back", "failed", "unknown", "parked", "skipped"})
#: How many different lines one record has at most, and how many ids one line.
_MOST_LINES = 100
_MOST_IDS = 3
#: How long a thread that has nothing to write waits for more, and a process that ends for the thread, in seconds.
_LINGER = 60
_AT_EXIT = 10


def _is_kept_back(event: Event) -> bool:
    return event.kind in _KEPT_BACK


def _is_sent_late(event: Event) -> bool:
    return event.kind == "relayed" and event.reason is not None  # else that is the ordinary way


class Recorder:
    """A listener that remembers events in a ring.

    Args:
        ring: the ring.
        is_remembered: whether to remember an event.
    """

    def __init__(self, ring: Ring, is_remembered: Callable[[Event], bool]) -> None:
        self._ring = ring
        self._is_remembered = is_remembered
        # If the cache is slow, the oldest of what waits is what the ring would lose first, too.
        self._waiting: deque[Record] = deque(maxlen=ring.size)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_writing = False
        self._is_away = False

    def __call__(self, events: Sequence[Event]) -> None:
        remembered = [event for event in events if self._is_remembered(event)]
        if not remembered:
            return
        record = _record(remembered)
        with self._changed:
            self._waiting.append(record)
            self._changed.notify_all()
            if self._thread is None:
                thread = threading.Thread(target=self._write, name="airlock-explain", daemon=True)
                thread.start()
                self._thread = thread

    def finish(self, seconds: float) -> None:
        """Wait until everything is written, for so long at most."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._waiting or self._is_writing), seconds)

    def _write(self) -> None:
        while records := self._take():
            try:
                self._ring.add(records)
                self._is_away = False
            except Exception:
                if not self._is_away:
                    logger.warning(
                        "The cache %r does not take what airlock_explain would show. It is tried again each time, and "
                        "this is not logged again until it works.",
                        self._ring.alias,
                        exc_info=True,
                    )
                self._is_away = True
            finally:
                connections.close_all()  # those of this thread: the cache may be in a database
                with self._changed:
                    self._is_writing = False
                    self._changed.notify_all()

    def _take(self) -> list[Record]:
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting, _LINGER):
                self._thread = None
                return []
            records = list(self._waiting)
            self._waiting.clear()
            self._is_writing = True
            return records


def _record(events: Sequence[Event]) -> Record:
    """What is remembered of events. Arguments are not in it, nor messages of exceptions: both may be user data."""
    lines: dict[tuple[str, str, str, str | None], dict[str, Any]] = {}
    for event in events:
        intent = event.intent
        same = event.kind, _why(event), intent.full_name, intent.origin
        new: dict[str, Any] = dict(zip(("event", "why", "task", "origin"), same, strict=True), count=0, ids=[])
        line = lines.setdefault(same, new)
        line["count"] += 1
        if len(line["ids"]) < _MOST_IDS:
            line["ids"].append(intent.id)
    return {
        "at": time.time(),
        "scope": events[0].scope,
        "process": _process(),
        "intents": list(lines.values())[:_MOST_LINES],
    }


def _why(event: Event) -> str:
    kind = event.kind.replace("_", " ")
    if event.error is not None:
        return f"{kind}: {type(event.error).__name__} was raised"
    reason = event.reason or kind
    return reason if reason.startswith(kind) or event.kind == "relayed" else f"{kind}: {reason}"


def _process() -> str:
    program = Path(sys.argv[0])
    words = [program.parent.name if program.name == "__main__.py" else program.name]
    if words[0] in ("", "-", "-c"):  # at a prompt, from the standard input, from an argument
        words = ["python"]
    if words[0] in ("manage.py", "django-admin"):
        words += [word for word in sys.argv[1:2] if not word.startswith("-")]
    return f"{' '.join(words)}, process {os.getpid()} on {socket.gethostname()}"


_recorders: list[Recorder] = []
_unsubscribes: list[Callable[[], None]] = []


def listen() -> None:
    """Remember what happens from now on, if `AIRLOCK["EXPLAIN"]` says so, and as it says."""
    global _recorders, _unsubscribes
    for unsubscribe in _unsubscribes:
        unsubscribe()
    try:
        options = explain_options()
    except ImproperlyConfigured:  # which a system check says
        options = None
    _recorders = []
    if options is not None:
        for name, is_remembered in (KEPT_BACK, _is_kept_back), (SENT_LATE, _is_sent_late):
            _recorders.append(Recorder(Ring(options.cache, options.scopes, name), is_remembered))
    _unsubscribes = [subscribe(recorder) for recorder in _recorders]


def _listen_if_changed(*, setting: str, **_: Any) -> None:
    if setting == "AIRLOCK":
        listen()


def _listen_in_child() -> None:
    if _recorders:  # their threads are not in this process, and their locks may be held for good
        listen()


def _finish() -> None:
    until = time.monotonic() + _AT_EXIT
    for recorder in _recorders:
        recorder.finish(max(0.0, until - time.monotonic()))


def start() -> None:
    """Follow the setting in this process, and in those forked from it."""
    setting_changed.connect(_listen_if_changed, dispatch_uid="airlock")
    atexit.register(_finish)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_listen_in_child)
    listen()
