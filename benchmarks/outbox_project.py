"""The Django project that `outbox.py` measures, in all of its processes, and the ways to publish from a transaction."""

from __future__ import annotations

import logging
import os
import secrets
from functools import partial
from time import perf_counter
from typing import Any
from uuid import uuid4

import django
import structlog
from celery import Celery
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from django_celery_outbox import OutboxCelery
from psycopg.conninfo import conninfo_to_dict

import airlock

REDIS = os.environ.get("AIRLOCK_TEST_REDIS", "redis://127.0.0.1:6379/0")
POSTGRESQL = os.environ.get("AIRLOCK_TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres")
#: The name of the database, and what the names of the queues begin with. Relays inherit it.
RUN = os.environ.setdefault("AIRLOCK_BENCHMARK_RUN", f"airlock_test_{secrets.token_hex(6)}")

_address = conninfo_to_dict(POSTGRESQL)
settings.configure(
    SECRET_KEY=RUN,
    USE_TZ=True,
    INSTALLED_APPS=["airlock.integrations.django", "airlock.integrations.outbox", "django_celery_outbox"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": RUN,
            "USER": _address.get("user", ""),
            "PASSWORD": _address.get("password", ""),
            "HOST": _address.get("host", ""),
            "PORT": _address.get("port", ""),
            # Else the other relay would connect anew twice for each batch.
            "CONN_MAX_AGE": None,
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    AIRLOCK={"SCOPE": "airlock.integrations.outbox.OutboxScope", "OUTBOX": {}},
    CELERY_OUTBOX_APP="outbox_project.other_app",
    # Neither is to pay for monitoring: by default the other one sends UDP packets, and logs to the terminal.
    MONITORING_METRICS_ENABLED=False,
    LOGGING_CONFIG=None,
)
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
django.setup()


def notify(order_id: int, retry: bool) -> None:
    """Nobody runs it."""


def _task(app: Celery, queue: str) -> Any:
    app.conf.task_default_queue = f"{RUN}.{queue}"
    return app.task(name="shop.notify", shared=False)(notify)


other_app = OutboxCelery("other", broker=REDIS, set_as_current=False)
notify_plain = _task(Celery("plain", broker=REDIS, set_as_current=False), "plain")
notify_theirs = _task(other_app, "theirs")
notify_ours = _task(Celery("ours", broker=REDIS), "ours")


class Transaction:
    """A transaction with one INSERT of a project's own and some intents."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.began = perf_counter()
        #: When the COMMIT had returned, and when the request would go on.
        self.committed = self.ended = 0.0

    def begin(self) -> None:
        transaction.on_commit(self._note_commit)
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO shop_order (customer, total) VALUES (%s, %s)", ["Ada", 12])

    def _note_commit(self) -> None:
        self.committed = perf_counter()

    def end(self) -> Transaction:
        self.ended = perf_counter()
        return self


def without(intents: int) -> Transaction:
    done = Transaction()
    with transaction.atomic():
        done.begin()
    return done.end()


def plain(intents: int) -> Transaction:
    done = Transaction()

    def delay(number: int) -> None:
        done.ids.append(notify_plain.delay(number, retry=True).id)

    with transaction.atomic():
        done.begin()
        for number in range(intents):
            transaction.on_commit(partial(delay, number))
    return done.end()


def theirs(intents: int) -> Transaction:
    done = Transaction()
    with transaction.atomic():
        done.begin()
        for number in range(intents):
            done.ids.append(notify_theirs.delay(number, retry=True).id)
    return done.end()


def ours(intents: int) -> Transaction:
    done = Transaction()
    with airlock.scope(), transaction.atomic():
        done.begin()
        for number in range(intents):
            done.ids.append(airlock.enqueue(notify_ours, number, retry=True).id)
    return done.end()


class _Nowhere:
    """Takes what Celery publishes."""

    serializer = None
    connection = notify_ours.app.producer_pool.connections.connection

    def publish(self, *args: Any, **kwargs: Any) -> None:
        pass


def floor(intents: int) -> Transaction:
    """The least that an outbox of messages pays: Celery makes each, and one INSERT writes rows as long as ours."""
    done = Transaction()
    with transaction.atomic():
        done.begin()
        params: list[Any] = []
        for number in range(intents):
            done.ids.append(task_id := str(uuid4()))
            options = {"task_id": task_id, "producer": _Nowhere(), "ignore_result": True}
            notify_ours.apply_async((number,), {"retry": True}, **options)
            params += [task_id, timezone.now(), True, "shop.notify", "x" * 1100]
        columns = "id, created, held, task, payload, due, attempts, version, error"
        row = "(%s, %s, %s, %s, %s, now() + INTERVAL '300 seconds', 0, 1, '')"
        with connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO airlock_outbox ({columns}) VALUES {', '.join([row] * intents)}", params)
    return done.end()


def ours_by_relay(intents: int) -> Transaction:
    """Without the fast path, as it is when the broker was down."""
    settings.AIRLOCK["OUTBOX"]["FAST_PATH_SECONDS"] = 0
    try:
        return ours(intents)
    finally:
        settings.AIRLOCK["OUTBOX"].clear()
