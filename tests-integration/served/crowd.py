"""Views for test_crowd: requests that end in every way there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db.transaction import atomic, set_rollback
from django.db.utils import IntegrityError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.urls import path

import airlock
from served.effects import enqueue
from served.models import Order

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from django.http.response import HttpResponseBase


class RefusedError(Exception):
    pass


def order(request: HttpRequest, **fields: Any) -> None:
    """Write an order, and want an effect of it."""
    number = request.GET["number"]
    Order.objects.create(number=number, **fields)
    enqueue(request, number)


# Good ones


def commits(request: HttpRequest) -> HttpResponse:
    with atomic():
        order(request)
    enqueue(request, request.GET["number"] + " again")
    return HttpResponse()


def autocommits(request: HttpRequest) -> HttpResponse:
    order(request)
    return HttpResponse(status=201)


def redirects(request: HttpRequest) -> HttpResponse:
    with airlock.scope():
        order(request)
    return HttpResponseRedirect("/")


def rolls_a_part_back(request: HttpRequest) -> HttpResponse:
    with atomic():
        order(request)
        try:
            with atomic():
                enqueue(request, request.GET["number"] + " rolled back")
                raise RefusedError
        except RefusedError:
            return HttpResponse()


# Bad ones


def raises(request: HttpRequest) -> HttpResponse:
    order(request)
    raise RefusedError


def raises_in_transaction(request: HttpRequest) -> HttpResponse:
    with atomic():
        order(request)
        raise RefusedError


def refuses(request: HttpRequest) -> HttpResponse:
    with atomic():
        order(request)
    return HttpResponse(status=400)


def is_unavailable(request: HttpRequest) -> HttpResponse:
    order(request)
    return HttpResponse(status=503)


def rolls_back(request: HttpRequest) -> HttpResponse:
    with atomic():
        order(request)
        set_rollback(True)
    return HttpResponse()


def fails_at_commit(request: HttpRequest) -> HttpResponse:
    try:
        with atomic():
            order(request, follows_id=0)
    except IntegrityError:
        return HttpResponse()
    raise AssertionError("it is checked at COMMIT")


# Good or bad: streams


def _chunks(request: HttpRequest) -> Iterator[bytes]:
    yield b"first"
    enqueue(request, request.GET["number"] + " streamed")
    if "fails" in request.GET:
        raise RefusedError
    yield b"last"


def streams(request: HttpRequest) -> StreamingHttpResponse:
    order(request)
    return StreamingHttpResponse(_chunks(request))


async def streams_async(request: HttpRequest) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in _chunks(request):
            yield chunk

    await sync_to_async(order)(request)
    return StreamingHttpResponse(chunks())


def _async(view: Callable[[HttpRequest], HttpResponseBase]) -> Any:
    async def async_view(request: HttpRequest) -> HttpResponseBase:
        return await sync_to_async(view)(request)

    return async_view


VIEWS: list[Any] = [
    commits,
    autocommits,
    redirects,
    rolls_a_part_back,
    raises,
    raises_in_transaction,
    refuses,
    is_unavailable,
    rolls_back,
    fails_at_commit,
    streams,
]
urlpatterns = [path(f"sync/{view.__name__}", view) for view in VIEWS]
urlpatterns += [path(f"async/{view.__name__}", streams_async if view is streams else _async(view)) for view in VIEWS]
