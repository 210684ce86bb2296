"""Settings as a user has them; the rest comes from the tests, through the environment."""

import json
import os

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["127.0.0.1"]
DATABASES = {"default": json.loads(os.environ["ORDERING_DATABASE"])}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["ordering"]
ROOT_URLCONF = "ordering.urls"
USE_TZ = True

MIDDLEWARE = ["airlock.integrations.django.AirlockMiddleware"]
AIRLOCK = {"EXECUTOR": "airlock.integrations.executors.celery.celery_executor"}
