from typing import Any

from airlock.integrations.django import airlock_command
from django.core.management.base import BaseCommand, CommandParser

from shop import services
from shop.models import Order


class Command(BaseCommand):
    help = "Send the confirmations of all orders of a customer again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email")

    @airlock_command  # adds --dry-run
    def handle(self, *, email: str, **options: Any) -> None:
        for order in Order.objects.filter(email=email).order_by("pk"):
            services.confirm(order)
            self.stdout.write(f"Order {order.pk}: {order}")
