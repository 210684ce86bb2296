"""Airlock for Django: effects that wait for the response and the transaction.

Add `"airlock.integrations.django.AirlockMiddleware"` to `MIDDLEWARE`, and `"airlock.integrations.django"` to
`INSTALLED_APPS`: for the system checks, and so that scripts and shells know the setting and the transactions, too.
"""

# First, as it tells Airlock from other projects, and says so.
try:
    import airlock.integrations.executors.sync  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        "airlock-django needs airlock-core, and it is not there. Run: pip install --force-reinstall airlock-core"
    ) from error

from airlock.integrations.django import _no_scope, _settings, _transactions  # noqa: F401 - they register themselves
from airlock.integrations.django._command import airlock_command
from airlock.integrations.django._language import remember_language
from airlock.integrations.django._middleware import AirlockMiddleware, AirlockRequest
from airlock.integrations.django._scope import DjangoScope
from airlock.integrations.django._transactions import DjangoTransaction

__all__ = [
    "AirlockMiddleware",
    "AirlockRequest",
    "DjangoScope",
    "DjangoTransaction",
    "airlock_command",
    "remember_language",
]
