"""Settings that come from the tests, through the environment."""

import json
import os

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["127.0.0.1"]
DATABASES = {
    "default": {
        **json.loads(os.environ["SERVED_DATABASE"]),
        "ATOMIC_REQUESTS": json.loads(os.environ["SERVED_ATOMIC_REQUESTS"]),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["airlock.integrations.django", "served"]
MIDDLEWARE = [
    "served.middleware.witness",
    "served.streams.between_chunks",
    "airlock.integrations.django.AirlockMiddleware",
]
ROOT_URLCONF = "served.urls"
USE_TZ = True
AIRLOCK = {"EXECUTOR": "airlock.integrations.executors.celery.celery_executor"}
