"""A Django project whose tasks are in its database."""

import os
import sys

SECRET_KEY = "only for tests"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["AIRLOCK_TEST_TASKS"]}}
INSTALLED_APPS = ["airlock.integrations.django", "django_tasks_db"]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
MIDDLEWARE = ["airlock.integrations.django.AirlockMiddleware"]
# As where airlock-celery is not installed: no executor is configured.
sys.modules["airlock.integrations.executors.celery"] = None
