from config.settings import *  # noqa: F403
from config.settings import DATABASES, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "airlock.integrations.outbox"]

AIRLOCK = {"SCOPE": "airlock.integrations.outbox.OutboxScope"}

# For SQLite; other databases need nothing here.
for database in DATABASES.values():
    database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL",
    }
