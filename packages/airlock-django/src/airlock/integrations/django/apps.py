"""The Django app: checks, and `DjangoScope` for every `airlock.scope()`."""

from django.apps import AppConfig
from django.core import checks

import airlock
from airlock.integrations.django._checks import check_setting
from airlock.integrations.django._settings import make_scope


class AirlockConfig(AppConfig):
    name = "airlock.integrations.django"
    label = "airlock"
    verbose_name = "Airlock"

    def ready(self) -> None:
        checks.register(check_setting)
        if airlock.get_configuration().scope_cls is None:
            airlock.configure(scope_cls=make_scope)
