"""The Celery app."""

from __future__ import annotations

import json
import os

from celery import Celery

app = Celery("relayed")
app.conf.update(json.loads(os.environ["AIRLOCK_TEST_CELERY"]))
app.autodiscover_tasks()


@app.task(name="note", ignore_result=True)
def note(what: object) -> None: ...
