"""Programs that enqueue with OpenTelemetry, for test_opentelemetry.py: `python -m telemetry enqueue 3`.

The task is that of `third_party`, whose worker is instrumented, too. With an outbox, the settings are those of
`relayed`.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from typing import Any

from celery import current_app
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import airlock
import third_party  # noqa: F401 - its app is now the current one
from airlock.integrations import otel
from airlock.integrations.executors.celery import celery_executor

exporter = InMemorySpanExporter()
tracers = TracerProvider()
tracers.add_span_processor(SimpleSpanProcessor(exporter))
reader = InMemoryMetricReader()


def instrument() -> None:
    CeleryInstrumentor().instrument(tracer_provider=tracers)
    otel.instrument(tracers, MeterProvider([reader]))
    airlock.configure(executor=celery_executor)


def set_up_django() -> None:
    import django

    django.setup()


def spans() -> list[dict[str, Any]]:
    return [
        {
            "id": f"{span.context.span_id:016x}" if span.context else None,
            "parent": f"{span.parent.span_id:016x}" if span.parent else None,
            "name": span.name,
            "links": [f"{link.context.span_id:016x}" for link in span.links],
        }
        for span in exporter.get_finished_spans()
    ]


def metrics() -> dict[str, Any]:
    """The data points of each metric: their attributes and values."""
    data = reader.get_metrics_data()
    found: dict[str, Any] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found.setdefault(metric.name, []).extend(
                    [dict(point.attributes or {}), getattr(point, "value", None)] for point in metric.data.data_points
                )
    return found


def enqueue(count: str, *, block: Any = nullcontext) -> dict[str, Any]:
    """Enqueue so many tasks, each in a span of its own, which has ended by the flush."""
    instrument()
    ids = []
    with airlock.scope(), block():
        for number in range(int(count)):
            with tracers.get_tracer("shop").start_as_current_span(f"order {number}"):
                ids.append(airlock.enqueue("traced").id)
    return {"ids": ids, "spans": spans()}


def enqueue_in_transaction(count: str) -> dict[str, Any]:
    """The same in a Django project with an outbox, in a transaction."""
    set_up_django()
    from django.db.transaction import atomic

    return enqueue(count, block=atomic)


def measure(count: str) -> dict[str, Any]:
    """Leave so many tasks to the relay, and look at the metrics."""
    set_up_django()
    enqueue(count)
    return metrics()


def measure_while_away() -> dict[str, Any]:
    """Look at the metrics, twice, while the database does not answer."""
    set_up_django()
    instrument()
    with airlock.scope(executor=print, _cls=airlock.Scope):
        airlock.enqueue(int)
    metrics()
    return metrics()


if __name__ == "__main__":
    program, *arguments = sys.argv[1:]
    programs = [enqueue, enqueue_in_transaction, measure, measure_while_away]
    (chosen,) = [each for each in programs if each.__name__ == program]
    answer = chosen(*arguments)
    current_app.close()
    sys.stdout.write("\n" + json.dumps(answer))
    sys.stdout.flush()
