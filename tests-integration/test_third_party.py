"""Other people's packages for Celery do with Airlock what they do without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import airlock
import third_party
from airlock.integrations.celery import install_global_intercept, uninstall_global_intercept
from airlock.integrations.executors.celery import CeleryExecutor
from processes import HERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Orders
    from services import Broker


def run(module: str, environment: dict[str, str], *arguments: str) -> Any:
    """Run a program, and return what it has printed in its last line."""
    command = [sys.executable, "-m", module, *arguments]
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "", **environment}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def orders(redis_broker: Broker, start_orders: Callable[..., Orders]) -> Orders:
    """A worker of `third_party`."""
    return start_orders(redis_broker, app="third_party", concurrency=1)


# celery-singleton, celery-once


@pytest.fixture(
    params=[
        *("enqueue Singleton", "intercept Singleton", "call SingletonShim"),
        *("enqueue QueueOnce", "intercept QueueOnce", "call QueueOnceShim"),
    ]
)
def call(request: pytest.FixtureRequest, orders: Orders) -> Iterator[Callable[..., None]]:
    """A function that calls a task with a lock, which is taken when the task is published: for each way to call it."""
    how, _, name = request.param.partition(" ")
    app = third_party.make_app(json.loads(orders.environment["AIRLOCK_TEST_CELERY"]))
    task = app.tasks[name]

    def call(*args: str, **options: str) -> None:
        if how == "enqueue":
            airlock.enqueue(task, *args, _dispatch_options=options or None)
        elif options:
            task.apply_async(args, **options)
        else:
            task.delay(*args)

    airlock.configure(executor=CeleryExecutor(app))
    if how == "intercept":
        install_global_intercept()
    yield call
    uninstall_global_intercept()


@pytest.mark.filterwarnings("ignore:.* was called with .delay:DeprecationWarning")
def test_what_is_discarded_takes_no_lock(orders: Orders, call: Callable[..., None]) -> None:
    what = orders.effects()
    with pytest.raises(LookupError), airlock.scope():
        call(what)
        raise LookupError

    with airlock.scope() as scope:
        call(what)

    (intent,) = scope.dispatched_intents
    assert orders.get(intent.id) == what


@pytest.mark.filterwarnings("ignore:.* was called with .delay:DeprecationWarning")
def test_of_two_calls_in_one_scope_one_is_sent(orders: Orders, call: Callable[..., None]) -> None:
    effects = orders.effects()

    with airlock.scope():
        for _ in range(2):
            call(effects, queue=effects)
        assert orders.taken(effects) == []

    assert orders.taken(effects) == [effects]


# OpenTelemetry, Sentry


@pytest.mark.parametrize("instrumentation", ["opentelemetry", "sentry"])
def test_an_instrumentation_sees_the_same(instrumentation: str, broker: Broker) -> None:
    alone, together = run("third_party", broker.environment, "compare", instrumentation)

    assert len(together["messages"]) == 20
    assert len(together["spans"]) >= 20
    assert together == alone
    traced = "traceparent" if instrumentation == "opentelemetry" else "sentry-trace"
    assert all(traced in headers for headers, _ in together["messages"])


@pytest.mark.parametrize("instrumentation", ["opentelemetry", "sentry"])
def test_an_instrumentation_leaves_a_task_plain(instrumentation: str, broker: Broker) -> None:
    assert run("third_party", broker.environment, "confirm_and_record", instrumentation) == [True, True]


@pytest.mark.parametrize("count", [1, 3], ids=["one", "several"])
@pytest.mark.parametrize("instrumentation", ["opentelemetry", "sentry"])
def test_a_run_descends_from_the_span_around_its_enqueue(orders: Orders, instrumentation: str, count: int) -> None:
    told = run("third_party", orders.environment, "enqueue_in_spans", instrumentation, str(count))

    spans = {span["id"]: span for span in told["spans"]}
    around = []
    for task_id in told["ids"]:
        span = spans.get(orders.get(task_id)[instrumentation]["span"])
        while span and not span["name"].startswith("order"):
            span = spans.get(span["parent"])
        around.append(span and span["name"])
    assert around == [f"order {number}" for number in range(count)]


@pytest.mark.parametrize("count", [1, 3], ids=["one", "several"])
def test_a_run_is_in_the_trace_of_the_transaction_around_its_enqueue(orders: Orders, count: int) -> None:
    told = run("third_party", orders.environment, "enqueue_in_transactions", str(count))

    assert [orders.get(task_id)["sentry"]["trace"] for task_id in told["ids"]] == told["traces"]
    assert len(set(told["traces"])) == count


@pytest.mark.parametrize("first", ["sentry", "airlock"])
def test_an_intercepted_call_is_reported_at_its_own_line(redis_broker: Broker, first: str) -> None:
    told = run("third_party", redis_broker.environment, "call_intercepted", first)

    assert told["warnings"] == told["calls"]
    assert told["origins"] == told["calls"]


# django-structlog, tenant-schemas-celery

MIDDLEWARE = ["django_structlog.middlewares.RequestMiddleware", "airlock.integrations.django.AirlockMiddleware"]


@pytest.fixture(scope="module")
def tenancy(redis_broker: Broker, start_orders: Callable[..., Orders], postgresql_database: dict[str, Any]) -> Orders:
    """A worker of `tenancy`, and the schemas `a` and `b`."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "tenancy.settings",
        "AIRLOCK_TEST_DATABASE": json.dumps(postgresql_database),
        "AIRLOCK_TEST_MIDDLEWARE": json.dumps(MIDDLEWARE),
    }
    orders = start_orders(redis_broker, app="tenancy.celery", env=environment, concurrency=1)
    run("tenancy", orders.environment, "migrate", "a", "b")
    return orders


@pytest.mark.parametrize("parcels", [1, 3], ids=["one", "several"])
@pytest.mark.parametrize("middleware", [MIDDLEWARE, MIDDLEWARE[::-1]], ids=["its own outermost", "airlock outermost"])
def test_a_run_logs_what_was_bound_at_its_enqueue(tenancy: Orders, middleware: list[str], parcels: int) -> None:
    environment = {**tenancy.environment, "AIRLOCK_TEST_MIDDLEWARE": json.dumps(middleware)}
    told = run("tenancy", environment, "order", str(parcels))

    for task_id in told["ids"]:
        tenancy.get(task_id)
    lines = [json.loads(line) for line in tenancy.worker.log.splitlines() if '"event": "shipped"' in line]
    bound = [(line["request_id"], line["parcel"]) for line in lines if line["task_id"] in told["ids"]]
    assert bound == [(told["request_id"], parcel) for parcel in range(parcels)]


TENANTS = "django_tenants.middleware.main.TenantMainMiddleware"


@pytest.mark.parametrize("middleware", [[TENANTS, *MIDDLEWARE], [*MIDDLEWARE, TENANTS]], ids=["tenant first", "last"])
def test_a_run_is_in_the_schema_of_the_tenant_whose_request_it_was(tenancy: Orders, middleware: list[str]) -> None:
    environment = {**tenancy.environment, "AIRLOCK_TEST_MIDDLEWARE": json.dumps(middleware)}
    told = [run("tenancy", environment, "order", "1", f"{tenant}.testserver") for tenant in ("a", "b")]

    assert [tenancy.get(task_id) for each in told for task_id in each["ids"]] == ["a", "b"]


@pytest.mark.parametrize("schemas", [["a"], ["a", "b", "public", "a"]], ids=["one", "several"])
def test_a_run_is_in_the_schema_of_its_enqueue(tenancy: Orders, schemas: list[str]) -> None:
    ids = run("tenancy", tenancy.environment, "enqueue_in_schemas", *schemas)

    assert [tenancy.get(task_id) for task_id in ids] == schemas


def test_a_run_with_a_scope_and_what_it_enqueues_are_in_the_schema_of_the_enqueue_call(tenancy: Orders) -> None:
    ran_in, follow_up = tenancy.get(run("tenancy", tenancy.environment, "enqueue_scoped_in_schema", "a"))

    assert (ran_in, tenancy.get(follow_up)) == ("a", "a")
