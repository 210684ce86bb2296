"""The boundary around a request."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.signals import got_request_exception
from django.http import FileResponse, HttpRequest, StreamingHttpResponse

import airlock
from airlock import UsageError
from airlock.integrations.django._body import end_with_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http.response import HttpResponseBase

    from airlock import Scope


class AirlockRequest(HttpRequest):
    """A request inside of `AirlockMiddleware`, for annotations: it has a scope."""

    #: The scope of this request.
    airlock_scope: Scope


class AirlockMiddleware:
    """Puts every request in a scope: its effects go out if it succeeds and its transactions commit.

    A response with a status below 400 flushes; any other, and an exception, discards. Override `should_flush` to
    decide otherwise. A scope class of your own may refuse, too, by its own `should_flush`. The scope is
    `request.airlock_scope`. A streaming body runs inside of it: it flushes when the body ends, and discards if that
    fails or the client goes away before.

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
            flushes = self._decide(request, response, scope)
        except BaseException as error:
            _discard(scope, error)
            raise
        if _runs_application_code(response):
            end_with_body(response, scope, flushes)
            return response
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
            flushes = self._decide(request, response, scope)
        except BaseException as error:
            _discard(scope, error)
            raise
        if _runs_application_code(response):
            end_with_body(response, scope, flushes)
            return response
        scope.exit()
        if flushes:
            await scope.aflush()
        else:
            scope.discard()
        return response

    def _enter(self, request: Any) -> Scope:
        request.airlock_scope = scope = airlock.scope()
        scope.enter()
        return scope

    def _decide(self, request: HttpRequest, response: HttpResponseBase, scope: Scope) -> bool:
        if not _true_or_false(self, self.should_flush(request, response)):
            scope.discard_reason = f"the response has the status {response.status_code}"
            error = getattr(request, "airlock_error", None)
            if error is not None:
                scope.discard_reason += f": {error} was raised"
            return False
        return _true_or_false(scope, scope.should_flush(None))


def _note_error(*, request: Any = None, **_: Any) -> None:
    """Called where Django makes a response with status 500 of an exception, which the middleware never sees."""
    error = sys.exc_info()[0]
    if error is not None and hasattr(request, "airlock_scope"):
        request.airlock_error = error.__name__


got_request_exception.connect(_note_error)


def _true_or_false(decider: object, answer: object) -> bool:
    if isinstance(answer, bool):
        return answer
    raise UsageError(f"{type(decider).__name__}.should_flush returned {answer!r}. It must return True or False.")


def _discard(scope: Scope, error: BaseException) -> None:
    scope.discard_reason = f"{type(error).__name__} was raised"
    scope.exit()
    scope.discard()


def _runs_application_code(response: HttpResponseBase) -> TypeGuard[StreamingHttpResponse]:
    """Whether the body is made by code that may enqueue. A `FileResponse` is read by the server."""
    return isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse)
