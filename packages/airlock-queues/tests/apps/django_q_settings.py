"""A Django project with Django-Q2, whose broker is the database, so that what fails is tried again."""

import json
import os

SECRET_KEY = "only for tests"
USE_TZ = True
DATABASES = {"default": json.loads(os.environ["AIRLOCK_TEST_DATABASE"])}
INSTALLED_APPS = ["django_q"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
Q_CLUSTER = {"name": "tests", "orm": "default", "workers": 1, "timeout": 1, "retry": 2, "max_attempts": 3, "poll": 0.05}
