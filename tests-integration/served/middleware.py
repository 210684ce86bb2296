from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.utils.decorators import sync_and_async_middleware

from served.messages import tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest


@sync_and_async_middleware
def witness(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Gives `over` the requests, whose scopes that looks at, and tells of those that are cancelled."""

    def give(request: Any) -> None:
        (request.scope if hasattr(request, "scope") else request.environ)["served.request"] = request

    if iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> Any:
            give(request)
            try:
                return await get_response(request)
            except asyncio.CancelledError:
                tell(f"{request.GET['name']}: cancelled")
                raise

    else:

        def middleware(request: HttpRequest) -> Any:
            give(request)
            return get_response(request)

    return middleware
