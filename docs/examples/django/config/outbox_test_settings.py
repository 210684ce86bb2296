from config.outbox_settings import *  # noqa: F403
from config.outbox_settings import AIRLOCK

AIRLOCK = {
    **AIRLOCK,
    "EXECUTOR": "airlock.integrations.executors.sync.sync_executor",
    "DISPATCH_ERRORS": "raise",
}
