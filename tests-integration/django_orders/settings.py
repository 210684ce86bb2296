"""Settings that a test chooses in part."""

import json
import os

USE_TZ = True
SECRET_KEY = "of a test"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["AIRLOCK_TEST_SQLITE"]}}
globals().update(json.loads(os.environ["AIRLOCK_TEST_SETTINGS"]))
