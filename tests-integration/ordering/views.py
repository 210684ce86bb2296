"""Views that place an order, and then end in every way there is."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async
from django.db import IntegrityError, transaction
from django.db.transaction import atomic
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse

import airlock
from ordering.effects import enqueue, place
from ordering.models import Order

if TYPE_CHECKING:
    from collections.abc import Callable


class RefusedError(Exception):
    pass


def good(number: str) -> HttpResponse:
    with atomic():
        place(number)
    return HttpResponse()


def autocommit(number: str) -> HttpResponse:
    place(number)
    return HttpResponse()


def redirects(number: str) -> HttpResponse:
    with airlock.scope():
        place(number)
    return HttpResponseRedirect("/elsewhere")


def enqueues_before_it_saves(number: str) -> HttpResponse:
    with atomic():
        enqueue(number)
        Order.objects.create(number=number)
    return HttpResponse()


def rolls_back_a_savepoint(number: str) -> HttpResponse:
    with atomic():
        place(number)
        with suppress(RefusedError), atomic():
            enqueue(number, "never")
            raise RefusedError
    return HttpResponse()


def commits_and_answers_400(number: str) -> HttpResponse:
    good(number)
    return HttpResponse(status=400)


def commits_and_answers_404(number: str) -> HttpResponse:
    good(number)
    raise Http404


def commits_and_raises(number: str) -> HttpResponse:
    good(number)
    raise RefusedError


def raises_in_the_transaction(number: str) -> HttpResponse:
    with atomic():
        place(number)
        raise RefusedError


def catches_what_left_the_transaction(number: str) -> HttpResponse:
    with suppress(RefusedError):
        raises_in_the_transaction(number)
    return HttpResponse()


def sets_rollback(number: str) -> HttpResponse:
    with atomic():
        place(number)
        transaction.set_rollback(True)
    return HttpResponse()


def fails_at_commit(number: str) -> HttpResponse:
    with suppress(IntegrityError), atomic():
        place(number, follows_id=0)
    return HttpResponse()


def rolls_back_the_request(number: str) -> HttpResponse:
    place(number)
    if transaction.get_connection().in_atomic_block:  # ATOMIC_REQUESTS
        transaction.set_rollback(True)
    return HttpResponse()


def tells_the_middleware_to_roll_back(number: str) -> HttpResponse:
    place(number)
    return HttpResponse(headers={"X-Roll-Back": "yes"})


def enters_a_scope_and_forgets_it(number: str) -> HttpResponse:
    airlock.scope().enter()
    return HttpResponse()


ENDINGS: dict[str, Callable[[str], HttpResponse]] = {
    view.__name__: view
    for view in [
        good,
        autocommit,
        redirects,
        enqueues_before_it_saves,
        rolls_back_a_savepoint,
        commits_and_answers_400,
        commits_and_answers_404,
        commits_and_raises,
        raises_in_the_transaction,
        catches_what_left_the_transaction,
        sets_rollback,
        fails_at_commit,
        rolls_back_the_request,
        tells_the_middleware_to_roll_back,
        enters_a_scope_and_forgets_it,
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


@transaction.non_atomic_requests
async def enqueues_in_the_event_loop(request: HttpRequest, status: int, number: str) -> HttpResponse:
    await Order.objects.acreate(number=number)
    enqueue(number)
    return HttpResponse(status=status)


def sends_celery_tasks(request: HttpRequest, number: str) -> JsonResponse:
    """Every second of its effects cannot be serialised."""
    from ordering.celery import confirm

    with atomic():
        Order.objects.create(number=number)
        intents = [airlock.enqueue(confirm, number=given, _origin="views.py:7") for given in (number, object()) * 2]
    return JsonResponse({"ids": [intent.id for intent in intents]})
