"""Traces and metrics, as the SDK of OpenTelemetry exports them."""

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import airlock
from airlock.ext import Event, tell
from airlock.integrations import otel


class Traced:
    """What the SDK has exported."""

    def __init__(self):
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])

    def span(self, name):
        return self.tracers.get_tracer("shop").start_as_current_span(name)

    @property
    def spans(self):
        return self._exporter.get_finished_spans()

    @property
    def names(self):
        return [span.name for span in self.spans]

    def points(self, name):
        """The data points of a metric."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def traced():
    traced = Traced()
    otel.instrument(traced.tracers, traced.meters)
    yield traced
    otel.uninstrument()


def send_email(user_id):
    pass


def notify(order_id):
    pass


EMAIL = f"{__name__}.send_email"
NOTIFY = f"{__name__}.notify"


def refuse(intent):
    raise LookupError("no such queue")


class Logging(airlock.Scope):
    dispatch_errors = "log"


# Spans


def test_an_intent_has_a_span_that_ends_with_its_enqueue_call(traced):
    with traced.span("request"), airlock.scope() as scope:
        intent = airlock.enqueue(send_email, 7, _origin="views.py:1")
        (create,) = traced.spans
    request = traced.spans[-1]
    assert (create.name, create.kind, create.parent) == (f"create {EMAIL}", SpanKind.PRODUCER, request.context)
    assert create.instrumentation_scope.name == "airlock"
    assert dict(create.attributes) == {
        "messaging.system": "airlock",
        "messaging.operation.type": "create",
        "messaging.operation.name": "create",
        "messaging.destination.name": EMAIL,
        "messaging.message.id": intent.id,
        "airlock.scope": f"Scope {scope_number(create)}",
        "airlock.origin": "views.py:1",
    }
    assert scope.dispatched_intents == [intent]


def scope_number(span):
    return span.attributes["airlock.scope"].rpartition(" ")[2]


def test_an_effect_descends_from_the_span_of_its_enqueue_call(traced):
    def work():
        with traced.span("work"):
            pass

    with traced.span("request"), airlock.scope():
        airlock.enqueue(work)
        with traced.span("inner"):
            pass
    create, inner, work, _, request = traced.spans
    assert work.parent == create.context
    assert inner.parent == request.context


def test_a_task_in_place_may_add_to_the_current_span_without_a_warning(traced, caplog):
    with airlock.scope():
        airlock.enqueue(lambda: trace.get_current_span().set_attribute("colour", "red"))
    assert caplog.messages == []


def test_baggage_is_that_of_the_enqueue_call(traced):
    seen = []
    token = context.attach(baggage.set_baggage("tenant", "a"))
    try:
        with airlock.scope():
            airlock.enqueue(lambda: seen.append(baggage.get_baggage("tenant")))
    finally:
        context.detach(token)
    assert seen == ["a"]


def test_a_flush_is_one_span_with_links_to_what_it_sends(traced):
    with traced.span("request"), airlock.scope():
        ids = [airlock.enqueue(send_email, number).id for number in range(3)]
    *creates, send, request = traced.spans
    assert (send.name, send.kind, send.parent) == (f"send {EMAIL}", SpanKind.CLIENT, request.context)
    assert [link.context for link in send.links] == [create.context for create in creates]
    assert [link.attributes["messaging.message.id"] for link in send.links] == ids
    attributes = {**send.attributes}
    del attributes["airlock.scope"]
    assert attributes == {
        "messaging.system": "airlock",
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.destination.name": EMAIL,
        "messaging.batch.message_count": 3,
        "airlock.outcome": "dispatched",
    }
    assert send.status.status_code is StatusCode.UNSET


def test_a_flush_of_one_is_no_batch(traced):
    with airlock.scope():
        intent = airlock.enqueue(send_email, 7)
    _, send = traced.spans
    assert "messaging.batch.message_count" not in send.attributes
    assert send.attributes["messaging.message.id"] == intent.id


def test_a_flush_of_different_tasks_has_no_destination(traced):
    with airlock.scope():
        airlock.enqueue(send_email, 7)
        airlock.enqueue(notify, 7)
    send = traced.spans[-1]
    assert send.name == "send"
    assert "messaging.destination.name" not in send.attributes


def test_a_send_begins_before_its_effects_and_ends_after_them(traced):
    def work():
        with traced.span("work"):
            pass

    with airlock.scope():
        airlock.enqueue(work)
    _, work, send = traced.spans
    assert send.start_time <= work.start_time <= work.end_time <= send.end_time


def test_a_failed_dispatch_is_a_send_with_an_error(traced):
    with airlock.scope(_cls=Logging, executor=refuse):
        airlock.enqueue(send_email, 7)
        airlock.enqueue(send_email, 8)
    *creates, send = traced.spans
    assert (send.name, send.status.status_code) == (f"send {EMAIL}", StatusCode.ERROR)
    assert send.status.description == "LookupError('no such queue')"
    assert send.attributes["error.type"] == "builtins.LookupError"
    assert send.attributes["airlock.outcome"] == "failed"
    assert [link.context for link in send.links] == [create.context for create in creates]


def test_each_kind_of_error_has_a_span(traced):
    def fail(intent):
        raise (KeyError if intent.args == (8,) else LookupError)

    with airlock.scope(_cls=Logging, executor=fail):
        for number in (7, 8, 9):
            airlock.enqueue(send_email, number)
    errors = [span.attributes["error.type"] for span in traced.spans[3:]]
    assert errors == ["builtins.LookupError", "builtins.KeyError", "builtins.LookupError"]


def withheld(traced):
    """The span after that of the `enqueue` call, which it must have as its parent."""
    create, end = [span for span in traced.spans if span.name != "request"]
    assert end.parent == create.context
    assert end.kind is SpanKind.INTERNAL
    assert end.attributes["messaging.message.id"] == create.attributes["messaging.message.id"]
    return end


def test_a_discard_is_seen_below_the_enqueue_call(traced):
    with traced.span("request"), pytest.raises(ValueError, match="wrong"), airlock.scope():
        airlock.enqueue(send_email, 7)
        raise ValueError("wrong")
    end = withheld(traced)
    assert (end.name, end.status.status_code) == (f"discarded {EMAIL}", StatusCode.UNSET)
    assert end.attributes["airlock.outcome"] == "discarded"
    assert end.attributes["airlock.reason"] == "discarded, because ValueError was raised"


def test_a_drop_is_seen_below_the_enqueue_call(traced):
    with airlock.scope(airlock.DropAll()):
        airlock.enqueue(send_email, 7)
    end = withheld(traced)
    assert (end.name, end.attributes["airlock.reason"]) == (f"dropped {EMAIL}", "dropped by DropAll()")


def test_what_the_executor_refuses_at_the_call_is_seen_below_it(traced):
    class Refusing:
        def prepare(self, intent, fates):
            raise TypeError("not JSON")

        def __call__(self, intent): ...

    with airlock.scope(executor=Refusing()), pytest.raises(TypeError, match="not JSON"):
        airlock.enqueue(send_email, 7)
    end = withheld(traced)
    assert (end.name, end.status.status_code) == (f"failed {EMAIL}", StatusCode.ERROR)
    assert end.attributes["error.type"] == "builtins.TypeError"


def test_what_another_process_has_enqueued_ends_below_the_current_span(traced):
    with traced.span("relay"):
        tell([Event("parked", airlock.Intent(send_email, id="7"), reason="tried ten times")])
    parked, relay = traced.spans
    assert (parked.name, parked.parent) == (f"parked {EMAIL}", relay.context)
    assert parked.status.description == "tried ten times"


def test_what_a_relay_sends_is_a_send(traced):
    tell([Event("relayed", airlock.Intent(send_email, id=number)) for number in ("7", "8")])
    (send,) = traced.spans
    assert (send.name, send.attributes["messaging.batch.message_count"]) == (f"send {EMAIL}", 2)
    assert counted(traced) == {(EMAIL, "relayed"): 2}


def test_what_is_left_to_the_relay_says_so_below_the_enqueue_call(traced):
    with airlock.scope(executor=lambda intent: tell([Event("stored", intent, reason="left to the relay: it is slow")])):
        airlock.enqueue(send_email, 7)
    create, stored, _ = traced.spans
    assert (stored.name, stored.parent) == (f"stored {EMAIL}", create.context)
    assert stored.attributes["airlock.reason"] == "left to the relay: it is slow"


def test_being_captured_is_no_end(traced):
    with airlock.scope(), airlock.scope():
        airlock.enqueue(send_email, 7)
    assert traced.names == [f"create {EMAIL}", f"send {EMAIL}"]


def test_what_is_not_sampled_stays_so(traced):
    seen = []
    otel.instrument(TracerProvider(sampler=ALWAYS_OFF), traced.meters)
    with airlock.scope():
        airlock.enqueue(lambda: seen.append(trace.get_current_span().get_span_context()))
    assert seen[0].is_valid
    assert not seen[0].trace_flags.sampled


def test_without_an_sdk_the_current_span_stays_current(traced):
    seen = []
    otel.instrument(trace.NoOpTracerProvider(), traced.meters)
    with traced.span("request") as request, airlock.scope():
        airlock.enqueue(lambda: seen.append(trace.get_current_span().get_span_context()))
    assert seen == [request.get_span_context()]


def test_arguments_are_in_no_span_and_no_metric(traced):
    with airlock.scope(airlock.BlockTasks({"notify"}), _cls=Logging, executor=refuse):
        airlock.enqueue(send_email, "4111 1111")
        airlock.enqueue(notify, "4111 1111")
    assert len(traced.spans) == 4
    assert "4111" not in "".join(span.to_json() for span in traced.spans)
    assert "4111" not in str(traced.points("airlock.intents"))


# Metrics


def counted(traced):
    return {
        (point.attributes["messaging.destination.name"], point.attributes["airlock.outcome"]): point.value
        for point in traced.points("airlock.intents")
    }


def test_ends_are_counted_by_task_and_outcome(traced):
    with airlock.scope(airlock.BlockTasks({"notify"})), airlock.scope():
        airlock.enqueue(send_email, 7)
        airlock.enqueue(send_email, 8)
        airlock.enqueue(notify, 7)
    with pytest.raises(LookupError), airlock.scope(executor=refuse):
        airlock.enqueue(send_email, 9)
    assert counted(traced) == {(EMAIL, "dispatched"): 2, (NOTIFY, "dropped"): 1, (EMAIL, "failed"): 1}


def test_the_time_from_enqueue_to_dispatch_is_measured(traced):
    with airlock.scope():
        airlock.enqueue(send_email, 7)
        airlock.enqueue(send_email, 8)
    (point,) = traced.points("airlock.dispatch.delay")
    assert dict(point.attributes) == {"messaging.destination.name": EMAIL}
    assert point.count == 2
    assert 0 < point.sum < 60
    assert point.explicit_bounds[0] == 0.005


def test_a_process_without_an_outbox_has_no_metrics_of_it(traced):
    assert traced.points("airlock.outbox.entries") == []
    assert traced.points("airlock.outbox.oldest_due") == []


# Beginning and end


def test_nothing_is_seen_after_the_end(traced):
    otel.uninstrument()
    otel.uninstrument()
    with airlock.scope():
        airlock.enqueue(send_email, 7)
    assert traced.spans == ()
    assert counted(traced) == {}


def test_a_second_call_takes_the_place_of_the_first(traced):
    otel.instrument(traced.tracers, traced.meters)
    with airlock.scope():
        airlock.enqueue(send_email, 7)
    assert traced.names == [f"create {EMAIL}", f"send {EMAIL}"]
    assert counted(traced) == {(EMAIL, "dispatched"): 1}


def test_what_was_enqueued_before_is_sent_without_a_link(traced):
    otel.uninstrument()
    with airlock.scope():
        airlock.enqueue(send_email, 7)
        otel.instrument(traced.tracers, traced.meters)
    (send,) = traced.spans
    assert send.links == ()
    assert traced.points("airlock.dispatch.delay") == []
