"""A transactional outbox: what the database committed is dispatched, whatever dies.

Add `"airlock.integrations.outbox"` to `INSTALLED_APPS`, set
`AIRLOCK = {"SCOPE": "airlock.integrations.outbox.OutboxScope"}`, run `migrate`, and keep one relay running.
"""

from typing import TYPE_CHECKING, Any

from airlock.integrations.outbox._scope import OutboxScope

if TYPE_CHECKING:
    from airlock.integrations.outbox._once import OnceTask

__all__ = ["OnceTask", "OutboxScope"]


def __getattr__(name: str) -> Any:
    # Web processes that only enqueue need no class of tasks.
    if name == "OnceTask":
        from airlock.integrations.outbox._once import OnceTask

        return OnceTask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
