"""Views with streaming bodies. Each view has an effect, and so has each of the first chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import HttpRequest, StreamingHttpResponse

from ordering.effects import enqueue, place, wait_for, wait_for_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


def response(request: HttpRequest, chunks: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(chunks, status=int(request.GET.get("status", 200)))


def waits(request: HttpRequest, number: str) -> StreamingHttpResponse:
    def chunks() -> Iterator[bytes]:
        place(number, "first")
        yield b"first"
        wait_for(f"{number}.go-on")
        enqueue(number, "last")
        yield b"last"

    enqueue(number, "view")
    return response(request, chunks())


async def waits_async(request: HttpRequest, number: str) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[bytes]:
        enqueue(number, "first")
        yield b"first"
        await wait_for_async(f"{number}.go-on")
        enqueue(number, "last")
        yield b"last"

    enqueue(number, "view")
    return response(request, chunks())


def fails(request: HttpRequest, number: str) -> StreamingHttpResponse:
    def chunks() -> Iterator[bytes]:
        enqueue(number, "first")
        yield b"first"
        raise KeyError(number)

    enqueue(number, "view")
    return response(request, chunks())


async def fails_async(request: HttpRequest, number: str) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in fails(request, number):
            yield chunk

    return response(request, chunks())


def never_ends(request: HttpRequest, number: str) -> StreamingHttpResponse:
    """What it enqueues while it is closed belongs to its scope."""

    def chunks() -> Iterator[bytes]:
        try:
            enqueue(number, "first")
            while True:
                yield bytes(100_000)
        finally:
            enqueue(number, "cleanup")

    return response(request, chunks())


async def never_ends_async(request: HttpRequest, number: str) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[bytes]:
        try:
            enqueue(number, "first")
            while True:
                yield bytes(100_000)
        finally:
            enqueue(number, "cleanup")

    return response(request, chunks())


VIEWS: dict[str, Callable[..., Any]] = {
    "sync/waits": waits,
    "async/waits": waits_async,
    "sync/fails": fails,
    "async/fails": fails_async,
    "sync/never-ends": never_ends,
    "async/never-ends": never_ends_async,
}
