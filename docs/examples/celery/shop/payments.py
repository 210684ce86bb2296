import airlock
from airlock.integrations.celery import AirlockTask

from shop.app import app
from shop.tasks import notify_warehouse, send_confirmation


@app.task(
    base=AirlockTask,
    bind=True,
    autoretry_for=(ConnectionError,),
    max_retries=3,
    default_retry_delay=1,
)
def charge(self, order_id):
    airlock.enqueue(send_confirmation, order_id)
    airlock.enqueue(notify_warehouse, order_id)
    if self.request.retries < 2:
        raise ConnectionError("the bank does not answer")
    return self.request.retries
