"""Views and middleware for test_transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db import connection
from django.db.transaction import atomic, non_atomic_requests, set_rollback
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.utils.decorators import sync_only_middleware

from served.effects import enqueue
from served.messages import hear, tell
from served.models import Order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _in_transaction(name: str) -> Callable[[Any], Any]:
    """A middleware that runs requests in a transaction, and does with it what they ask for, such as `?raises=outer`."""

    @sync_only_middleware
    def middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
        def respond(request: HttpRequest) -> Any:
            with atomic():
                response = get_response(request)
                if request.GET.get("holds") == name:
                    tell(f"{request.GET['name']}: held")
                    hear(f"{request.GET['name']}: go on")
                if request.GET.get("rolls_back") == name:
                    set_rollback(True)
                if request.GET.get("raises") == name:
                    raise KeyError
                if request.GET.get("fails_at_commit") == name:
                    Order.objects.create(follows_id=0)
            return response

        return respond

    return middleware


outer = _in_transaction("outer")
inner = _in_transaction("inner")

OUTER, AIRLOCK, INNER = (
    "served.transactions.outer",
    "airlock.integrations.django.AirlockMiddleware",
    "served.transactions.inner",
)
PLACEMENTS = {
    "before": [AIRLOCK, OUTER, INNER],
    "between": [OUTER, AIRLOCK, INNER],
    "after": [OUTER, INNER, AIRLOCK],
}


def place_order(request: HttpRequest) -> HttpResponse:
    """Answers whether it was in a transaction, or fails as asked for by `?view=`."""
    in_transaction = connection.in_atomic_block
    Order.objects.create(number=request.GET["name"])
    enqueue(request, "order")
    try:
        with atomic():
            enqueue(request, "never")
            raise KeyError
    except KeyError:
        enqueue(request, "order, too")
    how = request.GET.get("view")
    if how == "raises":
        raise KeyError
    if how == "refuses":
        return HttpResponse(status=400)
    if how == "rolls back":
        set_rollback(True)
    return HttpResponse(str(in_transaction))


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def chunks() -> Iterator[bytes]:
        enqueue(request, "body")
        try:
            with atomic():
                enqueue(request, "never")
                raise KeyError
        except KeyError:
            yield str(connection.in_atomic_block).encode()

    place_order(request)
    return StreamingHttpResponse(chunks())


@non_atomic_requests
def non_atomic(request: HttpRequest) -> HttpResponse:
    return place_order(request)


@non_atomic_requests
async def non_atomic_async(request: HttpRequest) -> HttpResponse:
    return await sync_to_async(place_order)(request)


urlpatterns = [path(view.__name__, view) for view in (place_order, stream, non_atomic, non_atomic_async)]
