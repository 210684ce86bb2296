import airlock
from airlock.integrations.django import airlock_command
from django.core.management.base import BaseCommand

from shop.models import Order
from shop.tasks import send_reminder


class Command(BaseCommand):
    help = "Remind customers of orders they have not paid."

    @airlock_command
    def handle(self, **options):
        for order in Order.objects.filter(paid=False):
            airlock.enqueue(send_reminder, order.pk)
