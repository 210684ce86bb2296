"""The Django app: its system checks."""

from django.apps import AppConfig
from django.core import checks

from airlock.integrations.django._checks import check_middleware, check_setting


class AirlockConfig(AppConfig):
    name = "airlock.integrations.django"
    label = "airlock"
    verbose_name = "Airlock"

    def ready(self) -> None:
        checks.register(check_setting)
        checks.register(check_middleware)
