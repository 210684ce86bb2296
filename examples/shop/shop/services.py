"""What the shop does with orders.

The effects are enqueued here, beside the code that causes them. The request or command around this code, and the
database, decide whether they happen. Neither these functions nor the views have to care.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import airlock
from django.db import transaction

from shop import payments, tasks
from shop.models import Order

if TYPE_CHECKING:
    from shop.payments import Card


def place_order(*, card: Card, **details: Any) -> Order:
    """Record an order and charge the card: both, or neither.

    Args:
        card: the card to charge.
        **details: the fields of the `Order`.

    Raises:
        DeclinedError: if the card is declined.
    """
    with transaction.atomic():
        order = _record_order(**details)
        payments.charge(card, order.total)
    return order


def preview_order(**details: Any) -> Order:
    """Record an order, to see what it would come to, and roll it back.

    Args:
        **details: the fields of the `Order`.
    """
    with transaction.atomic():
        order = _record_order(**details)
        transaction.set_rollback(True)
    return order


def confirm(order: Order) -> None:
    """Mail the customer about an order."""
    airlock.enqueue(tasks.send_confirmation, order.pk)


def _record_order(**details: Any) -> Order:
    order = Order.objects.create(**details)
    confirm(order)
    airlock.enqueue(tasks.notify_warehouse, order.pk)
    return order
