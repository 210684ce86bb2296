"""Airlock for Celery: tasks whose follow-ups wait for their success, and a way there from `.delay()`."""

# First, as it tells Airlock from other projects, and says so.
import airlock.integrations.executors.celery  # noqa: F401

# isort: split
from airlock.integrations.celery._bypasses import report_bypasses
from airlock.integrations.celery._migration import (
    LegacyTaskShim,
    install_global_intercept,
    uninstall_global_intercept,
)
from airlock.integrations.celery._task import AirlockTask

__all__ = [
    "AirlockTask",
    "LegacyTaskShim",
    "install_global_intercept",
    "report_bypasses",
    "uninstall_global_intercept",
]
