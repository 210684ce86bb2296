"""A broker that is down is one clear error, soon; and when it is back, what was left can go out.

With a result back end on a Redis that is down, Celery itself tries to reach it for 19 seconds - for every task. Times
here are compared with that, and are usually below one second.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, Task, chain, chord, group
from kombu import Queue
from kombu.exceptions import OperationalError

import airlock
from airlock.integrations.executors.celery import CeleryExecutor
from own_brokers import GIVING_UP, OwnRedis, Proxy, soon, url
from processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def make_app(broker: str, results: str) -> tuple[Celery, Task]:
    app = Celery("down", broker=broker, backend=results, set_as_current=False)

    @app.task(name="notify", shared=False)
    def notify(told: str) -> None: ...

    return app, notify


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_was_never_there_is_one_clear_error(scheme: str) -> None:
    # The results are as down as the broker.
    port = free_port()
    _, notify = make_app(url(scheme, port), url("redis", free_port()))
    executor = CeleryExecutor()

    with soon():
        with pytest.raises(OperationalError) as raised, airlock.scope(executor=executor) as scope:
            intents = [airlock.enqueue(notify, number, _origin="orders.py:7") for number in range(6)]
        # As a DjangoScope does, which goes on with the others.
        for intent in intents[1:]:
            with pytest.raises(OperationalError):
                executor(intent)

    told = "\n".join(raised.value.__notes__)
    assert f"127.0.0.1:{port}" in told
    assert "orders.py:7" in told
    assert intents[0].id in told
    assert scope.undispatched_intents == intents


def nothing() -> None: ...


class Overriding(Task):
    def apply_async(self, *args: Any, **options: Any) -> Any:
        return super().apply_async(*args, **options)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
@pytest.mark.parametrize("kind", ["chains", "groups", "overrides", "given a policy"])
def test_only_the_first_of_a_flush_is_tried_again(scheme: str, kind: str) -> None:
    with Proxy(free_port()) as broker:
        broker.refuses = True
        app, notify = make_app(url(scheme, broker.port), "disabled://")
        override = app.task(name="override", base=Overriding, shared=False)(nothing)
        effects = {
            "chains": chain(notify.si("a"), group(notify.si("b"), notify.si("c"))),
            "groups": group(notify.si("a"), chain(notify.si("b"), notify.si("c"))),
            "overrides": override,
            "given a policy": notify.si("a"),
        }

        def asked(amount: int) -> int:
            before = broker.asked
            options = {"retry_policy": {"max_retries": 2}} if kind == "given a policy" else {}
            with airlock.scope(executor=CeleryExecutor()) as scope:
                scope.dispatch_errors = "log"
                for _ in range(amount):
                    airlock.enqueue(effects[kind], _dispatch_options=options)
            assert len(scope.undispatched_intents) == amount
            with socket.create_connection(("127.0.0.1", broker.port)) as last:
                last.recv(1)  # it is closed, and so all before it are counted
            return broker.asked - before - 1

        first, second = asked(1), asked(2)
        assert asked(5) - second == 3 * (second - first)
        assert (second - first < first) == (kind != "given a policy")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    own = OwnRedis(tmp_path)
    own.start()
    yield own
    own.stop()


def taken(app: Celery) -> list[Any]:
    with app.connection_for_read() as connection:
        waiting = Queue("celery")(connection.default_channel)
        return [message.payload[0][0] for message in iter(lambda: waiting.get(no_ack=True, accept=["json"]), None)]


def test_a_broker_that_goes_away_and_comes_back(own_redis: OwnRedis) -> None:
    app, notify = make_app(own_redis.url, own_redis.url)
    executor = CeleryExecutor()

    def flush(*numbers: int) -> None:
        with airlock.scope(executor=executor) as scope:
            scopes.append(scope)
            for number in numbers:
                airlock.enqueue(notify, number)

    scopes: list[airlock.Scope] = []
    flush(1)
    assert taken(app) == [1]

    own_redis.stop()
    with soon():
        with pytest.raises(OperationalError):
            flush(2, 3)
        with pytest.raises(OperationalError):
            flush(4)
        for intent in scopes[-2].undispatched_intents[1:]:
            with pytest.raises(OperationalError):
                executor(intent)

    own_redis.start()
    left = [intent for scope in scopes for intent in scope.undispatched_intents]
    assert [intent.args for intent in left] == [(2,), (3,), (4,)]
    with soon():
        for intent in left:
            executor(intent)
        flush(5)
    assert taken(app) == [2, 3, 4, 5]


@pytest.mark.parametrize("kind", ["task", "name", "chain", "nested", "group", "mixed", "chord", "late chord"])
def test_what_is_tried_once_arrives_as_with_delay(own_redis: OwnRedis, kind: str) -> None:
    app, notify = make_app(own_redis.url, own_redis.url)
    one, two = notify.si(1), notify.si(2)
    canvas = {
        "task": one,
        "name": app.signature("elsewhere", (1,)),
        "chain": chain(one, group(one, two)),
        "nested": type(one | two)(group(one, two), two),
        "group": group(one, two),
        "mixed": group(one | two, chord([one, two], two)),
        "chord": chord([one, two], two),
        "late chord": one | chord([one, two], two),
    }[kind]

    def arrived() -> str:
        with app.connection_for_read() as connection:
            waiting = Queue("celery")(connection.default_channel)
            messages = [(m.headers, m.body) for m in iter(lambda: waiting.get(no_ack=True, accept=["json"]), None)]
        made: dict[str, str] = {}
        uuid = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
        return re.sub(uuid, lambda match: made.setdefault(match[0], f"made-{len(made)}"), repr(messages))

    with Proxy(own_redis.port) as broker, airlock.scope(executor=CeleryExecutor()) as scope:
        broker.refuses = True
        _, lost = make_app(url("redis", broker.port), "disabled://")
        scope.dispatch_errors = "log"
        airlock.enqueue(chain(lost.si(0), lost.si(0)))
        intent = airlock.enqueue(canvas)
    together = arrived()
    canvas.apply_async(task_id=intent.id)

    assert together == arrived() != "[]"


def test_a_django_scope_logs_every_intent_once_and_soon() -> None:
    script = """
        import json, logging, sys, time
        from django.conf import settings
        settings.configure(
            INSTALLED_APPS=["airlock.integrations.django"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            AIRLOCK={"EXECUTOR": "airlock.integrations.executors.celery.celery_executor"},
        )
        import airlock, django
        from celery import Celery
        from django.db import transaction

        django.setup()
        app = Celery("down", broker=sys.argv[1], backend=sys.argv[2])
        records = []
        handler = logging.Handler()
        handler.emit = records.append
        logging.getLogger("airlock").addHandler(handler)
        notify = app.signature("notify")
        start = time.monotonic()
        with transaction.atomic():
            with airlock.scope() as scope:
                for number in range(5):
                    airlock.enqueue(notify, number, _origin=f"orders.py:{number}")
        print(json.dumps({
            "seconds": time.monotonic() - start,
            "levels": [record.levelname for record in records],
            "messages": [record.getMessage() for record in records],
            "undispatched": len(scope.undispatched_intents),
        }))
    """
    port = free_port()

    run = subprocess.run(
        [sys.executable, "-c", dedent(script), url("amqp", port), url("redis", free_port())],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["levels"] == ["ERROR"] * 5
    assert all(f"orders.py:{number}" in message for number, message in enumerate(told["messages"]))
    assert told["undispatched"] == 5
    assert told["seconds"] < GIVING_UP
