"""Stands in for the API of a warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shop.models import Order

#: From this quantity on, an order is large.
LARGE = 10


class BusyError(Exception):
    """The warehouse is busy. Try again later."""


def pack(order: Order, *, attempt: int) -> str:
    """Pack an order, and return the number of the packing slip.

    Args:
        order: the order to pack.
        attempt: 1 for the first attempt, 2 for the second, and so on.

    Raises:
        BusyError: the warehouse is busy. It always is at the first attempt to pack a large order.
    """
    if order.quantity >= LARGE and attempt == 1:
        raise BusyError
    return f"W-{order.pk:04}"
