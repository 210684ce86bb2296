from airlock.integrations.celery import LegacyTaskShim

from shop.app import app
from shop.tasks import notify_warehouse, send_confirmation


@app.task
def fulfil(order_id):
    send_confirmation.delay(order_id)
    notify_warehouse.apply_async((order_id,), priority=9)
    if order_id == 13:
        raise LookupError("out of stock")


@app.task(base=LegacyTaskShim)
def remind(order_id):
    return f"reminder of order {order_id} sent"
