"""The shop as the demo runs it: watched by the journal, and with all it writes in one directory."""

import os
from pathlib import Path

from shop.settings import *  # noqa: F403
from shop.settings import AIRLOCK, DATABASES, INSTALLED_APPS, MIDDLEWARE

INSTALLED_APPS = [*INSTALLED_APPS, "journal"]
MIDDLEWARE = [*MIDDLEWARE, "journal.scope.tell_scope_of_request"]
AIRLOCK = {**AIRLOCK, "SCOPE": "journal.scope.JournaledScope"}
ROOT_URLCONF = "journal.urls"

# Given by embedded.py

DIRECTORY = Path(os.environ["SHOP_DIRECTORY"])
DATABASES["default"]["NAME"] = DIRECTORY / "db.sqlite3"
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = DIRECTORY / "mail"

CELERY_BROKER_URL = os.environ["SHOP_BROKER"]
CELERY_TASK_DEFAULT_QUEUE = os.environ["SHOP_QUEUE"]
if CELERY_BROKER_URL.startswith("filesystem:"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(DIRECTORY / "messages"),
        "data_folder_out": str(DIRECTORY / "messages"),
        "processed_folder": str(DIRECTORY / "processed"),
        "control_folder": str(DIRECTORY / "control"),
        "store_processed": True,
    }
# Nobody gives this worker commands; without, it leaves nothing in a broker that is not its own.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
