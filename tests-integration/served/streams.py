"""Views for test_streams: bodies that wait for the test between their chunks."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.utils.decorators import sync_and_async_middleware

import airlock
from served.effects import enqueue
from served.messages import hear, hear_async, tell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

# A body yields its chunks (bytes), and what it waits to hear about (str). From each, a sync and an async one are made.


def waits(request: HttpRequest) -> Iterator[bytes | str]:
    for chunk in ("first", "last"):
        enqueue(request, chunk)
        tell(f"{request.GET['name']}: produced", chunk)
        yield chunk.encode()
        yield "go on"


def fails(request: HttpRequest) -> Iterator[bytes | str]:
    enqueue(request, "first")
    yield b"first"
    yield "go on"
    raise KeyError


def goes_on_and_on(request: HttpRequest) -> Iterator[bytes | str]:
    enqueue(request, "first")
    tell(f"{request.GET['name']}: produced", "first")
    yield b"first"
    yield "go on"
    for _ in range(500):
        yield bytes(100_000)


def is_large(request: HttpRequest) -> Iterator[bytes | str]:
    enqueue(request, "first")
    yield bytes(50_000_000)
    yield "go on"


def is_interleaved(request: HttpRequest) -> Iterator[bytes | str]:
    for step in ("first", "last"):
        enqueue(request, step)
        yield step.encode()
        if request.GET["name"].endswith("failing"):
            raise KeyError


BODIES = [waits, fails, goes_on_and_on, is_large, is_interleaved]


def sync_view(body: Callable[[HttpRequest], Iterator[bytes | str]]) -> Callable[[HttpRequest], StreamingHttpResponse]:
    def chunks(request: HttpRequest) -> Iterator[bytes]:
        for step in body(request):
            if isinstance(step, bytes):
                yield step
            else:
                hear(f"{request.GET['name']}: {step}")

    def view(request: HttpRequest) -> StreamingHttpResponse:
        enqueue(request, "view")
        return StreamingHttpResponse(chunks(request), status=int(request.GET.get("status", 200)))

    return view


def async_view(body: Callable[[HttpRequest], Iterator[bytes | str]]) -> Callable[[HttpRequest], Any]:
    async def chunks(request: HttpRequest) -> AsyncIterator[bytes]:
        for step in body(request):
            if isinstance(step, bytes):
                yield step
            else:
                await hear_async(f"{request.GET['name']}: {step}")

    async def view(request: HttpRequest) -> StreamingHttpResponse:
        enqueue(request, "view")
        return StreamingHttpResponse(chunks(request), status=int(request.GET.get("status", 200)))

    return view


# Bodies that have something to do when they are closed


def _clean_up(request: HttpRequest) -> None:
    error = None
    try:
        enqueue(request, "cleanup")
    except airlock.AirlockError as refused:
        error = type(refused).__name__
    tell(f"{request.GET['name']}: cleaned up", error)


def sync_closed(request: HttpRequest) -> StreamingHttpResponse:
    def chunks() -> Iterator[bytes]:
        try:
            yield b"first"
            hear(f"{request.GET['name']}: go on")
            while True:
                yield bytes(100_000)
        finally:
            _clean_up(request)

    return StreamingHttpResponse(chunks())


async def async_closed(request: HttpRequest) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await hear_async(f"{request.GET['name']}: go on")
        finally:
            _clean_up(request)

    return StreamingHttpResponse(chunks())


async def async_forgotten(request: Any) -> StreamingHttpResponse:
    # A cycle, so that the body is closed when garbage is collected next: by the view below.
    gc.disable()
    request.response = response = await async_closed(request)
    return response


async def collects_garbage(request: HttpRequest) -> HttpResponse:
    enqueue(request, "of another request")
    gc.enable()
    gc.collect()
    await hear_async(f"{request.GET['name']}: go on")
    return HttpResponse()


urlpatterns = [
    *(path(f"sync/{body.__name__}", sync_view(body)) for body in BODIES),
    *(path(f"async/{body.__name__}", async_view(body)) for body in BODIES),
    path("sync/closed", sync_closed),
    path("async/closed", async_closed),
    path("async/forgotten", async_forgotten),
    path("collects_garbage", collects_garbage),
]


@sync_and_async_middleware
def between_chunks(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Has effects of its own between the chunks of streams, if asked for by `?between=`."""

    def has_effect(request: HttpRequest) -> None:
        try:
            enqueue(request, "no scope, so never")
        except airlock.NoScopeError:
            with airlock.scope():
                enqueue(request, "between")

    def intersperse(request: HttpRequest, response: Any) -> Any:
        if response.streaming and "between" in request.GET:
            chunks = response.streaming_content
            response.streaming_content = (interspersed_async if response.is_async else interspersed)(request, chunks)
        return response

    def interspersed(request: HttpRequest, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            has_effect(request)
            yield chunk

    async def interspersed_async(request: HttpRequest, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            has_effect(request)
            yield chunk
            if request.GET["between"] == "waits":
                await hear_async(f"{request.GET['name']}: go on")

    if iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> Any:
            return intersperse(request, await get_response(request))

    else:

        def middleware(request: HttpRequest) -> Any:
            return intersperse(request, get_response(request))

    return middleware
