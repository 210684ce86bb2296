"""Traces and metrics of what becomes of intents, by OpenTelemetry.

    from airlock.integrations import otel

    otel.instrument()

It needs `airlock-core[otel]`.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter
from importlib.metadata import version
from itertools import groupby
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from opentelemetry import context, metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode

from airlock.ext import change_context, subscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Tracer, TracerProvider

    from airlock import Intent
    from airlock.ext import Event

__all__ = ["instrument", "uninstrument"]

logger = logging.getLogger("airlock")

#: What the executor, or a relay, has sent.
_SENT = frozenset({"dispatched", "relayed"})
#: The ends that are failures.
_FAILURES = frozenset({"failed", "unknown", "parked"})

#: The boundaries that the semantic conventions recommend for durations, and some more for requests that take long.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)


def instrument(tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None) -> None:
    """Trace and count what becomes of intents in this process, from now on.

    Call it where you set up OpenTelemetry: in a Celery worker, on `worker_process_init`. A second call takes the place
    of the first.

    Args:
        tracer_provider: makes the spans; by default the global one.
        meter_provider: makes the metrics; by default the global one.
    """
    global _end_subscription
    uninstrument()
    this = ("airlock", version("airlock-core"))
    meter = metrics.get_meter(*this, meter_provider)
    _end_subscription = subscribe(_Telemetry(trace.get_tracer(*this, tracer_provider), meter))
    meter.create_observable_gauge(
        "airlock.outbox.entries", [_observe_entries], "{entry}", "How many entries the outbox has, by their state."
    )
    meter.create_observable_gauge(
        "airlock.outbox.oldest_due", [_observe_age], "s", "For how long the oldest entry that is due has been so."
    )


def uninstrument() -> None:
    """End what `instrument` has begun."""
    global _end_subscription
    if _end_subscription is not None:
        _end_subscription()
        _end_subscription = None


_end_subscription: Callable[[], None] | None = None


class _Creation(NamedTuple):
    """What is remembered of an intent."""

    span: SpanContext
    time: int


class _Telemetry:
    """Listens to what happens to intents."""

    def __init__(self, tracer: Tracer, meter: Meter) -> None:
        self._tracer = tracer
        self._intents = meter.create_counter("airlock.intents", "{intent}", "What became of intents, by task.")
        self._delay = meter.create_histogram(
            "airlock.dispatch.delay",
            "s",
            "From the enqueue call until the intent was given to the executor.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._creations: WeakKeyDictionary[Intent, _Creation] = WeakKeyDictionary()

    def __call__(self, events: Sequence[Event]) -> None:
        for kind, group in groupby(events, lambda event: event.kind):
            together = list(group)
            if kind == "enqueued":
                for event in together:
                    self._create(event)
            elif kind != "captured":  # that is not the end of it
                self._measure(together)
                if kind in _SENT or together[0].began is not None:
                    # One span for all that went well, or failed for the same reason.
                    for _, sent in groupby(together, lambda event: type(event.error)):
                        self._send(list(sent))
                else:
                    for event in together:
                        self._end(event)

    def _measure(self, events: Sequence[Event]) -> None:
        outcome = events[0].kind
        for task, count in Counter(event.intent.full_name for event in events).items():
            self._intents.add(count, {"messaging.destination.name": task, "airlock.outcome": outcome})
        for event in events:
            created = self._creations.get(event.intent)
            if outcome == "dispatched" and created is not None and event.began is not None:
                seconds = max(0.0, (event.began - created.time) / 1e9)  # the clock may have been set back
                self._delay.record(seconds, {"messaging.destination.name": event.intent.full_name})

    def _create(self, event: Event) -> None:
        """Record where an intent was enqueued, and have its dispatch, and the message, go on from there."""
        intent, now = event.intent, time_ns()
        attributes = {**_about([event]), **_operation("create")}
        if intent.origin is not None:
            attributes["airlock.origin"] = intent.origin
        name = f"create {intent.full_name}"
        span = self._tracer.start_span(name, kind=SpanKind.PRODUCER, attributes=attributes, start_time=now)
        span.end(now)
        created = self._creations[intent] = _Creation(span.get_span_context(), now)
        if created.span.is_valid:
            # The span itself has ended: whoever adds to the current span would only be warned.
            change_context(intent, lambda: context.attach(trace.set_span_in_context(NonRecordingSpan(created.span))))

    def _send(self, events: Sequence[Event]) -> None:
        """Record what the executor was given at a time."""
        attributes = {**_about(events), **_operation("send"), "airlock.outcome": events[0].kind}
        if len(events) > 1:
            attributes["messaging.batch.message_count"] = len(events)
        links = [
            Link(created.span, {"messaging.message.id": event.intent.id})
            for event in events
            if (created := self._creations.get(event.intent)) is not None
        ]
        task = attributes.get("messaging.destination.name")
        span = self._tracer.start_span(
            f"send {task}" if task else "send",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            links=links,
            start_time=events[0].began,
        )
        _end(span, events[0])

    def _end(self, event: Event) -> None:
        """Record where the span of its enqueue call leads, though nobody will ever send it."""
        attributes = {**_about([event]), "airlock.outcome": event.kind}
        if event.reason is not None:
            attributes["airlock.reason"] = event.reason
        created = self._creations.get(event.intent)
        parent = None if created is None else trace.set_span_in_context(NonRecordingSpan(created.span))
        span = self._tracer.start_span(f"{event.kind} {event.intent.full_name}", parent, attributes=attributes)
        _end(span, event)


def _end(span: trace.Span, event: Event) -> None:
    if event.error is not None:
        span.set_attribute("error.type", f"{type(event.error).__module__}.{type(event.error).__qualname__}")
    if event.kind in _FAILURES:
        span.set_status(Status(StatusCode.ERROR, event.reason))
    span.end()


def _about(events: Sequence[Event]) -> dict[str, Any]:
    """What events that belong together have in common."""
    attributes: dict[str, Any] = {"messaging.system": "airlock"}
    tasks = {event.intent.full_name for event in events}
    if len(tasks) == 1:
        attributes["messaging.destination.name"] = tasks.pop()
    if len(events) == 1:
        attributes["messaging.message.id"] = events[0].intent.id
    if events[0].scope:
        attributes["airlock.scope"] = events[0].scope
    return attributes


def _operation(kind: str) -> dict[str, str]:
    return {"messaging.operation.type": kind, "messaging.operation.name": kind}


# -- The outbox --------------------------------------------------------------------------------------------------------


#: For how long metrics wait for the database, in seconds.
_PATIENCE = 1.0
#: For how long an answer is good enough, in seconds: it is asked for twice, once for each gauge.
_FRESH = 2.0


class _Outbox:
    """Asks the database about the outbox, in a thread: it may take for ever to answer."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._asked_at = 0.0
        self._status: Any = None

    def status(self) -> Any:
        """What is in it, or `None` if there is none, or if that cannot be known right now."""
        if "airlock.integrations.outbox" not in sys.modules:
            return None  # this process does not use it
        is_asking = self._thread is not None and self._thread.is_alive()
        if not is_asking and (self._thread is None or monotonic() - self._asked_at > _FRESH):
            self._status, self._asked_at = None, monotonic()
            self._thread = threading.Thread(target=self._ask, name="airlock-otel-outbox", daemon=True)
            self._thread.start()
            self._thread.join(_PATIENCE)
        return self._status

    def _ask(self) -> None:
        try:
            from django.db import connections

            from airlock.integrations.outbox import status

            try:
                self._status = status()
            finally:
                connections.close_all()
        except Exception:
            logger.debug("The outbox could not be asked for its metrics", exc_info=True)


_outbox = _Outbox()


def _observe_entries(options: CallbackOptions) -> Iterable[Observation]:
    for name, value in _figures().items():
        if name != "total" and not name.endswith("_seconds"):
            yield Observation(value, {"airlock.outbox.state": name})


def _observe_age(options: CallbackOptions) -> Iterable[Observation]:
    figures = _figures()
    if figures:
        yield Observation(figures["oldest_due_seconds"])


def _figures() -> Mapping[str, float]:
    status = None if _end_subscription is None else _outbox.status()
    return {} if status is None else status.as_dict()
