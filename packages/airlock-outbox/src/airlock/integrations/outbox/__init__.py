"""A transactional outbox: what the database committed is dispatched, whatever dies.

Add `"airlock.integrations.outbox"` to `INSTALLED_APPS`, set
`AIRLOCK = {"SCOPE": "airlock.integrations.outbox.OutboxScope"}`, run `migrate`, and keep one relay running.
"""

# First, as it tells Airlock from other projects, and says so.
import airlock.integrations.executors.celery  # noqa: F401

# isort: split
from typing import TYPE_CHECKING, Any

from airlock.integrations.outbox._once import OnceTask
from airlock.integrations.outbox._scope import OutboxScope

if TYPE_CHECKING:
    from airlock.integrations.outbox._status import Status, kept_entries, status

__all__ = ["OnceTask", "OutboxScope", "Status", "kept_entries", "status"]


def __getattr__(name: str) -> Any:
    # The models can be imported only when Django's apps are loaded, and this package is imported before.
    if name in ("Status", "kept_entries", "status"):
        from airlock.integrations.outbox import _status

        return getattr(_status, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
