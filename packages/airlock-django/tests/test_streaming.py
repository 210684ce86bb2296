"""Streaming bodies run in the scope of their request, and end it."""

import asyncio
import io
from contextlib import closing
from itertools import islice

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished
from django.db import close_old_connections
from django.db.transaction import atomic
from django.http import FileResponse, StreamingHttpResponse
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


def get_response():
    handler = BaseHandler()
    handler.load_middleware()
    return handler.get_response(RequestFactory().get("/"))


async def get_response_async():
    handler = BaseHandler()
    handler.load_middleware(is_async=True)
    return await handler.get_response_async(AsyncRequestFactory().get("/"))


class Streamed:
    """Requests whose responses have streaming bodies.

    Args:
        server: what handles the request, `WSGI` or `ASGI`.
        kind: the kind of generator, `sync` or `async`.
    """

    def __init__(self, server, kind, settings):
        self.server = server
        self.kind = kind
        self.settings = settings
        self.scope = None
        self.cleans_up = lambda: None

    def serve(self, make_body, status=200, view=lambda: None):
        """Make the project answer with this body."""

        def answer(request):
            self.scope = request.airlock_scope
            view()
            return StreamingHttpResponse(make_body(), status=status)

        self.settings.ROOT_URLCONF = (path("", answer),)

    def read(self, *steps, at_most=None, **response):
        """Answer a request with a body that calls a step for each chunk, which is what that returns.

        Some chunks are read, or all. Then the response is closed, as by a server.
        """

        def sync_body():
            try:
                for step in steps:
                    yield step()
            finally:
                self.cleans_up()

        async def async_body():
            try:
                for step in steps:
                    yield await sync_to_async(step)()  # in the thread of the database, as the ORM needs it
            finally:
                self.cleans_up()

        self.serve(sync_body if self.kind == "sync" else async_body, **response)
        return self._read(at_most) if self.server == "WSGI" else async_to_sync(self._read_async)(at_most)

    def _read(self, at_most):
        with closing(get_response()) as response:
            return [self._between(chunk) for chunk in islice(response, at_most)]

    async def _read_async(self, at_most):
        response = await get_response_async()
        chunks = []
        try:
            if at_most != 0:
                async for chunk in response:
                    chunks.append(self._between(chunk))
                    if len(chunks) == at_most:
                        break
        finally:
            await sync_to_async(response.close)()
        return chunks

    def _between(self, chunk):
        assert airlock.get_current_scope() is None
        return chunk


@pytest.fixture(params=["WSGI sync", "WSGI async", "ASGI sync", "ASGI async"])
def streamed(request, settings):
    """Both kinds of bodies, through both of Django's handlers, which adapt what is not theirs."""
    return Streamed(*request.param.split(), settings)


@pytest.fixture(params=["WSGI sync", "ASGI async"])
def chunk_by_chunk(request, settings):
    """Bodies of the handlers' own kind: these alone are read chunk by chunk."""
    return Streamed(*request.param.split(), settings)


@pytest.fixture
def asgi(settings):
    return Streamed("ASGI", "async", settings)


@pytest.fixture
def step(ran):
    """A step that has an effect."""

    def step():
        airlock.enqueue(ran.append, "step")
        return b"x"

    return step


@pytest.fixture
def view(ran):
    return lambda: airlock.enqueue(ran.append, "view")


def test_body_enqueues_in_the_scope_of_its_request(streamed, ran, view):
    def step():
        assert airlock.get_current_scope() is streamed.scope
        airlock.enqueue(ran.append, len(streamed.scope.intents))
        assert ran == []
        return b"x"

    assert streamed.read(step, step, step, view=view) == [b"x"] * 3
    assert ran == ["view", 1, 2, 3]
    assert streamed.scope.is_flushed


def test_body_that_fails_discards(streamed, ran, step, view):
    def fails():
        raise KeyError

    with pytest.raises(KeyError):
        streamed.read(step, fails, view=view)

    assert streamed.scope.is_discarded
    assert ran == []


@pytest.mark.parametrize("read", [0, 1, 2])
def test_body_that_is_closed_before_its_end_discards(chunk_by_chunk, ran, step, view, read):
    chunk_by_chunk.read(step, step, step, view=view, at_most=read)

    assert chunk_by_chunk.scope.is_discarded
    assert ran == []


@pytest.mark.parametrize("status", [400, 503])
def test_body_of_an_error_response_discards_at_its_end(streamed, ran, step, view, status):
    assert streamed.read(step, status=status, view=view) == [b"x"]

    assert streamed.scope.is_discarded
    assert ran == []


def test_body_closed_early_cleans_up_in_its_scope(chunk_by_chunk, ran, step):
    def cleans_up():
        airlock.enqueue(ran.append, "effect")
        ran.append("cleaned up")

    chunk_by_chunk.cleans_up = cleans_up
    chunk_by_chunk.read(step, step, at_most=1)

    assert ran == ["cleaned up"]
    assert chunk_by_chunk.scope.is_discarded


def test_async_body_closed_in_the_event_loop_cleans_up_in_its_scope(asgi, ran):
    async def body():
        try:
            yield b"x"
        finally:
            airlock.enqueue(ran.append, "effect")
            cleaned_up.set()

    async def main():
        response = await get_response_async()
        assert await anext(aiter(response)) == b"x"
        response.close()
        await asyncio.wait_for(cleaned_up.wait(), 60)

    cleaned_up = asyncio.Event()
    asgi.serve(body)
    async_to_sync(main)()

    assert asgi.scope.is_discarded
    assert ran == []


def test_async_body_that_cannot_be_closed_discards(asgi, ran, view):
    class Body:
        def __aiter__(self):
            return self

        async def __anext__(self):
            return b"x"

    async def main():
        (await get_response_async()).close()

    asgi.serve(Body, view=view)
    async_to_sync(main)()

    assert asgi.scope.is_discarded
    assert ran == []


def test_cancelled_async_body_discards(asgi, ran, view):
    async def body():
        yield b"x"
        await asyncio.Event().wait()

    async def main():
        chunks = (await AsyncClient().get("/")).streaming_content
        assert await anext(chunks) == b"x"
        waiting = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asgi.serve(body, view=view)
    async_to_sync(main)()

    assert asgi.scope.is_discarded
    assert ran == []


def test_scopes_that_are_open_between_chunks_go_on(chunk_by_chunk, ran):
    nested = []

    def open_nested():
        nested.append(airlock.scope())
        nested[0].enter()
        airlock.enqueue(ran.append, "nested")
        return b"x"

    def close_nested():
        assert airlock.get_current_scope() is nested[0]
        airlock.enqueue(ran.append, "nested too")
        nested[0].exit()
        nested[0].flush()
        airlock.enqueue(ran.append, "outside of it")
        return b"x"

    chunk_by_chunk.read(open_nested, close_nested)

    assert ran == ["nested", "nested too", "outside of it"]
    assert len(nested[0].intents) == 2


def test_transactions_in_a_body_decide_about_its_intents(streamed, transactional_db, ran, rolled_back):
    def step():
        with rolled_back():
            airlock.enqueue(ran.append, 1)
        with atomic():
            airlock.enqueue(ran.append, 2)
        return b"x"

    streamed.read(step)

    assert ran == [2]
    assert len(streamed.scope.rolled_back_intents) == 1


class FlushesErrors(AirlockMiddleware):
    def should_flush(self, request, response):
        return response.status_code >= 500


@pytest.mark.parametrize(("status", "left"), [(500, ["step"]), (200, [])])
def test_should_flush_decides_about_streaming_responses_too(settings, chunk_by_chunk, ran, step, status, left):
    settings.MIDDLEWARE = [f"{__name__}.FlushesErrors"]
    chunk_by_chunk.read(step, status=status)

    assert ran == left


def test_middleware_that_wraps_the_body_changes_nothing(settings, chunk_by_chunk, ran, step):
    settings.MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", *settings.MIDDLEWARE]
    chunk_by_chunk.read(step, step)

    assert ran == ["step"] * 2


def test_file_flushes_at_once(get, as_view, ran):
    def view(request):
        airlock.enqueue(ran.append, 1)
        return FileResponse(io.BytesIO(b"content"))

    response = get(as_view(view))

    assert ran == [1]
    response.close()


def test_effect_of_a_body_has_the_context_it_was_asked_for_in(chunk_by_chunk, ran):
    def in_language(code):
        with translation.override(code):
            airlock.enqueue(lambda: ran.append(translation.get_language()))
        return b"x"

    chunk_by_chunk.read(lambda: in_language("de"), view=lambda: in_language("fr"))

    assert ran == ["fr", "de"]
