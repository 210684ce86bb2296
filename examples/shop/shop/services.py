"""What the shop does with orders, and which effects that has.

The effects are said here, next to what they are effects of. Whether and when they happen is for the request or command
around it to decide, and for the database: nothing below, and no view, has to know.
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
    """Take an order and the money for it: both, or neither.

    Args:
        card: what the customer pays with.
        **details: the fields of the `Order`.

    Raises:
        DeclinedError: if the card is declined.
    """
    with transaction.atomic():
        order = _record_order(**details)
        payments.charge(card, order.total)
    return order


def preview_order(**details: Any) -> Order:
    """What an order would be: one like any other, but taken back.

    Args:
        **details: the fields of the `Order`.
    """
    with transaction.atomic():
        order = _record_order(**details)
        transaction.set_rollback(True)
    return order


def confirm(order: Order) -> None:
    """Have the customer told about an order."""
    airlock.enqueue(tasks.send_confirmation, order.pk)


def _record_order(**details: Any) -> Order:
    order = Order.objects.create(**details)
    confirm(order)
    airlock.enqueue(tasks.notify_warehouse, order.pk)
    return order
