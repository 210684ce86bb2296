"""Settings of the shop. What Airlock needs comes first; the rest is as in any Django project."""

from pathlib import Path

BASE_DIR = Path(__file__).parents[1]

# Airlock

INSTALLED_APPS = [
    "airlock.integrations.django",
    "airlock.integrations.outbox",
    "shop",
]
MIDDLEWARE = [
    "airlock.integrations.django.AirlockMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
AIRLOCK = {
    # What is enqueued is written into the database, too: nothing is lost if a process dies, or the broker is down.
    "SCOPE": "airlock.integrations.outbox.OutboxScope",
    "EXECUTOR": "airlock.integrations.executors.celery.celery_executor",
    # Record the line that enqueued each intent, also without DEBUG.
    "CAPTURE_ORIGIN": True,
}

# Celery: read by shop/celery.py

CELERY_BROKER_URL = "redis://127.0.0.1:6379/0"
# Without these, a Redis that never answers is waited for without end.
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 10, "socket_connect_timeout": 10}

# Django

SECRET_KEY = "not a secret, because this is an example"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "db.sqlite3",
        # The web server and the worker share this file. A transaction that locks it at the start waits for its turn;
        # one that locks it later can fail with "database is locked".
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL", "timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
TIME_ZONE = "UTC"
USE_TZ = True
