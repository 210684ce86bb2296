"""Stands in for a payment provider. It has test cards, as real ones do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models

if TYPE_CHECKING:
    from decimal import Decimal


class Card(models.TextChoices):
    GOOD = "4242424242424242", "4242 (good)"
    DECLINED = "4000000000000002", "0002 (declined)"
    BROKEN = "4000000000000119", "0119 (the payment provider fails)"


class DeclinedError(Exception):
    """The bank refuses to pay."""


def charge(card: Card, amount: Decimal) -> None:
    """Take money from a card.

    Raises:
        DeclinedError: if the card is declined.
        ConnectionError: if the payment provider fails.
    """
    match card:
        case Card.DECLINED:
            raise DeclinedError(f"The card was declined for {amount} €.")
        case Card.BROKEN:
            raise ConnectionError("The payment provider hung up.")
