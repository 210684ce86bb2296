from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models

if TYPE_CHECKING:
    from decimal import Decimal


class Product(models.Model):
    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    #: The task `update_analytics` counts this.
    sold = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.name} ({self.price} €)"


class Order(models.Model):
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    quantity = models.PositiveIntegerField()
    email = models.EmailField()
    placed_at = models.DateTimeField(auto_now_add=True)
    #: When the task `send_confirmation` last mailed the customer.
    confirmed_at = models.DateTimeField(null=True)
    #: The number that the task `notify_warehouse` got from the warehouse.
    packing_slip = models.CharField(max_length=20, blank=True)

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product.name}"

    @property
    def total(self) -> Decimal:
        return self.quantity * self.product.price
