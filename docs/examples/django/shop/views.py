import airlock
from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpResponse

from shop.models import Order
from shop.tasks import notify_warehouse, send_confirmation


def place_order(email):
    """Knows nothing about requests, and works with or without a transaction."""
    order = Order.objects.create(email=email)
    airlock.enqueue(send_confirmation, order.pk)
    airlock.enqueue(notify_warehouse, order.pk)
    return order


@transaction.atomic
def checkout(request):
    order = place_order(request.POST["email"])
    if request.POST.get("card") == "declined":
        transaction.set_rollback(True)
        return HttpResponse("Your card was declined.", status=402)
    return HttpResponse(f"Thank you for order {order.pk}.")


async def checkout_async(request):
    order = await sync_to_async(place_order)(request.POST["email"])
    return HttpResponse(f"Thank you for order {order.pk}.")
