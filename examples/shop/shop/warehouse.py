"""Stands in for the API of a warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shop.models import Order

LARGE = 10


class BusyError(Exception):
    """The warehouse takes no order now, and asks to be tried again."""


def pack(order: Order, *, attempt: int) -> str:
    """Have an order packed.

    Args:
        order: what to pack.
        attempt: 1 at first, and 1 more whenever it is tried again.

    Returns:
        The number of the packing slip.

    Raises:
        BusyError: if the warehouse is busy, as it is at first whenever a large order comes in.
    """
    if order.quantity >= LARGE and attempt == 1:
        raise BusyError
    return f"W-{order.pk:04}"
