"""A transactional outbox: what the database committed is dispatched, whatever dies.

Add `"airlock.integrations.outbox"` to `INSTALLED_APPS`, set
`AIRLOCK = {"SCOPE": "airlock.integrations.outbox.OutboxScope"}`, run `migrate`, and keep one relay running.
"""

from airlock.integrations.outbox._scope import OutboxScope

__all__ = ["OutboxScope"]
