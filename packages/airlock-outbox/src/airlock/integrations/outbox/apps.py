"""The Django app: its tables, and its system checks."""

from django.apps import AppConfig
from django.core import checks


class OutboxConfig(AppConfig):
    name = "airlock.integrations.outbox"
    label = "airlock_outbox"
    verbose_name = "Airlock outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from airlock.integrations.outbox import _checks  # which needs the models

        for check in (
            _checks.check_options,
            _checks.check_scope,
            _checks.check_broker,
            _checks.check_routers,
            _checks.check_sqlite,
            _checks.check_notify,
        ):
            checks.register(check)
        checks.register(_checks.check_databases, checks.Tags.database)
