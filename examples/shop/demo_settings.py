"""Settings of the demo: the shop, with the journal added and all its files in one directory."""

import os
from pathlib import Path

from shop.settings import *  # noqa: F403
from shop.settings import AIRLOCK, DATABASES, INSTALLED_APPS, MIDDLEWARE

# The journal comes first, so that its templates can extend the shop's.
INSTALLED_APPS = ["journal", *INSTALLED_APPS]
MIDDLEWARE = ["journal.watch.watch_request", *MIDDLEWARE, "journal.watch.die_after_commit"]
AIRLOCK = {
    **AIRLOCK,
    # For `manage.py airlock_explain` and the toolbar, in a cache that outlives the broker.
    "EXPLAIN": {"CACHE": "explain"},
    # Nobody wants to watch a demo for the usual five minutes until the relay takes over what a dead process has left.
    # And on a slow machine, it should not take over what is only slow.
    "OUTBOX": {"HOLD_SECONDS": 5, "FAST_PATH_SECONDS": 20},
}
# The short hold, and messages in files.
SILENCED_SYSTEM_CHECKS = ["airlock.outbox.W001", "airlock.outbox.W003"]
ROOT_URLCONF = "journal.urls"

if os.environ.get("SHOP_TOOLBAR"):  # `python demo.py serve --toolbar` sets this for its web server
    DEBUG = True
    INTERNAL_IPS = ["127.0.0.1"]
    STATIC_URL = "/static/"
    INSTALLED_APPS += ["django.contrib.staticfiles", "debug_toolbar"]
    # Around the scope of a request, of which it shows the end.
    MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware", *MIDDLEWARE]
    DEBUG_TOOLBAR_PANELS = [
        "debug_toolbar.panels.history.HistoryPanel",
        "airlock.integrations.django.toolbar.AirlockPanel",
        "debug_toolbar.panels.sql.SQLPanel",
    ]

# embedded.py sets these environment variables.

DIRECTORY = Path(os.environ["SHOP_DIRECTORY"])
DATABASES["default"]["NAME"] = DIRECTORY / "db.sqlite3"
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "explain": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": DIRECTORY / "explain"},
}
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = DIRECTORY / "mail"

CELERY_BROKER_URL = os.environ["SHOP_BROKER"]
CELERY_TASK_DEFAULT_QUEUE = os.environ["SHOP_QUEUE"]
if not CELERY_BROKER_URL.startswith("redis"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {}
if CELERY_BROKER_URL.startswith("filesystem:"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(DIRECTORY / "messages"),
        "data_folder_out": str(DIRECTORY / "messages"),
        "processed_folder": str(DIRECTORY / "processed"),
        "control_folder": str(DIRECTORY / "control"),
        "store_processed": True,
    }
# Nobody sends this worker commands. Without remote control it creates no extra queues in somebody's broker.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
