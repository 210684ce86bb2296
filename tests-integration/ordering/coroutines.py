"""Views with asyncio tasks and threads, and views that are slow."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db.transaction import atomic, set_rollback
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

import airlock
from ordering.effects import confirm, confirm_slowly, enqueue, place, tell, wait_for, wait_for_async

#: So that asyncio keeps the tasks.
BACKGROUND: list[Any] = []


async def gather(request: HttpRequest, number: str) -> HttpResponse:
    async def step(name: str, fails: bool = False) -> None:
        async with airlock.scope():
            enqueue(number, name)
            await asyncio.sleep(0)
            if fails:
                raise KeyError

    await asyncio.gather(step("a"), step("never", fails=True), step("b"), return_exceptions=True)
    return HttpResponse()


async def threads(request: HttpRequest, number: str) -> HttpResponse:
    """Each thread has transactions of its own."""

    def in_transaction(name: str, rolls_back: bool = False) -> None:
        with atomic():
            enqueue(number, name)
            set_rollback(rolls_back)

    await sync_to_async(in_transaction)("Django's thread")
    await sync_to_async(in_transaction)("never", rolls_back=True)
    await asyncio.to_thread(in_transaction, "any thread")
    await asyncio.to_thread(in_transaction, "never", rolls_back=True)
    return HttpResponse()


def coroutine_in_transaction(request: HttpRequest, number: str) -> HttpResponse:
    async def service(name: str) -> None:
        await sync_to_async(place)(f"{number}{name[:1]}", name)
        enqueue(number, name)

    with atomic():
        async_to_sync(service)("coroutine")
    with atomic():
        async_to_sync(service)("never")
        set_rollback(True)
    return HttpResponse()


def enqueue_too_late(number: str) -> None:
    try:
        enqueue(number, "too late")
    except airlock.ScopeStateError:
        tell(f"{number}.refused")


async def background_task(request: HttpRequest, number: str) -> HttpResponse:
    async def later() -> None:
        await wait_for_async(f"{number}.go-on")
        enqueue_too_late(number)
        async with airlock.scope():
            enqueue(number, "background")

    enqueue(number, "view")
    BACKGROUND.append(asyncio.create_task(later()))
    return HttpResponse()


def background_task_of_a_sync_view(request: HttpRequest, number: str) -> HttpResponse:
    async def later() -> None:
        await wait_for_async(f"{number}.go-on")
        async with airlock.scope():
            enqueue(number, "background")

    async def start() -> None:
        BACKGROUND.append(asyncio.create_task(later()))

    async_to_sync(start)()
    enqueue(number, "view")
    return HttpResponse()


def background_thread(request: HttpRequest, number: str) -> HttpResponse:
    def later() -> None:
        wait_for(f"{number}.go-on")
        enqueue_too_late(number)

    enqueue(number, "view")
    threading.Thread(target=contextvars.copy_context().run, args=[later], daemon=True).start()
    return HttpResponse()


async def waits(request: HttpRequest, number: str) -> HttpResponse:
    enqueue(number)
    tell(f"{number}.begun")
    await wait_for_async(f"{number}.go-on")
    return HttpResponse()


def waits_in_thread(request: HttpRequest, number: str) -> HttpResponse:
    place(number)
    tell(f"{number}.begun")
    wait_for(f"{number}.go-on")
    enqueue_too_late(number)
    return HttpResponse()


def enqueue_slow(number: str) -> None:
    enqueue(number, "before")
    airlock.enqueue(confirm_slowly, number)
    airlock.enqueue(confirm, number, "after")


async def slow_dispatch(request: HttpRequest, number: str) -> HttpResponse:
    enqueue_slow(number)
    return HttpResponse()


def slow_dispatch_of_sync_view(request: HttpRequest, number: str) -> HttpResponse:
    enqueue_slow(number)
    return HttpResponse()


async def slow_dispatch_of_stream(request: HttpRequest, number: str) -> StreamingHttpResponse:
    async def chunks() -> Any:
        enqueue_slow(number)
        yield b"all"

    return StreamingHttpResponse(chunks())


async def slow_dispatch_of_block(request: HttpRequest, number: str) -> HttpResponse:
    async with airlock.detached():
        enqueue_slow(number)
    return HttpResponse()


async def lets_go_on(request: HttpRequest, number: str) -> HttpResponse:
    """Lets a slow one go on, if the event loop is there to answer this request."""
    tell(f"{number}.go-on")
    return HttpResponse()


VIEWS: list[Any] = [
    gather,
    threads,
    coroutine_in_transaction,
    background_task,
    background_task_of_a_sync_view,
    background_thread,
    waits,
    waits_in_thread,
    slow_dispatch,
    slow_dispatch_of_sync_view,
    slow_dispatch_of_stream,
    slow_dispatch_of_block,
    lets_go_on,
]
