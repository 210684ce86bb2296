"""Streaming bodies run in the scope of their request, and end it."""

import asyncio
import io
from contextlib import closing, suppress
from itertools import islice

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished
from django.db import close_old_connections
from django.db.transaction import atomic
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, AsyncRequestFactory, RequestFactory
from django.urls import path
from django.utils import translation

import airlock
from airlock.integrations.django import AirlockMiddleware

# Django says this of bodies that the server has to adapt.
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")


@pytest.fixture(autouse=True)
def _closing_a_response_leaves_the_connections_alone():
    # As the test client sees to it.
    request_finished.disconnect(close_old_connections)
    yield
    request_finished.connect(close_old_connections)


class Streamed:
    """Requests whose responses have streaming bodies.

    Args:
        server: what handles the request, `WSGI` or `ASGI`.
        body: the kind of generator, `sync` or `async`.
    """

    def __init__(self, server, body, settings):
        self.server = server
        self.body = body
        self.settings = settings
        self.scope = None

    def generator(self, *steps):
        """Calls one step for each chunk; what that returns is the chunk."""

        def sync_generator():
            for step in steps:
                yield step()

        async def async_generator():
            for step in steps:
                # In the thread of the database, as the ORM needs it.
                yield await sync_to_async(step)()

        return sync_generator() if self.body == "sync" else async_generator()

    def read(self, *steps, status=200, view=lambda: None, at_most=None):
        """Answer a request with a body of these steps, read some chunks or all, and close it, as a server does."""

        def answer(request):
            self.scope = request.airlock_scope
            view()
            return StreamingHttpResponse(self.generator(*steps), status=status)

        self.settings.ROOT_URLCONF = (path("", answer),)
        if self.server == "WSGI":
            return self._read_all(at_most)
        return async_to_sync(self._read_all_async)(at_most)

    def _read_all(self, at_most):
        handler = BaseHandler()
        handler.load_middleware()
        response = handler.get_response(RequestFactory().get("/"))
        chunks = []
        with closing(response):
            for chunk in islice(response, at_most) if at_most != 0 else ():
                assert airlock.get_current_scope() is None
                chunks.append(chunk)
        return chunks

    async def _read_all_async(self, at_most):
        handler = BaseHandler()
        handler.load_middleware(is_async=True)
        response = await handler.get_response_async(AsyncRequestFactory().get("/"))
        chunks = []
        try:
            if at_most != 0:
                async for chunk in response:
                    assert airlock.get_current_scope() is None
                    chunks.append(chunk)
                    if len(chunks) == at_most:
                        break
        finally:
            await sync_to_async(response.close)()
        return chunks


@pytest.fixture(params=["WSGI sync", "WSGI async", "ASGI sync", "ASGI async"])
def streamed(request, settings):
    """Both kinds of bodies, through both of Django's handlers, which adapt what is not theirs."""
    return Streamed(*request.param.split(), settings)


@pytest.fixture(params=["WSGI sync", "ASGI async"])
def chunk_by_chunk(request, settings):
    """Bodies of the handlers' own kind: these alone are read chunk by chunk."""
    return Streamed(*request.param.split(), settings)


def test_body_enqueues_in_the_scope_of_its_request(streamed, ran):
    def step():
        assert airlock.get_current_scope() is streamed.scope
        airlock.enqueue(ran.append, len(streamed.scope.intents))
        assert ran == []
        return b"x"

    chunks = streamed.read(step, step, step, view=lambda: airlock.enqueue(ran.append, 0))

    assert chunks == [b"x"] * 3
    assert ran == [0, 1, 2, 3]
    assert streamed.scope.is_flushed


def test_body_that_fails_discards(streamed, ran):
    def fails():
        airlock.enqueue(ran.append, 2)
        raise KeyError

    with pytest.raises(KeyError):
        streamed.read(lambda: b"x", fails, view=lambda: airlock.enqueue(ran.append, 1))

    assert streamed.scope.is_discarded
    assert ran == []


@pytest.mark.parametrize("read", [0, 1, 2])
def test_body_that_is_closed_before_its_end_discards(chunk_by_chunk, ran, read):
    def step():
        airlock.enqueue(ran.append, 2)
        return b"x"

    chunk_by_chunk.read(step, step, step, view=lambda: airlock.enqueue(ran.append, 1), at_most=read)

    assert chunk_by_chunk.scope.is_discarded
    assert ran == []


def test_body_closed_early_cleans_up_in_its_scope(settings, ran):
    def body():
        try:
            yield b"x"
        finally:
            airlock.enqueue(ran.append, "effect")
            ran.append("cleaned up")

    def view(request):
        return StreamingHttpResponse(body())

    settings.ROOT_URLCONF = (path("", view),)
    handler = BaseHandler()
    handler.load_middleware()
    response = handler.get_response(RequestFactory().get("/"))
    assert next(iter(response)) == b"x"
    response.close()

    assert ran == ["cleaned up"]


@pytest.mark.parametrize("closed_in", ["thread", "event loop"])  # the first is what Django does
def test_async_body_closed_early_cleans_up_in_its_scope(settings, ran, closed_in):
    async def body():
        try:
            yield b"x"
        finally:
            airlock.enqueue(ran.append, "effect")
            ran.append("cleaned up")
            cleaned_up.set()

    async def main():
        handler = BaseHandler()
        handler.load_middleware(is_async=True)
        response = await handler.get_response_async(AsyncRequestFactory().get("/"))
        assert await anext(aiter(response)) == b"x"
        if closed_in == "event loop":
            response.close()
        else:
            await sync_to_async(response.close)()
        await asyncio.wait_for(cleaned_up.wait(), 60)

    def view(request):
        scopes.append(request.airlock_scope)
        return StreamingHttpResponse(body())

    scopes = []
    cleaned_up = asyncio.Event()
    settings.ROOT_URLCONF = (path("", view),)
    async_to_sync(main)()

    assert ran == ["cleaned up"]
    assert scopes[0].is_discarded


def test_async_body_that_cannot_be_closed_discards(settings, ran):
    class Body:
        def __aiter__(self):
            return self

        async def __anext__(self):
            return b"x"

    async def main():
        handler = BaseHandler()
        handler.load_middleware(is_async=True)
        response = await handler.get_response_async(AsyncRequestFactory().get("/"))
        response.close()

    def view(request):
        airlock.enqueue(ran.append, 1)
        scopes.append(request.airlock_scope)
        return StreamingHttpResponse(Body())

    scopes = []
    settings.ROOT_URLCONF = (path("", view),)
    async_to_sync(main)()

    assert scopes[0].is_discarded
    assert ran == []


@pytest.mark.parametrize("status", [400, 503])
def test_body_of_an_error_response_discards_at_its_end(streamed, ran, status):
    def step():
        airlock.enqueue(ran.append, 2)
        return b"x"

    assert streamed.read(step, status=status, view=lambda: airlock.enqueue(ran.append, 1)) == [b"x"]

    assert streamed.scope.is_discarded
    assert ran == []


def test_scopes_and_policies_that_are_open_between_chunks_go_on(chunk_by_chunk, ran, settings):
    nested = []

    def open_nested():
        scope = airlock.scope()
        scope.enter()
        nested.append(scope)
        airlock.enqueue(ran.append, "nested")
        return b"x"

    def in_nested():
        assert airlock.get_current_scope() is nested[0]
        airlock.enqueue(ran.append, "nested too")
        return b"x"

    def close_nested():
        nested[0].exit()
        nested[0].flush()
        airlock.enqueue(ran.append, "outside of it")
        return b"x"

    chunk_by_chunk.read(open_nested, in_nested, close_nested)

    assert ran == ["nested", "nested too", "outside of it"]
    assert len(nested[0].intents) == 2


def test_failing_dispatch_at_the_end_of_a_body_is_logged_and_the_others_go(streamed, ran, log):
    def fails():
        raise ValueError

    def step():
        airlock.enqueue(fails)
        airlock.enqueue(ran.append, 1)
        return b"x"

    assert streamed.read(step) == [b"x"]

    assert ran == [1]
    assert [record.levelname for record in log.records] == ["ERROR"]


def test_transactions_in_a_body_decide_about_its_intents(streamed, transactional_db, ran):
    def step():
        airlock.enqueue(ran.append, 1)
        with suppress(KeyError), atomic():
            airlock.enqueue(ran.append, 2)
            raise KeyError
        with atomic():
            airlock.enqueue(ran.append, 3)
        return b"x"

    streamed.read(step)

    assert ran == [1, 3]
    assert len(streamed.scope.rolled_back_intents) == 1


def test_should_flush_decides_about_streaming_responses_too(settings, ran):
    settings.MIDDLEWARE = [f"{__name__}.FlushesErrors"]
    streamed = Streamed("WSGI", "sync", settings)

    def step():
        airlock.enqueue(ran.append, 1)
        return b"x"

    streamed.read(step, status=500)
    assert ran == [1]
    streamed.read(step, status=200)
    assert ran == [1]


class FlushesErrors(AirlockMiddleware):
    def should_flush(self, request, response):
        return response.status_code >= 500


def test_file_flushes_at_once(get, as_view, ran):
    def view(request):
        airlock.enqueue(ran.append, 1)
        return FileResponse(io.BytesIO(b"content"))

    response = get(as_view(view))

    assert ran == [1]
    response.close()


def test_middleware_that_wraps_the_body_changes_nothing(settings, ran):
    settings.MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", "airlock.integrations.django.AirlockMiddleware"]
    streamed = Streamed("WSGI", "sync", settings)

    def step():
        airlock.enqueue(ran.append, 1)
        return b"x" * 1000

    streamed.read(step, step)

    assert ran == [1, 1]


def test_background_task_that_outlives_a_request_gets_an_error(settings):
    async def main():
        response = await AsyncClient().get("/")
        assert response.status_code == 200
        ended.set()
        with pytest.raises(airlock.ScopeStateError):
            await tasks[0]

    async def outlives():
        await ended.wait()
        airlock.enqueue(abs, 1)

    async def view(request):
        tasks.append(asyncio.create_task(outlives()))
        return HttpResponse()

    tasks = []
    ended = asyncio.Event()
    settings.ROOT_URLCONF = (path("", view),)
    async_to_sync(main)()


def test_cancelled_async_body_discards(settings, ran):
    async def body():
        airlock.enqueue(ran.append, 1)
        yield b"x"
        await asyncio.Event().wait()

    async def main():
        response = await AsyncClient().get("/")
        chunks = response.streaming_content
        assert await anext(chunks) == b"x"
        waiting = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    def view(request):
        scopes.append(request.airlock_scope)
        return StreamingHttpResponse(body())

    scopes = []
    settings.ROOT_URLCONF = (path("", view),)
    async_to_sync(main)()

    assert scopes[0].is_discarded
    assert ran == []


def test_effect_of_a_body_has_the_context_it_was_asked_for_in(chunk_by_chunk, ran):
    def step():
        with translation.override("de"):
            airlock.enqueue(lambda: ran.append(translation.get_language()))
        return b"x"

    def view():
        with translation.override("fr"):
            airlock.enqueue(lambda: ran.append(translation.get_language()))

    chunk_by_chunk.read(step, view=view)

    assert ran == ["fr", "de"]
