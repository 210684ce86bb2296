"""The Celery app, as the guides of tenant-schemas-celery and django-structlog have it: `celery -A tenancy.celery`."""

from __future__ import annotations

import json
import os

import structlog
from django.db import connection
from django_structlog.celery.steps import DjangoStructLogInitStep
from tenant_schemas_celery.app import CeleryApp

import airlock
from tenancy.tasks import TenantAirlockTask

# As it is, standard output would go through Celery's log.
_settings = {"worker_redirect_stdouts": False, **json.loads(os.environ["AIRLOCK_TEST_CELERY"])}
del _settings["signals"]

app = CeleryApp("tenancy")
app.conf.update(_settings)
app.steps["worker"].add(DjangoStructLogInitStep)
app.set_default()

structlog.configure(processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()])


@app.task(name="pack", base=TenantAirlockTask)
def pack() -> tuple[str, str]:
    """Return the schema that the database is at, and the id of a task that is enqueued here."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schema()")
        return str(cursor.fetchone()[0]), airlock.enqueue(ship).id


@app.task(name="ship")
def ship() -> str:
    """Log a line, and return the schema that the database is at."""
    structlog.get_logger().info("shipped")
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schema()")
        return str(cursor.fetchone()[0])
