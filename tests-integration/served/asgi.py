from __future__ import annotations

from typing import TYPE_CHECKING, Any

from served.messages import tell
from served.over import asked, handlers, tell_of_end, tell_of_leaks

from django.core.handlers.asgi import ASGIHandler  # isort: skip - after django.setup()

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_handlers = handlers(ASGIHandler)


async def application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[Any], Awaitable[None]]
) -> None:
    query = asked(scope["query_string"])
    tell_of_leaks(query)

    async def listen() -> dict[str, Any]:
        message = await receive()
        if message["type"] == "http.disconnect" and "name" in query:
            tell(f"{query['name']}: client gone")
        return message

    try:
        await _handlers[query.get("placement", "")](scope, listen, send)
    finally:
        tell_of_end(query, scope["served.request"])
