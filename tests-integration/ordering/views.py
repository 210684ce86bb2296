"""Views that place an order and enqueue its confirmation, and then end in every way there is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.transaction import atomic
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse

import airlock
from ordering.celery import confirm
from ordering.models import Order

if TYPE_CHECKING:
    from collections.abc import Callable


class RefusedError(Exception):
    pass


def place(number: str) -> None:
    Order.objects.create(number=number)
    airlock.enqueue(confirm, number=number)


def good(number: str) -> HttpResponse:
    with atomic():
        place(number)
    return HttpResponse()


def autocommit(number: str) -> HttpResponse:
    place(number)
    return HttpResponse()


def redirects(number: str) -> HttpResponse:
    with atomic():
        place(number)
    return HttpResponseRedirect("/elsewhere")


def enqueues_before_it_saves(number: str) -> HttpResponse:
    with atomic():
        airlock.enqueue(confirm, number=number)
        Order.objects.create(number=number)
    return HttpResponse()


def commits_and_answers_400(number: str) -> HttpResponse:
    with atomic():
        place(number)
    return HttpResponse(status=400)


def commits_and_answers_404(number: str) -> HttpResponse:
    with atomic():
        place(number)
    raise Http404


def commits_and_answers_503(number: str) -> HttpResponse:
    with atomic():
        place(number)
    return HttpResponse(status=503)


def commits_and_raises(number: str) -> HttpResponse:
    with atomic():
        place(number)
    raise RefusedError


def raises_in_the_transaction(number: str) -> HttpResponse:
    with atomic():
        place(number)
        raise RefusedError


def catches_what_left_the_transaction(number: str) -> HttpResponse:
    with suppress(RefusedError), atomic():
        place(number)
        raise RefusedError
    return HttpResponse()


def sets_rollback(number: str) -> HttpResponse:
    with atomic():
        place(number)
        transaction.set_rollback(True)
    return HttpResponse()


def rolls_back_a_savepoint(number: str) -> HttpResponse:
    """Two orders, of which the second does not stay."""
    with atomic():
        place(number)
        with suppress(RefusedError), atomic():
            place(f"{number}-dropped")
            raise RefusedError
    return HttpResponse()


def publishes_by_itself(number: str) -> HttpResponse:
    """What Airlock is there to avoid; it shows that the witness tells the difference."""
    with atomic():
        Order.objects.create(number=number)
        confirm.delay(number=number)
    return HttpResponse()


ENDINGS: dict[str, Callable[[str], HttpResponse]] = {
    view.__name__: view
    for view in [
        good,
        autocommit,
        redirects,
        enqueues_before_it_saves,
        commits_and_answers_400,
        commits_and_answers_404,
        commits_and_answers_503,
        commits_and_raises,
        raises_in_the_transaction,
        catches_what_left_the_transaction,
        sets_rollback,
        rolls_back_a_savepoint,
        publishes_by_itself,
    ]
}


def sync_view(request: HttpRequest, ending: str, number: str) -> HttpResponse:
    return ENDINGS[ending](number)


@transaction.non_atomic_requests
def non_atomic_view(request: HttpRequest, ending: str, number: str) -> HttpResponse:
    return ENDINGS[ending](number)


@transaction.non_atomic_requests  # Django has no ATOMIC_REQUESTS for async views
async def async_view(request: HttpRequest, ending: str, number: str) -> HttpResponse:
    return await sync_to_async(ENDINGS[ending])(number)


def rolls_back_the_request(request: HttpRequest, number: str) -> HttpResponse:
    """For ATOMIC_REQUESTS: nothing but the transaction says that it failed."""
    place(number)
    transaction.set_rollback(True)
    return HttpResponse()


@transaction.non_atomic_requests
async def enqueues_in_the_event_loop(request: HttpRequest, status: int, number: str) -> HttpResponse:
    await Order.objects.acreate(number=number)
    airlock.enqueue(confirm, number=number)
    return HttpResponse(status=status)


def several(request: HttpRequest, number: str) -> JsonResponse:
    """Some effects, of which one cannot be serialised, if so asked."""
    intents = []
    with atomic():
        Order.objects.create(number=number)
        for _ in range(3):
            intents.append(airlock.enqueue(confirm, number=number))
            if "broken" in request.GET:
                intents.append(airlock.enqueue(confirm, number=number, broken=Path, _origin="views.py:7"))
    return JsonResponse({"ids": [intent.id for intent in intents]})


@transaction.non_atomic_requests
async def slow_to_publish(request: HttpRequest, number: str) -> HttpResponse:
    """Publishing tells that it has begun, and waits until it is let go on."""
    await Order.objects.acreate(number=number)
    airlock.enqueue(confirm, number=number, _dispatch_options={"headers": {"meanwhile": request.GET["meanwhile"]}})
    return HttpResponse()


@transaction.non_atomic_requests
async def lets_go_on(request: HttpRequest) -> HttpResponse:
    Path(f"{request.GET['meanwhile']}.go_on").touch()
    return HttpResponse()
