"""Settings that a test chooses in part."""

import os

SECRET_KEY = "only for tests"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["AIRLOCK_TEST_DATABASE"]}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["airlock.integrations.django", "airlock.integrations.outbox", "django_q"]
SILENCED_SYSTEM_CHECKS = ["airlock.W002"]  # it has no requests
AIRLOCK = {
    "SCOPE": "airlock.integrations.outbox.OutboxScope",
    "EXECUTOR": os.environ["AIRLOCK_TEST_EXECUTOR"],
    "OUTBOX": {"MAX_ATTEMPTS": 1},  # so an outage must not cost one
}
Q_CLUSTER = {"name": "queued", "redis": os.environ["AIRLOCK_TEST_QUEUES"], "timeout": 30, "retry": 60}
