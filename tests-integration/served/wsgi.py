from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from served.over import asked, handlers, tell_of_end, tell_of_leaks

from django.core.handlers.wsgi import WSGIHandler  # isort: skip - after django.setup()

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_handlers = handlers(WSGIHandler)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    query = asked(environ["QUERY_STRING"])
    tell_of_leaks(query)
    if environ["PATH_INFO"] == "/interleaved":
        return _interleaved(environ, start_response)
    response = _handlers[query.get("placement", "")](environ, start_response)
    return _Response(response, lambda: tell_of_end(query, environ["served.request"]))


class _Response:
    def __init__(self, response: Any, closed: Callable[[], None]) -> None:
        self._response = response
        self._closed = closed

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._response)

    def close(self) -> None:
        self._response.close()
        self._closed()


def _interleaved(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """The streams of several requests as one: a chunk of each in turn, all in one thread."""
    query = asked(environ["QUERY_STRING"])

    def respond(name: str) -> Any:
        changed = {
            "PATH_INFO": "/streams/sync/is_interleaved",
            "QUERY_STRING": f"{environ['QUERY_STRING']}&name={name}",
        }
        return application({**environ, **changed}, lambda *_: None)

    responses = [respond(name) for name in query["names"].split(",")]
    start_response("200 OK", [("Content-Type", "text/plain")])
    for chunk in chain.from_iterable(zip_longest(*map(_until_it_fails, responses), fillvalue=b"")):
        tell_of_leaks(query)
        yield chunk
    for response in responses:
        response.close()


def _until_it_fails(response: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from response
    except KeyError:
        yield b"failed"
