"""System checks of the setting `AIRLOCK`."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error

from airlock.integrations.django._settings import problems


def check_setting(**_: Any) -> list[CheckMessage]:
    return [Error(problem.problem, hint=problem.hint, id=problem.check_id) for problem in problems()]
