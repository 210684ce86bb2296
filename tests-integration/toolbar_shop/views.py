"""A shop whose checkout meets most of what can become of an effect."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from django.db import transaction
from django.http import HttpResponse, JsonResponse

import airlock
from toolbar_shop import tasks

if TYPE_CHECKING:
    from django.http import HttpRequest

PAGE = "<!DOCTYPE html><html><head><title>Shop</title></head><body><h1>Thank you for your order.</h1></body></html>"


class NoCarrierError(Exception):
    """Nobody would bring the parcel."""


def book_carrier(order: int) -> None:
    airlock.enqueue(tasks.reserve_parcel, order, carrier="bike")
    raise NoCarrierError


@transaction.atomic
def place_order(email: str) -> None:
    airlock.enqueue(tasks.send_confirmation, 42, email=email)
    with suppress(NoCarrierError), transaction.atomic():
        book_carrier(42)
    airlock.enqueue(tasks.add_points, "ada", points=12)


def checkout(request: HttpRequest) -> HttpResponse:
    place_order("ada@example.com")
    with airlock.policy(airlock.BlockTasks({"send_newsletter"})):
        airlock.enqueue(tasks.send_newsletter, "ada@example.com")
    return HttpResponse(PAGE)


def decline(request: HttpRequest) -> JsonResponse:
    """For a script in the page."""
    airlock.enqueue(tasks.send_confirmation, 43, email="ada@example.com")
    return JsonResponse({"error": "The card was declined."}, status=402)
