import airlock
from airlock.integrations.executors.django_q import airlock_task
from django.core.mail import send_mail

from shop.models import Order


def send_receipt(order_id):
    order = Order.objects.get(pk=order_id)
    send_mail("Your receipt", f"Order {order_id}", None, [order.email])


@airlock_task
def process_order(order_id):
    airlock.enqueue(send_receipt, order_id)
    if not Order.objects.filter(pk=order_id).exists():
        raise LookupError(order_id)  # no receipt
