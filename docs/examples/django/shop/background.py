import airlock
from airlock.integrations.executors.django_tasks import airlock_task
from django.core.mail import send_mail
from django_tasks import task  # in Django 6: from django.tasks import task

from shop.models import Order


@task
def send_receipt(order_id):
    order = Order.objects.get(pk=order_id)
    send_mail("Your receipt", f"Order {order_id}", None, [order.email])


@task
@airlock_task  # below, right above the function
def process_order(order_id):
    airlock.enqueue(send_receipt, order_id)
    if not Order.objects.filter(pk=order_id).exists():
        raise LookupError(order_id)  # no receipt
