"""Settings of the shop: those of a new Django project, and, first, what Airlock needs."""

from pathlib import Path

BASE_DIR = Path(__file__).parents[1]

# Airlock

INSTALLED_APPS = [
    "airlock.integrations.django",
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
    "EXECUTOR": "airlock.integrations.executors.celery.celery_executor",
    # Every intent knows the line that enqueued it. Without this it does so only if DEBUG is on.
    "CAPTURE_ORIGIN": True,
}

# Celery: read by shop/celery.py

CELERY_BROKER_URL = "redis://127.0.0.1:6379/0"

# Django

SECRET_KEY = "an example, so this is no secret"
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
        # The web server and the worker write to one file: a transaction takes its turn when it begins, or it might
        # find out halfway that another was faster.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL", "timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
TIME_ZONE = "UTC"
USE_TZ = True
