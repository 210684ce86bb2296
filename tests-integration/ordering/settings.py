"""Settings as a user has them. What differs between the tests comes through the environment."""

import json
import os

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["127.0.0.1"]
DATABASES = {"default": json.loads(os.environ["ORDERING_DATABASE"])}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["airlock.integrations.django", "ordering"]
ROOT_URLCONF = "ordering.urls"
USE_TZ = True

MIDDLEWARE = [
    "ordering.middleware.request_id",
    *json.loads(os.environ.get("ORDERING_MIDDLEWARE", '["airlock.integrations.django.AirlockMiddleware"]')),
]
AIRLOCK = {
    "EXECUTOR": "airlock.integrations.executors.celery.celery_executor"
    if "AIRLOCK_TEST_CELERY" in os.environ
    else "airlock.integrations.executors.sync.sync_executor"
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"airlock": {"handlers": ["console"], "level": "INFO"}},
}
