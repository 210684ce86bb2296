"""The Celery app, as Celery's guide for Django has it, with tasks that use the database."""

from __future__ import annotations

import json
import os
import sys

from django.db import transaction

import airlock
from airlock.integrations.celery import AirlockTask, LegacyTaskShim
from celery_orders import make_app

if os.environ.get("AIRLOCK_TEST_WITHOUT_AIRLOCK_DJANGO"):
    # What an import of a distribution that is not installed comes to.
    sys.modules["airlock.integrations.django"] = None  # type: ignore[assignment]

os.environ["DJANGO_SETTINGS_MODULE"] = "django_orders.settings"
app = make_app(json.loads(os.environ["AIRLOCK_TEST_CELERY"]))
app.set_default()


@app.task(name="ship", base=LegacyTaskShim)
def ship(told: str) -> None: ...


@app.task(name="place", base=AirlockTask)
def place(effects: str, how: str) -> None:
    def enqueue(told: object) -> None:
        airlock.enqueue(app.tasks["notify"], told, _dispatch_options={"queue": effects})

    enqueue("before")
    with transaction.atomic():
        enqueue("in the transaction")
        if "calls on commit" in how:
            ship.apply_async_on_commit(("on commit",), queue=effects)
        if "is rolled back" in how:
            transaction.set_rollback(True)
    enqueue("after")
    if how == "cannot be serialised":
        enqueue(object())
        enqueue("last")
    if "fails" in how:
        raise ValueError("no")


def executor_of_the_project(intent: airlock.Intent) -> None:
    told = f"by the project's executor: {intent.args[0]}"
    app.tasks["notify"].apply_async((told,), **intent.dispatch_options)
