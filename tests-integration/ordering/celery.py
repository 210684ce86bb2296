"""The Celery app."""

import json
import os

from celery import Celery

app = Celery("ordering")
app.conf.update(json.loads(os.environ["AIRLOCK_TEST_CELERY"]))


@app.task
def confirm(number: str) -> None:
    """Confirm an order."""
