"""A transactional outbox: what the database committed is dispatched, whatever dies.

Add `"airlock.integrations.outbox"` to `INSTALLED_APPS`, set
`AIRLOCK = {"SCOPE": "airlock.integrations.outbox.OutboxScope"}`, run `migrate`, and keep one relay running.
"""

# First, as it tells Airlock from other projects, and says so.
import airlock.integrations.executors.celery  # noqa: F401

# isort: split
from airlock.integrations.outbox._once import OnceTask
from airlock.integrations.outbox._scope import OutboxScope

__all__ = ["OnceTask", "OutboxScope"]
