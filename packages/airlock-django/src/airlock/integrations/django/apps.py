"""The Django app: its system checks, and what it remembers for `manage.py airlock_explain`."""

from django.apps import AppConfig
from django.core import checks

from airlock.integrations.django._checks import check_explain, check_middleware, check_setting
from airlock.integrations.django._explain import start
from airlock.integrations.django._settings import bypass


class AirlockConfig(AppConfig):
    name = "airlock.integrations.django"
    label = "airlock"
    verbose_name = "Airlock"

    def ready(self) -> None:
        checks.register(check_setting)
        checks.register(check_middleware)
        checks.register(check_explain)
        start()
        if bypass() != "ignore":
            from airlock.integrations.celery import report_bypasses

            report_bypasses(bypass())
