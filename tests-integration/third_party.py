"""A project with celery-singleton, celery-once, OpenTelemetry and Sentry.

`make_app` makes it, in the tests' own process as well. What `celery -A third_party` gets, and the programs that publish
with an instrumentation, which changes Celery for a whole process, are at the end.
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from typing import TYPE_CHECKING, Any

import sentry_sdk
from celery import Celery, Task
from celery.signals import worker_process_init
from celery_once import QueueOnce
from celery_singleton import Singleton
from kombu import Queue
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.scope import use_scope
from sentry_sdk.transport import Transport

import airlock
from airlock.integrations.celery import LegacyTaskShim, install_global_intercept
from airlock.integrations.executors.celery import celery_executor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class SingletonShim(Singleton, LegacyTaskShim):
    abstract = True


class QueueOnceShim(QueueOnce, LegacyTaskShim):
    abstract = True


def make_app(settings: Mapping[str, Any]) -> Celery:
    """The app: `settings` are Celery's. The locks are in Redis, and begin with the prefix of its keys or arguments."""
    app = Celery("third_party", set_as_current=False)
    app.conf.update({name: value for name, value in settings.items() if name != "signals"})
    app.conf.singleton_key_prefix = app.conf.broker_transport_options.get("global_keyprefix", "")
    app.conf.ONCE = {"backend": "celery_once.backends.Redis", "settings": {"url": app.conf.broker_url}}

    def build(what: str) -> str:
        return what

    app.task(build, name="build", shared=False)
    for base in (Singleton, SingletonShim):
        app.task(build, name=base.__name__, base=base, shared=False)
    for base in (QueueOnce, QueueOnceShim):
        app.task(build, name=base.__name__, base=base, once={"graceful": True}, shared=False)

    @app.task(name="traced", bind=True, shared=False)
    def traced(self: Task, *args: Any) -> dict[str, Any]:
        """Where this run belongs, for each instrumentation: its trace and its parent."""
        parent = trace.get_current_span().parent or trace.INVALID_SPAN_CONTEXT
        sentry_trace, sentry_span, *_ = [*self.request.get("sentry-trace", "").split("-"), ""]
        return {
            "opentelemetry": {"trace": f"{parent.trace_id:032x}", "span": f"{parent.span_id:016x}"},
            "sentry": {"trace": sentry_trace, "span": sentry_span},
        }

    return app


@worker_process_init.connect(weak=False)
def instrument_worker(**_: Any) -> None:
    CeleryInstrumentor().instrument(tracer_provider=TracerProvider())


# Instrumentations: setting one up returns what starts a span, and what takes the spans that have ended


def opentelemetry() -> tuple[Callable[..., Any], Callable[[], list[dict[str, Any]]]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    CeleryInstrumentor().instrument(tracer_provider=provider)

    def take() -> list[dict[str, Any]]:
        spans = [
            {
                "id": f"{span.context.span_id:016x}",
                "parent": f"{span.parent.span_id:016x}" if span.parent else None,
                "trace": f"{span.context.trace_id:032x}",
                "name": span.name,
                "kind": str(span.kind),
                "status": str(span.status.status_code),
                "attributes": {key: str(value) for key, value in span.attributes.items()},
            }
            for span in exporter.get_finished_spans()
        ]
        exporter.clear()
        return spans

    return provider.get_tracer("orders").start_as_current_span, take


def sentry() -> tuple[Callable[..., Any], Callable[[], list[dict[str, Any]]]]:
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
    # Its spans are on a scope that it changes in place. So each intent brings a copy of its own.
    airlock.configure(carriers=[lambda: use_scope(sentry_sdk.get_current_scope().fork())])

    def take() -> list[dict[str, Any]]:
        sentry_sdk.flush()
        spans = [
            {
                "id": span["span_id"],
                "parent": span["parent_span_id"],
                "trace": span["trace_id"],
                "name": span["description"],
                "kind": span["op"],
                "status": span.get("status"),
                "attributes": span.get("data"),
            }
            for event in seen
            for span in event.get("spans", ())
            if not (span["op"] or "").startswith("db.")  # single commands of Redis, which are fewer
        ]
        seen.clear()
        return spans

    return sentry_sdk.start_span, take


INSTRUMENTATIONS = {"opentelemetry": opentelemetry, "sentry": sentry}


# Programs


def compare(app: Celery, instrumentation: str) -> list[Any]:
    """Publish one by one and together; what is seen of both."""
    _, take_spans = INSTRUMENTATIONS[instrumentation]()
    queue = app.conf.task_default_queue + "-compared"
    names = ["traced", "build"] * 10
    options = [{"task_id": f"id-{number}", "headers": {"tenant": "a"}, "queue": queue} for number in range(20)]

    def one_by_one() -> None:
        for number in range(20):
            app.tasks[names[number]].apply_async((number,), **options[number])

    def together() -> None:
        with airlock.scope():
            for number in range(20):
                airlock.enqueue(names[number], number, _dispatch_options=options[number])

    told = []
    for publish in (one_by_one, together):
        # Without Sentry, that does nothing.
        with sentry_sdk.start_transaction(name="request", op="request"):
            publish()
        messages: list[Any] = []
        with app.connection_for_read() as connection:
            waiting = Queue(queue)(connection.default_channel)
            while len(messages) < 20:
                if message := waiting.get(no_ack=True):
                    messages.append([message.headers, sorted(message.properties)])
        told.append(stable({"spans": take_spans(), "messages": messages}))
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete(queue)
    return told


def stable(seen: Any) -> Any:
    """The same, with their place instead of ids that are new each time, and without times."""
    made: dict[str, str] = {}
    text = json.dumps(seen, default=str)
    text = re.sub(r'("sentry-[\w-]*time[\w-]*": )"?[\d.]+"?', r"\1 0", text)
    text = re.sub(r"\b[0-9a-f]{16}\b|\b[0-9a-f]{32}\b", lambda match: made.setdefault(match[0], str(len(made))), text)
    text = re.sub(r"sample_rand=[\d.]+", "sample_rand=0", text)
    return json.loads(re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "uuid", text))


def confirm_and_record(app: Celery, instrumentation: str) -> list[bool]:
    """Whether the broker confirms a plain task, and whether its message can be kept."""
    INSTRUMENTATIONS[instrumentation]()
    intent = airlock.Intent(app.tasks["traced"], (42,))
    return [celery_executor.confirms(intent), celery_executor.record(intent) is not None]


def enqueue_in_spans(app: Celery, instrumentation: str, count: str) -> dict[str, Any]:
    """Enqueue each task in a span of its own, all of which have ended by the flush."""
    start_span, take_spans = INSTRUMENTATIONS[instrumentation]()
    ids = []
    with sentry_sdk.start_transaction(name="request", op="request"), airlock.scope():
        for number in range(int(count)):
            with start_span(name=f"order {number}"):
                ids.append(airlock.enqueue("traced").id)
    return {"ids": ids, "spans": take_spans()}


def enqueue_in_transactions(app: Celery, count: str) -> dict[str, Any]:
    """Enqueue each task in a transaction of its own, all of which have ended by the flush."""
    sentry()
    ids, traces = [], []
    with airlock.scope():
        for number in range(int(count)):
            with sentry_sdk.start_transaction(name=f"order {number}") as transaction:
                ids.append(airlock.enqueue("traced").id)
                traces.append(transaction.trace_id)
    return {"ids": ids, "traces": traces}


def call_intercepted(app: Celery, first: str) -> dict[str, list[str]]:
    """Where intercepted calls are reported to be, and where they are."""
    for set_up in (sentry, install_global_intercept) if first == "sentry" else (install_global_intercept, sentry):
        set_up()
    task = app.tasks["traced"]
    calls: list[Callable[[], Any]] = [
        lambda: task.delay(),
        lambda: task.apply_async(),
        lambda: task.s().delay(),
    ]
    with airlock.scope(airlock.DropAll()) as scope, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        for call in calls:
            call()
    return {
        "warnings": [f"{warning.filename}:{warning.lineno}" for warning in caught],
        "origins": [str(intent.origin) for intent in scope.intents],
        "calls": [f"{call.__code__.co_filename}:{call.__code__.co_firstlineno}" for call in calls],
    }


if "AIRLOCK_TEST_CELERY" in os.environ:
    app = make_app(json.loads(os.environ["AIRLOCK_TEST_CELERY"]))
    app.set_default()

if __name__ == "__main__":
    airlock.configure(executor=celery_executor)
    program, *arguments = sys.argv[1:]
    programs = [compare, confirm_and_record, enqueue_in_spans, enqueue_in_transactions, call_intercepted]
    (chosen,) = [each for each in programs if each.__name__ == program]
    sys.stdout.write(json.dumps(chosen(app, *arguments)))
