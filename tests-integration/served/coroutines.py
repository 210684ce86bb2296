"""Views for test_coroutines."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db.transaction import atomic
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

import airlock
from served.effects import enqueue
from served.messages import hear, hear_async, tell
from served.models import Order

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


# Concurrency inside of a request


async def _step(request: HttpRequest, name: str, *, fails: bool = False) -> None:
    enqueue(request, f"{name} begins")
    await asyncio.sleep(0)
    if fails:
        raise KeyError
    enqueue(request, f"{name} ends")


async def gather(request: HttpRequest) -> HttpResponse:
    await asyncio.gather(*(_step(request, name) for name in "abc"))
    return HttpResponse()


async def task_group(request: HttpRequest) -> HttpResponse:
    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(_step(request, name))
    return HttpResponse()


async def task_group_with_scopes(request: HttpRequest) -> HttpResponse:
    async def in_scope(name: str) -> None:
        async with airlock.scope():
            await _step(request, name, fails=name == "b")

    try:
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(in_scope(name))
    except* KeyError:
        pass
    return HttpResponse()


async def gather_that_fails(request: HttpRequest) -> HttpResponse:
    async def goes_on() -> None:
        await hear_async(f"{request.GET['name']}: go on")
        _enqueue_too_late(request)

    _BACKGROUND.append(asyncio.ensure_future(goes_on()))
    await asyncio.gather(_step(request, "a", fails=True), _BACKGROUND[-1])
    return HttpResponse()


def _in_transaction(request: HttpRequest, name: str, *, rolls_back: bool = False) -> None:
    try:
        with atomic():
            Order.objects.create(number=name)
            enqueue(request, name)
            if rolls_back:
                raise KeyError
    except KeyError:
        enqueue(request, f"{name} rolled back")


async def threads(request: HttpRequest) -> HttpResponse:
    await sync_to_async(_in_transaction)(request, "in Django's thread")
    await sync_to_async(_in_transaction)(request, "first never", rolls_back=True)
    await sync_to_async(_in_transaction, thread_sensitive=False)(request, "in any thread")
    await asyncio.to_thread(_in_transaction, request, "second never", rolls_back=True)
    await asyncio.gather(
        sync_to_async(_in_transaction, thread_sensitive=False)(request, "one of two"),
        sync_to_async(_in_transaction, thread_sensitive=False)(request, "third never", rolls_back=True),
    )
    return HttpResponse()


def coroutine_in_sync_view(request: HttpRequest) -> HttpResponse:
    async def coroutine() -> None:
        enqueue(request, "coroutine")
        async with airlock.scope():
            await asyncio.gather(_step(request, "a"), _step(request, "b"))
        await sync_to_async(_in_transaction)(request, "thread")
        await sync_to_async(_in_transaction)(request, "never", rolls_back=True)

    with atomic():
        async_to_sync(coroutine)()
    enqueue(request, "view")
    return HttpResponse()


# What outlives its request

_BACKGROUND: list[Any] = []


def _enqueue_too_late(request: HttpRequest) -> None:
    try:
        enqueue(request, "too late")
    except airlock.AirlockError as error:
        tell(f"{request.GET['name']}: refused", f"{type(error).__name__}: {error}")
    else:
        tell(f"{request.GET['name']}: refused", "taken")


async def _later(request: HttpRequest) -> None:
    await hear_async(f"{request.GET['name']}: go on")
    _enqueue_too_late(request)


async def background_task(request: HttpRequest) -> HttpResponse:
    enqueue(request, "view")
    _BACKGROUND.append(asyncio.create_task(_later(request)))
    return HttpResponse()


async def background_task_of_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[bytes]:
        enqueue(request, "body")
        _BACKGROUND.append(asyncio.create_task(_later(request)))
        yield b"all"

    return StreamingHttpResponse(chunks())


def background_thread(request: HttpRequest) -> HttpResponse:
    def later() -> None:
        hear(f"{request.GET['name']}: go on")
        _enqueue_too_late(request)

    enqueue(request, "view")
    threading.Thread(target=contextvars.copy_context().run, args=[later], daemon=True).start()
    return HttpResponse()


async def background_task_with_a_scope(request: HttpRequest) -> HttpResponse:
    async def later() -> None:
        await hear_async(f"{request.GET['name']}: go on")
        try:
            async with airlock.scope():
                enqueue(request, "background")
        finally:
            tell(f"{request.GET['name']}: background is done")

    enqueue(request, "view")
    _BACKGROUND.append(asyncio.create_task(later()))
    return HttpResponse()


# What waits


async def waits(request: HttpRequest) -> HttpResponse:
    enqueue(request, "view")
    tell(f"{request.GET['name']}: begun")
    await hear_async(f"{request.GET['name']}: go on")
    return HttpResponse()


def waits_in_thread(request: HttpRequest) -> HttpResponse:
    with atomic():
        Order.objects.create(number="of a client that is gone")
        enqueue(request, "before")
        tell(f"{request.GET['name']}: begun")
        hear(f"{request.GET['name']}: go on")
        _enqueue_too_late(request)
    return HttpResponse()


def slow(name: str) -> None:
    """Not a task of Celery's, so its executor calls it in place."""
    tell(f"{name}: dispatching")
    hear(f"{name}: go on")
    tell(f"{name}: dispatched")


def _enqueue_slow(request: HttpRequest) -> None:
    enqueue(request, "before")
    airlock.enqueue(slow, request.GET["name"])
    enqueue(request, "after")


async def slow_dispatch(request: HttpRequest) -> HttpResponse:
    _enqueue_slow(request)
    return HttpResponse()


def slow_dispatch_of_sync_view(request: HttpRequest) -> HttpResponse:
    _enqueue_slow(request)
    return HttpResponse()


async def slow_dispatch_of_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[bytes]:
        _enqueue_slow(request)
        yield b"all"

    return StreamingHttpResponse(chunks())


async def slow_dispatch_of_block(request: HttpRequest) -> HttpResponse:
    async with airlock.detached():
        _enqueue_slow(request)
    return HttpResponse()


async def lets_go_on(request: HttpRequest) -> HttpResponse:
    """Lets what is slow go on, on behalf of another request."""
    tell(f"{request.GET['waiting']}: go on")
    return HttpResponse()


VIEWS: list[Any] = [
    gather,
    task_group,
    task_group_with_scopes,
    gather_that_fails,
    threads,
    coroutine_in_sync_view,
    background_task,
    background_task_of_stream,
    background_thread,
    background_task_with_a_scope,
    waits,
    waits_in_thread,
    slow_dispatch,
    slow_dispatch_of_sync_view,
    slow_dispatch_of_stream,
    slow_dispatch_of_block,
    lets_go_on,
]
urlpatterns = [path(view.__name__, view) for view in VIEWS]
