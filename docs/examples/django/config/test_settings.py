from config.settings import *  # noqa: F403

AIRLOCK = {
    "EXECUTOR": "airlock.integrations.executors.sync.sync_executor",
    "DISPATCH_ERRORS": "raise",
}
