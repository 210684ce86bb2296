import airlock
from airlock.integrations.celery import AirlockTask

from shop.app import app


@app.task
def send_confirmation(order_id):
    return f"confirmation of order {order_id} sent"


@app.task
def notify_warehouse(order_id):
    return f"order {order_id} packed"


@app.task(base=AirlockTask)
def process_order(order_id, card="valid"):
    confirmation = airlock.enqueue(send_confirmation, order_id)
    packing = airlock.enqueue(notify_warehouse, order_id)
    if card == "declined":
        raise ValueError("the card was declined")
    return [confirmation.id, packing.id]


@app.task
def summarise(lines):
    return ", ".join(lines)
