"""The tasks that the worker runs."""

from __future__ import annotations

from typing import Any

import airlock
from airlock.integrations.celery import AirlockTask
from django.core.mail import send_mail
from django.db.models import F
from django.utils import timezone

from shop import warehouse
from shop.celery import app
from shop.models import Order, Product


@app.task
def send_confirmation(order_id: int) -> None:
    order = Order.objects.select_related("product").get(pk=order_id)
    send_mail(
        subject=f"Your order {order.pk}",
        message=f"Thank you for ordering {order}. It comes to {order.total} €.",
        from_email="shop@example.org",
        recipient_list=[order.email],
    )
    order.confirmed_at = timezone.now()
    order.save(update_fields=["confirmed_at"])


@app.task(base=AirlockTask, bind=True, autoretry_for=(warehouse.BusyError,), default_retry_delay=1)
def notify_warehouse(self: Any, order_id: int) -> None:
    order = Order.objects.get(pk=order_id)
    # Dispatched only if this run succeeds. If the warehouse is busy, the run is retried, and the order is counted once.
    airlock.enqueue(update_analytics, order.pk)
    order.packing_slip = warehouse.pack(order, attempt=self.request.retries + 1)
    order.save(update_fields=["packing_slip"])


@app.task
def update_analytics(order_id: int) -> None:
    order = Order.objects.get(pk=order_id)
    Product.objects.filter(pk=order.product_id).update(sold=F("sold") + order.quantity)
