"""The tables of the outbox."""

from typing import Any

from django.db import migrations, models


def have_it_vacuumed(apps: object, schema_editor: Any) -> None:
    """On PostgreSQL: entries come and go, so that the table is small, and most of it dead, soon after each vacuum."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "ALTER TABLE airlock_outbox SET ("
            "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0)"
        )


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="InboxEntry",
            fields=[
                ("id", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("created", models.DateTimeField(db_index=True)),
            ],
            options={
                "verbose_name": "inbox entry",
                "verbose_name_plural": "inbox entries",
                "db_table": "airlock_inbox",
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="PausedTask",
            fields=[
                ("task", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("since", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "verbose_name": "paused task",
                "db_table": "airlock_outbox_paused",
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="Entry",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("created", models.DateTimeField()),
                ("due", models.DateTimeField(null=True)),
                ("held", models.BooleanField()),
                ("lease", models.UUIDField(null=True)),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("task", models.CharField(max_length=255)),
                ("version", models.PositiveSmallIntegerField(default=1)),
                ("payload", models.TextField()),
                ("error", models.TextField(blank=True, default="")),
            ],
            options={
                "verbose_name": "outbox entry",
                "verbose_name_plural": "outbox entries",
                "db_table": "airlock_outbox",
                "ordering": ("created",),
                "permissions": (("view_payload", "Can view what an outbox entry dispatches"),),
                "default_permissions": ("view", "change", "delete"),
                "indexes": [models.Index(fields=["due", "created"], name="airlock_outbox_due")],
            },
        ),
        migrations.RunPython(have_it_vacuumed, migrations.RunPython.noop),
    ]
