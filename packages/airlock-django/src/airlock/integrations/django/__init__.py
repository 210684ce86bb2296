"""Airlock for Django: effects that wait for the response and the transaction.

Add `"airlock.integrations.django.AirlockMiddleware"` to `MIDDLEWARE`, and, for the system checks and to make every
`airlock.scope()` a `DjangoScope`, `"airlock.integrations.django"` to `INSTALLED_APPS`.
"""

# First, as it tells Airlock from other projects, and says so.
try:
    import airlock.integrations.executors.sync  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        "airlock-django needs airlock-core, and it is not there. Run: pip install --force-reinstall airlock-core"
    ) from error

from airlock.integrations.django._command import airlock_command
from airlock.integrations.django._middleware import AirlockMiddleware
from airlock.integrations.django._scope import DjangoScope
from airlock.integrations.django._settings import make_scope

__all__ = ["AirlockMiddleware", "DjangoScope", "airlock_command", "make_scope"]
