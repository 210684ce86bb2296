from config.settings import *  # noqa: F403
from config.settings import DATABASES, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "airlock.integrations.outbox"]

AIRLOCK = {"SCOPE": "airlock.integrations.outbox.OutboxScope"}

# For Redis, which is waited for without end otherwise. RabbitMQ needs nothing here.
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 10, "socket_connect_timeout": 10}

# For SQLite; other databases need nothing here.
for database in DATABASES.values():
    database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL",
    }
