"""Streaming bodies: they run inside the scope of their request, and end it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.http import StreamingHttpResponse

from airlock.integrations.django._scope import flush_off_the_event_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airlock import Scope
    from airlock._scoped import Inside


def put_in_scope(
    response: StreamingHttpResponse, scope: Scope, inside: Inside, flushes: bool, *, asynchronously: bool
) -> None:
    """Let the body of a response run in the scope, and end that at its end.

    Args:
        response: its content is replaced by one that does so.
        scope: the scope of the request, still active.
        inside: where in it the view ended.
        flushes: whether the end of the body flushes, or discards as any other way to leave it does.
        asynchronously: whether it will be served by an event loop.
    """
    body: _ScopedBody
    generator = None
    if response.is_async:
        # Not `streaming_content`, which wraps it in a generator that does not close it.
        generator = vars(response)["_iterator"]
        body = _AsyncBody(generator, scope, inside, flushes)
    elif asynchronously:
        body = _AsyncBody(_collected(response.streaming_content), scope, inside, flushes)
    else:
        body = _Body(response.streaming_content, scope, inside, flushes)
    response.streaming_content = body
    close = response.close

    def close_inside() -> None:
        # A generator that is closed early cleans up, and is still in its scope then. Django closes those that are not
        # asynchronous. The others would wait for the garbage collector, and be in whatever scope that happens to run.
        if not scope.is_active:
            close()
            return
        with inside:
            if generator is not None and hasattr(generator, "aclose"):
                body.closing = _close(generator)
            close()

    response.close = close_inside  # type: ignore[method-assign]


def _close(generator: Any) -> asyncio.Task[None] | None:
    """Close an asynchronous generator; in an event loop, which cannot wait for that, return the task that does."""

    async def close() -> None:
        await generator.aclose()

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        async_to_sync(close)()
        return None
    return loop.create_task(close())


async def _collected(content: Any) -> AsyncIterator[bytes]:
    # As Django does it, which warns, and collects all chunks in a thread before it yields the first. If the client goes
    # away meanwhile, nothing stops the thread, so the end that counts is that of this.
    async for chunk in StreamingHttpResponse(content):
        yield chunk


class _ScopedBody:
    #: Closes the generator below; what that enqueues while it cleans up is still to be discarded.
    closing: asyncio.Task[None] | None = None

    def __init__(self, content: Any, scope: Scope, inside: Inside, flushes: bool) -> None:
        self._content = content
        self._scope = scope
        self._inside = inside
        self._flushes = flushes

    def close(self) -> None:
        """Called by the server when it is done with the response: the client may have gone away before its end."""
        if self.closing is not None and not self.closing.done():
            self.closing.add_done_callback(lambda _: self.close())
        elif self._scope.is_active:
            self._scope.exit()
            self._scope.discard()

    def __del__(self) -> None:
        # A server may forget a body it never began.
        self.close()


class _Body(_ScopedBody):
    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> Any:
        try:
            with self._inside:
                return next(self._content)
        except StopIteration:
            if self._scope.is_active and self._flushes:
                self._scope.exit()
                self._scope.flush()
            self.close()
            raise
        except BaseException:
            self.close()
            raise


class _AsyncBody(_ScopedBody):
    def __aiter__(self) -> _AsyncBody:
        return self

    async def __anext__(self) -> Any:
        try:
            with self._inside:
                return await anext(self._content)
        except StopAsyncIteration:
            # If the client has gone away, that is on its way from asyncio to the server, to Django and to this task,
            # and takes a turn of the loop for each.
            for _ in range(4):
                await asyncio.sleep(0)
            if self._scope.is_active and self._flushes:
                self._scope.exit()
                await flush_off_the_event_loop(self._scope)
            self.close()
            raise
        except BaseException:
            self.close()
            raise
