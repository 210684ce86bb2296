"""Airlock for Django: effects that wait for the response and the transaction.

Add `"airlock.integrations.django.AirlockMiddleware"` to `MIDDLEWARE`, and, for the system checks,
`"airlock.integrations.django"` to `INSTALLED_APPS`.
"""

try:
    from airlock import Scope as _Scope  # noqa: F401
except ImportError as error:
    raise ImportError(
        "airlock-django found a module `airlock` that is not the one of airlock-core. Uninstall the distribution "
        "`airlock`, which is an unrelated project, then run: pip install --force-reinstall airlock-core"
    ) from error

from airlock.integrations.django import _no_scope, _transactions  # noqa: F401 - they register themselves
from airlock.integrations.django._command import airlock_command
from airlock.integrations.django._middleware import AirlockMiddleware, AirlockRequest
from airlock.integrations.django._scope import DjangoScope

__all__ = ["AirlockMiddleware", "AirlockRequest", "DjangoScope", "airlock_command"]
