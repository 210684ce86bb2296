"""Streaming bodies: they run inside the scope of their request, and end it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync

from airlock.ext import suspend

if TYPE_CHECKING:
    from django.http import StreamingHttpResponse

    from airlock import Scope
    from airlock.ext import SuspendedContext


def end_with_body(response: StreamingHttpResponse, scope: Scope, flushes: bool) -> None:
    """Suspend the scope of a request until its body is made, and end it with that.

    Args:
        response: its content is replaced by one that runs in the scope.
        scope: the scope of the request, the current one.
        flushes: whether the end of the body flushes. Any other way to leave it discards.
    """
    inside = suspend(scope)
    body: _Body | _AsyncBody
    if response.is_async:
        # Not `streaming_content`, which wraps it in a generator that does not close it.
        body = _AsyncBody(vars(response)["_iterator"], scope, inside, flushes)
    else:
        body = _Body(response.streaming_content, scope, inside, flushes)
    response.streaming_content = body
    close = response.close

    def close_inside() -> None:
        # A generator that is closed early cleans up, and what it enqueues meanwhile belongs to its scope.
        if not scope.is_active:
            close()
            return
        with inside:
            if isinstance(body, _AsyncBody):
                body.close_content()
            close()

    response.close = close_inside  # type: ignore[method-assign]


class _ScopedBody:
    def __init__(self, content: Any, scope: Scope, inside: SuspendedContext, flushes: bool) -> None:
        self._content = content
        self._scope = scope
        self._inside = inside
        self._flushes = flushes

    def close(self) -> None:
        """Called by the server when it is done with the response. The client may have gone away before its end."""
        self._discard("the body ended early")

    def _discard(self, reason: str) -> None:
        if self._scope.is_active:
            self._scope.discard_reason = self._scope.discard_reason or reason
            self._scope.exit()
            self._scope.discard()


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
        except BaseException as error:
            self._discard(f"the body raised {type(error).__name__}")
            raise


class _AsyncBody(_ScopedBody):
    #: Closes the content. Only then is the scope discarded, with what the cleanup enqueues.
    _closing: asyncio.Task[None] | None = None

    def __aiter__(self) -> _AsyncBody:
        return self

    async def __anext__(self) -> Any:
        try:
            with self._inside:
                return await anext(self._content)
        except StopAsyncIteration:
            if self._scope.is_active and self._flushes:
                self._scope.exit()
                await self._scope.aflush()
            self.close()
            raise
        except BaseException as error:
            self._discard(f"the body raised {type(error).__name__}")
            raise

    def close(self) -> None:
        if self._closing is None or self._closing.done():
            super().close()
        else:
            self._closing.add_done_callback(lambda _: super(_AsyncBody, self).close())

    def close_content(self) -> None:
        """Close an async generator now, and not when the garbage collector comes to it, in whatever scope that runs."""
        if not hasattr(self._content, "aclose"):
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            async_to_sync(self._aclose)()
        else:
            self._closing = loop.create_task(self._aclose())

    async def _aclose(self) -> None:
        await self._content.aclose()
