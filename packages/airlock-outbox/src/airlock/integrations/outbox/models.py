"""The tables of the outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

#: The format of the payloads that this version writes. It reads this one and all older ones.
VERSION = 1


class Entry(models.Model):
    """An intent that the database has agreed to, and that the broker may not have yet.

    `_states.py` says what its fields mean together.
    """

    #: That of the intent, which is the id of the Celery task, too.
    id: models.UUIDField[Any, UUID] = models.UUIDField(primary_key=True, editable=False)
    #: By the clock of the process that wrote it. Entries that were written together lie a microsecond apart, in order.
    created: models.DateTimeField[Any, datetime] = models.DateTimeField()
    #: When it may be taken, by the clock of the database. Null: parked.
    due: models.DateTimeField[Any, datetime | None] = models.DateTimeField(null=True)
    #: Whether the scope that it was enqueued in had not ended: nobody has decided about it yet.
    held: models.BooleanField[Any, bool] = models.BooleanField()
    lease: models.UUIDField[Any, UUID | None] = models.UUIDField(null=True)
    #: How often a relay has tried to dispatch it.
    attempts: models.PositiveSmallIntegerField[Any, int] = models.PositiveSmallIntegerField(default=0)
    #: The full name of the task.
    task: models.CharField[Any, str] = models.CharField(max_length=255)
    #: The format of the payload.
    version: models.PositiveSmallIntegerField[Any, int] = models.PositiveSmallIntegerField(default=VERSION)
    #: What to dispatch: signed JSON.
    payload: models.TextField[Any, str] = models.TextField()
    #: Why the last attempt failed: of a relay, or before, of the process that enqueued it.
    error: models.TextField[Any, str] = models.TextField(default="", blank=True)

    class Meta:
        db_table = "airlock_outbox"
        ordering = ("created",)
        verbose_name = "outbox entry"
        verbose_name_plural = "outbox entries"
        default_permissions = ("view", "change", "delete")
        permissions = (("view_payload", "Can view what an outbox entry dispatches"),)
        # Relays look for what is due, in this order. MariaDB locks more than it must if these are not its very columns.
        indexes = (models.Index(fields=["due", "created"], name="airlock_outbox_due"),)

    def __str__(self) -> str:
        return f"{self.task} ({self.id})"


class InboxEntry(models.Model):
    """A run of a task that was effective once: it is not to be run again."""

    #: The id of the Celery task.
    id: models.CharField[Any, str] = models.CharField(primary_key=True, max_length=255)
    created: models.DateTimeField[Any, datetime] = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "airlock_inbox"
        verbose_name = "inbox entry"
        verbose_name_plural = "inbox entries"
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.id


class PausedTask(models.Model):
    """A task that is not dispatched for the time being."""

    #: Its full name.
    task: models.CharField[Any, str] = models.CharField(primary_key=True, max_length=255)
    since: models.DateTimeField[Any, datetime] = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "airlock_outbox_paused"
        verbose_name = "paused task"
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.task
