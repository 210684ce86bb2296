"""A panel for the Django Debug Toolbar, versions 5 to 8: what became of each effect of a request, and why.

Below, when it is opened, what `manage.py airlock_explain` knows of everything else.

    DEBUG_TOOLBAR_PANELS = [..., "airlock.integrations.django.toolbar.AirlockPanel"]

It needs `"airlock.integrations.django"` in `INSTALLED_APPS`, and `DebugToolbarMiddleware` above `AirlockMiddleware`.
The system checks say so.
"""

from __future__ import annotations

import weakref
from collections import Counter
from contextvars import ContextVar
from inspect import currentframe
from time import perf_counter
from typing import TYPE_CHECKING, Any

from debug_toolbar.middleware import DebugToolbarMiddleware
from debug_toolbar.panels import Panel
from debug_toolbar.utils import get_stack_trace, render_stacktrace
from django.apps import apps
from django.conf import settings
from django.core import checks
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join

from airlock.ext import fates_of, refresh_fates, shown, subscribe
from airlock.integrations.django._checks import has_class
from airlock.integrations.django._elsewhere import elsewhere, parts_of
from airlock.integrations.django._middleware import AirlockMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase
    from django.utils.safestring import SafeString

    from airlock import Intent
    from airlock.ext import Event, Kind

#: What the last event of an intent means for it, in the order of the summary, and how good or bad that is.
_STATES: dict[Kind, tuple[str, str]] = {
    "failed": ("failed", "bad"),
    "unknown": ("unknown", "bad"),
    "parked": ("parked", "bad"),
    "dispatched": ("dispatched", "good"),
    "relayed": ("relayed", "good"),
    "stored": ("stored", "open"),
    "enqueued": ("waiting", "open"),
    "captured": ("waiting", "open"),
    "discarded": ("discarded", "withheld"),
    "dropped": ("dropped", "withheld"),
    "rolled_back": ("rolled back", "withheld"),
    "skipped": ("skipped", "withheld"),
}

#: The panel of the request that the running code belongs to.
_current: ContextVar[AirlockPanel | None] = ContextVar("airlock_panel", default=None)


class AirlockPanel(Panel):
    """Shows what became of each intent that a request has enqueued, and why."""

    # Attributes instead of properties, as in the toolbar's own panels.
    title = "Airlock"  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    template = "airlock/toolbar.html"  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    nav_icon = "airlock/toolbar.svg"  # type: ignore[assignment]
    is_async = True

    _unsubscribe: Callable[[], None]
    #: When the request came in.
    _began = 0.0
    #: Whether anything has happened that is not recorded yet.
    _has_news = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rows: dict[Intent, _Row] = {}

    @property
    def nav_subtitle(self) -> Any:
        """How many intents ended in which way. In red what has failed."""
        states = self._stats().get("states", [])
        if not any(state["level"] == "bad" for state in states):
            return ", ".join(f"{state['count']} {state['state']}" for state in states) or "no intents"
        # The styles are in the content of the panel, which may not be there yet.
        counts = ((state["level"], state["count"], state["state"]) for state in states)
        counted = format_html_join(", ", '<span class="airlock-{}">{} {}</span>', counts)
        return format_html("{}{}", render_to_string("airlock/toolbar_styles.html"), counted)

    @property
    def content(self) -> SafeString:
        """The tables. Stack traces are rendered as in the other panels."""
        stats = self._stats()
        stacks = [render_stacktrace(stack) for stack in stats["stacks"]]
        intents = [{**intent, "stack": stacks[intent["stack"]]} for intent in stats["intents"]]
        # As part of the page it would be looked up for every page, perhaps on an event loop.
        others = None if self.toolbar.should_render_panels() else elsewhere(intents)
        return render_to_string(self.template, {**stats, "intents": intents, "elsewhere": others})

    @classmethod
    def run_checks(cls) -> list[checks.CheckMessage]:
        """Called with Django's system checks."""
        messages: list[checks.CheckMessage] = []
        if not apps.is_installed("airlock.integrations.django"):
            messages.append(
                checks.Error(
                    "The templates of AirlockPanel are not found.",
                    hint='Add "airlock.integrations.django" to INSTALLED_APPS.',
                    id="airlock.E006",
                )
            )
        order = [
            kind
            for path in settings.MIDDLEWARE
            for kind in (AirlockMiddleware, DebugToolbarMiddleware)
            if has_class(path, kind)
        ]
        if AirlockMiddleware in order and order[-1] is DebugToolbarMiddleware:
            messages.append(
                checks.Warning(
                    "AirlockMiddleware is above DebugToolbarMiddleware, so each page is sent with the counts of "
                    "AirlockPanel from before its intents are dispatched.",
                    hint="In MIDDLEWARE, put DebugToolbarMiddleware above AirlockMiddleware.",
                    id="airlock.W004",
                )
            )
        return messages

    def enable_instrumentation(self) -> None:
        """Listen to what becomes of the intents that are enqueued from now on."""
        self._began = perf_counter()
        _current.set(self)
        self._unsubscribe = subscribe(self._hear)

    def disable_instrumentation(self) -> None:
        """Stop to listen: there is a response, or an exception."""
        self._unsubscribe()

    def generate_stats(self, request: HttpRequest, response: HttpResponseBase) -> None:
        """Record what has happened, and listen on until the response is closed: a streaming body is still to come."""
        self._unsubscribe = subscribe(self._hear)
        self._notice_rollbacks()
        self._record()
        # If a middleware replaces the response, nobody closes this one.
        weakref.finalize(response, self._unsubscribe)
        close = response.close

        def close_and_record() -> None:
            try:
                close()
            finally:
                self._notice_rollbacks()
                self._unsubscribe()
                if self._has_news and self._is_kept():
                    self._record(is_closed=True)
                self._rows.clear()  # they refer to arguments

        response.close = close_and_record  # type: ignore[method-assign]

    def _stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = self.get_stats()  # type: ignore[no-untyped-call]
        return stats

    def _hear(self, events: Sequence[Event]) -> None:
        """Called by whatever code something happens in, of this request or of another one."""
        at = perf_counter() - self._began
        for event in events:
            if event.kind == "enqueued" and _current.get() is self:
                self._rows[event.intent] = _Row(event)
            row = self._rows.get(event.intent)
            if row is not None:
                row.events.append((at, event))
                self._has_news = True

    def _notice_rollbacks(self) -> None:
        # After the flush nobody hears of a rollback before somebody asks.
        refresh_fates({fate for intent in list(self._rows) for fate in fates_of(intent)})

    def _is_kept(self) -> bool:
        # Version 5 keeps this object itself, later ones what was recorded. To record what is gone would bring it back.
        request_id = getattr(self.toolbar, "request_id", None)
        return request_id is None or bool(self.toolbar.store.exists(request_id))

    def _record(self, *, is_closed: bool = False) -> None:
        self._has_news = False
        until = perf_counter() - self._began
        # Many intents may come from one line, so each stack is stored once.
        stacks: dict[Any, int] = {}
        intents = [row.stats(until, stacks) for row in list(self._rows.values())]
        counts = Counter(intent["state"] for intent in intents)
        states = [
            {"state": state, "level": level, "count": counts[state]}
            for state, level in dict.fromkeys(_STATES.values())
            if state in counts
        ]
        stats = {"intents": intents, "states": states, "stacks": list(stacks), "is_closed": is_closed}
        self.record_stats(stats)  # type: ignore[no-untyped-call]


class _Row:
    """One intent: what is known where it is enqueued, and what happens to it."""

    def __init__(self, enqueued: Event) -> None:
        intent = enqueued.intent
        self.intent = intent
        #: With seconds since the request came in.
        self.events: list[tuple[float, Event]] = []
        skip, caller = _outside_airlock()
        #: The last frame is the one that has enqueued.
        self.stack = tuple(map(tuple, get_stack_trace(skip=skip - 1)))  # type: ignore[no-untyped-call]
        line = f"{caller.f_code.co_filename}:{caller.f_lineno}" if caller else ""
        origin = intent.origin or line
        self.known = {
            "id": intent.id,
            "name": intent.full_name,
            "shown": shown(intent),
            "options": ", ".join(f"{option}={value!r}" for option, value in intent.dispatch_options.items()),
            "origin": origin,
            "place": parts_of(origin),
            "function": caller.f_code.co_name if caller else "",
            "scope": enqueued.scope,
            "transactions": [getattr(fate, "description", repr(fate)) for fate in fates_of(intent)],
        }

    def stats(self, until: float, stacks: dict[Any, int]) -> dict[str, Any]:
        """What can be stored: nothing but strings, numbers, lists and dictionaries."""
        events = list(self.events)
        first, (last, end) = events[0][0], events[-1]
        state, level = _STATES[end.kind]
        return {
            **self.known,
            "stack": stacks.setdefault(self.stack, len(stacks)),
            "policies": [{"policy": repr(policy), "dropped": policy is end.policy} for policy in self.intent.policies],
            "state": state,
            "level": level,
            "events": [{"at": f"{at * 1000:.1f}", "kind": event.kind, "what": _what(event)} for at, event in events],
            "start": f"{first / until * 98:.2f}",
            "width": f"{(last - first) / until * 98 + 2:.2f}",
        }


def _what(event: Event) -> str:
    """Something that has happened, and why."""
    what = event.kind.replace("_", " ")
    if event.reason is None:
        return what
    reason = event.reason
    if event.error is not None and reason != repr(event.error):
        reason += f": {event.error}"
    return reason if reason.startswith(what) else f"{what}: {reason}"


def _outside_airlock() -> tuple[int, FrameType | None]:
    """The code that has called Airlock: how many frames are between, and its own."""
    skip, frame = 0, currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "airlock":
        skip, frame = skip + 1, frame.f_back
    return skip, frame
