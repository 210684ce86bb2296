"""The Django project that `outbox.py` measures, in all of its processes."""

from __future__ import annotations

import logging
import os
import secrets

import django
import structlog
from celery import Celery
from django.conf import settings
from django_celery_outbox import OutboxCelery
from psycopg.conninfo import conninfo_to_dict

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
    CELERY_OUTBOX_APP="outbox_project.theirs",
    # Neither is to pay for monitoring: by default the other one sends UDP packets, and logs to the terminal.
    MONITORING_METRICS_ENABLED=False,
    LOGGING_CONFIG=None,
)
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
django.setup()


def notify(order_id: int, retry: bool) -> None:
    """Nobody runs it."""


def _task(app: Celery, queue: str) -> object:
    app.conf.task_default_queue = f"{RUN}.{queue}"
    return app.task(name="shop.notify", shared=False)(notify)


plain = Celery("plain", broker=REDIS, set_as_current=False)
theirs = OutboxCelery("theirs", broker=REDIS, set_as_current=False)
ours = Celery("ours", broker=REDIS)
notify_plain, notify_theirs, notify_ours = _task(plain, "plain"), _task(theirs, "theirs"), _task(ours, "ours")
