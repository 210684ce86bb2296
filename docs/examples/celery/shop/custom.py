import airlock
from airlock import BlockTasks, Intent
from airlock.integrations.celery import AirlockTask
from celery.exceptions import Ignore

from shop.app import app
from shop.tasks import notify_warehouse, send_confirmation


class QuietTask(AirlockTask):
    """Its runs send no e-mails if the task was sent with the header `quiet`."""

    def get_policy(self):
        if (self.request.headers or {}).get("quiet"):
            return BlockTasks({"send_confirmation"})
        return None


audit: list[Intent] = []


class AuditedTask(AirlockTask):
    """Notes what its runs enqueue, and sends nothing."""

    def get_executor(self):
        return audit.append


class ReplaceableTask(AirlockTask):
    """What its runs enqueue before `self.replace()` goes out."""

    def should_flush(self, error):
        return error is None or isinstance(error, Ignore)


@app.task(base=QuietTask)
def ship(order_id):
    airlock.enqueue(send_confirmation, order_id)
    airlock.enqueue(notify_warehouse, order_id)


@app.task(base=AuditedTask)
def rehearse(order_id):
    airlock.enqueue(notify_warehouse, order_id)


@app.task(base=ReplaceableTask, bind=True)
def reroute(self, order_id):
    airlock.enqueue(send_confirmation, order_id)
    return self.replace(notify_warehouse.si(order_id))
