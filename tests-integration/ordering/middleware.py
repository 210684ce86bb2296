from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.db.transaction import atomic, set_rollback
from django.utils.decorators import sync_and_async_middleware, sync_only_middleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

current_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


@sync_and_async_middleware
def request_id(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Keeps the id of the request where loggers find it, for as long as the request is handled."""
    if iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> Any:
            token = current_request_id.set(request.headers.get("X-Request-ID"))
            try:
                return await get_response(request)
            finally:
                current_request_id.reset(token)

    else:

        def middleware(request: HttpRequest) -> Any:
            token = current_request_id.set(request.headers.get("X-Request-ID"))
            try:
                return get_response(request)
            finally:
                current_request_id.reset(token)

    return middleware


@sync_only_middleware
def in_transaction(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Puts each request in a transaction, and rolls it back if the response says so."""

    def middleware(request: HttpRequest) -> Any:
        with atomic():
            response = get_response(request)
            if "X-Roll-Back" in response:
                set_rollback(True)
            return response

    return middleware
