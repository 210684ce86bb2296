"""The boundary around a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import FileResponse, StreamingHttpResponse

from airlock._scoped import Inside
from airlock.integrations.django._body import put_in_scope
from airlock.integrations.django._scope import flush_off_the_event_loop
from airlock.integrations.django._settings import make_scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from airlock import Scope


class AirlockMiddleware:
    """Puts every request in a scope: its effects go out if it succeeds, and what it committed is committed.

    A response with a status below 400 flushes; any other, and an exception, discards. Override `should_flush` to
    decide otherwise. The scope is `request.airlock_scope`. A streaming body runs inside of it: it flushes when the body
    ends, and discards if that fails or the client goes away before.

    Put it anywhere in `MIDDLEWARE`: what runs inside of it may enqueue. Works under WSGI and ASGI, with sync and async
    views; under ASGI, dispatch does not block the event loop.

    Raises:
        ImproperlyConfigured: at the first request, if the setting `AIRLOCK` cannot be used.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def should_flush(self, request: HttpRequest, response: HttpResponseBase) -> bool:
        """Decide whether the effects of this request go out. The scope is still the current one.

        Args:
            request: the request; its scope is `request.airlock_scope`.
            response: the response; by default a status below 400 flushes.
        """
        return response.status_code < 400

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        return self._respond_async(request) if iscoroutinefunction(self.get_response) else self._respond(request)

    def _respond(self, request: HttpRequest) -> HttpResponseBase:
        scope = self._enter(request)
        try:
            response: HttpResponseBase = self.get_response(request)
            flushes = self.should_flush(request, response)
        except BaseException:
            scope.exit()
            scope.discard()
            raise
        if not self._goes_on(response, scope, flushes, asynchronously=False):
            scope.exit()
            if flushes:
                scope.flush()
            else:
                scope.discard()
        return response

    async def _respond_async(self, request: HttpRequest) -> HttpResponseBase:
        scope = self._enter(request)
        try:
            response: HttpResponseBase = await self.get_response(request)
            flushes = self.should_flush(request, response)
        except BaseException:
            scope.exit()
            scope.discard()
            raise
        if not self._goes_on(response, scope, flushes, asynchronously=True):
            scope.exit()
            if flushes:
                await flush_off_the_event_loop(scope)
            else:
                scope.discard()
        return response

    def _enter(self, request: Any) -> Scope:
        request.airlock_scope = scope = make_scope()
        scope.enter()
        return scope

    def _goes_on(self, response: HttpResponseBase, scope: Scope, flushes: bool, *, asynchronously: bool) -> bool:
        """Whether the scope is now that of a streaming body, suspended until that begins."""
        # A file is no code that could enqueue, and servers may send it without iterating over it.
        if not isinstance(response, StreamingHttpResponse) or isinstance(response, FileResponse):
            return False
        put_in_scope(response, scope, Inside.suspended(scope), flushes, asynchronously=asynchronously)
        return True
