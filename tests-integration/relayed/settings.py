"""Settings that a test chooses in part."""

import json
import os

USE_TZ = True
SECRET_KEY = "of a test"
INSTALLED_APPS = ["airlock.integrations.django", "airlock.integrations.outbox"]
SILENCED_SYSTEM_CHECKS = ["airlock.W002"]  # it has no requests
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,  # those of Celery
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"airlock": {"handlers": ["console"], "level": "INFO"}},
}
DATABASES = {"default": json.loads(os.environ["AIRLOCK_TEST_DATABASE"])}
AIRLOCK = {
    "SCOPE": "airlock.integrations.outbox.OutboxScope",
    "OUTBOX": json.loads(os.environ["AIRLOCK_TEST_OUTBOX"]),
}
