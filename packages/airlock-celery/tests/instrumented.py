"""A program that publishes with an instrumentation in place, one by one and together, and tells what is seen of both.

It stands alone, as instrumentations change Celery for a whole process.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from typing import TYPE_CHECKING, Any

from celery import Celery
from kombu import Queue

import airlock
from airlock.integrations.executors.celery import CeleryExecutor

if TYPE_CHECKING:
    from collections.abc import Callable


def opentelemetry() -> Callable[[], list[Any]]:
    """Set OpenTelemetry up; returns what takes the spans that have ended."""
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    CeleryInstrumentor().instrument(tracer_provider=provider)

    def take() -> list[Any]:
        spans = [
            {
                "name": span.name,
                "kind": str(span.kind),
                "ids": f"{span.context.trace_id:032x} {span.context.span_id:016x}",
                "parent": repr(span.parent),
                "status": str(span.status.status_code),
                "attributes": {key: str(value) for key, value in span.attributes.items()},
            }
            for span in exporter.get_finished_spans()
        ]
        exporter.clear()
        return spans

    return take


def sentry() -> Callable[[], list[Any]]:
    """Set Sentry up; returns what takes the spans of transactions that have ended."""
    import sentry_sdk
    from sentry_sdk.integrations.celery import CeleryIntegration
    from sentry_sdk.transport import Transport

    seen: list[Any] = []

    class Keeping(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            seen.extend(item.payload.json for item in envelope.items if item.payload.json)

    sentry_sdk.init(
        dsn="http://nobody@127.0.0.1:9/1",
        transport=Keeping,
        traces_sample_rate=1.0,
        integrations=[CeleryIntegration()],
    )

    def take() -> list[Any]:
        sentry_sdk.flush()
        spans = [
            [span["op"], span["description"], span["span_id"], span["trace_id"], span.get("status"), span.get("data")]
            for event in seen
            for span in event.get("spans", ())
            if not span["op"].startswith("db.")  # single commands of Redis, which are fewer
        ]
        seen.clear()
        return spans

    return take


def stable(seen: list[Any]) -> list[Any]:
    """The same, with their place instead of ids that are new each time, and without times."""
    made: dict[str, str] = {}
    text = json.dumps(seen, default=str)
    text = re.sub(r'("sentry-[\w-]*time[\w-]*": )"?[\d.]+"?', r"\1 0", text)
    text = re.sub(r"\b[0-9a-f]{16}\b|\b[0-9a-f]{32}\b", lambda match: made.setdefault(match[0], str(len(made))), text)
    text = re.sub(r"sample_rand=[\d.]+", "sample_rand=0", text)
    return json.loads(re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "uuid", text))


def main() -> None:
    instrumentation = sys.argv[1]
    take_spans = {"opentelemetry": opentelemetry, "sentry": sentry}[instrumentation]()
    app = Celery("instrumented")
    app.conf.update(json.loads(os.environ["AIRLOCK_TEST_CELERY"]), task_default_queue=f"traced-{secrets.token_hex(4)}")
    app.set_default()

    @app.task(name="notify")
    def notify(*args: Any) -> None: ...

    @app.task(name="ship")
    def ship(*args: Any) -> None: ...

    def one_by_one() -> None:
        for number in range(20):
            (notify, ship)[number % 2].apply_async((number,), task_id=f"id-{number}", headers={"tenant": "a"})

    def together() -> None:
        with airlock.scope(executor=CeleryExecutor(app)):
            for number in range(20):
                options = {"task_id": f"id-{number}", "headers": {"tenant": "a"}}
                airlock.enqueue((notify, ship)[number % 2], number, _dispatch_options=options)

    def publish(way: Callable[[], None]) -> None:
        if instrumentation == "opentelemetry":
            way()
            return
        import sentry_sdk

        with sentry_sdk.start_transaction(name="request", op="request"):
            way()

    told = []
    for way in (one_by_one, together):
        publish(way)
        spans = take_spans()
        with app.connection_for_read() as connection:
            waiting = Queue(app.conf.task_default_queue)(connection.default_channel)
            messages = []
            while len(messages) < 20:
                if message := waiting.get(no_ack=True):
                    messages.append([message.headers, sorted(message.properties)])
        told.append(stable([spans, messages]))
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete(app.conf.task_default_queue)
    sys.stdout.write(json.dumps(told))


main()
