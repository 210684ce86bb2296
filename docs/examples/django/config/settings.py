from pathlib import Path

BASE_DIR = Path(__file__).parents[1]

SECRET_KEY = "only for this example"
ROOT_URLCONF = "config.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend"}}

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "shop.sqlite3",
    },
    "stock": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "stock.sqlite3",
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"airlock": {"handlers": ["console"], "level": "INFO"}},
}

# What Airlock needs:
INSTALLED_APPS = [
    "airlock.integrations.django",
    "shop",
]

MIDDLEWARE = [
    "airlock.integrations.django.AirlockMiddleware",
    "django.middleware.common.CommonMiddleware",
]

CELERY_BROKER_URL = "redis://localhost:6379/0"
