import airlock
from airlock.integrations.celery import AirlockTask
from celery import shared_task
from django.core.mail import send_mail

from shop.models import Order, Parcel


@shared_task
def send_confirmation(order_id):
    order = Order.objects.get(pk=order_id)
    send_mail("Your order", f"We have received order {order.pk}.", None, [order.email])


@shared_task
def send_reminder(order_id):
    order = Order.objects.get(pk=order_id)
    send_mail("Your order", f"Please pay for order {order.pk}.", None, [order.email])


@shared_task(base=AirlockTask)
def notify_warehouse(order_id):
    parcel = Parcel.objects.create(order_id=order_id)
    airlock.enqueue(print_label, parcel.pk)


@shared_task
def print_label(parcel_id):
    print(f"label for parcel {parcel_id}")
