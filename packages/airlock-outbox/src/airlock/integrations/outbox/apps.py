"""The Django app: its tables, and its system checks."""

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    name = "airlock.integrations.outbox"
    label = "airlock_outbox"
    verbose_name = "Airlock outbox"
    default_auto_field = "django.db.models.BigAutoField"
