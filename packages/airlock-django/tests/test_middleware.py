"""Requests as boundaries, through the whole of Django's sync and async request handling."""

import asyncio

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, PermissionDenied, SuspiciousOperation
from django.db import connections, transaction
from django.db.transaction import atomic
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, RequestFactory
from django.urls import path
from django.utils.decorators import sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin

import airlock
from airlock.integrations.django import AirlockMiddleware, DjangoScope

OURS = "airlock.integrations.django.AirlockMiddleware"


def here(name):
    """The dotted path of something in this module."""
    return f"{__name__}.{name}"


@pytest.fixture
def enqueues(ran):
    """A view that has the status that the query says, and an effect which notes it."""

    def enqueues(request):
        status = request.META["QUERY_STRING"]
        airlock.enqueue(ran.append, status)
        return HttpResponse(status=int(status))

    return enqueues


def raises_after(get_response):
    def middleware(request):
        get_response(request)
        raise ZeroDivisionError

    return middleware


def streams_what_it_caught(get_response):
    def middleware(request):
        return StreamingHttpResponse([get_response(request).content], status=500)

    return middleware


# What decides


@pytest.mark.parametrize("status", [200, 204, 302, 399, 400, 404, 422, 500, 503])
def test_status_below_400_flushes_and_any_other_discards(get, as_view, ran, status):
    def view(request):
        airlock.enqueue(ran.append, 1)
        assert ran == []
        return HttpResponse(status=status)

    response = get(as_view(view))

    assert response.status_code == status
    assert ran == ([1] if status < 400 else [])
    assert response.airlock_scope.is_flushed == (status < 400)
    assert response.airlock_scope.is_discarded == (status >= 400)


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, 500), (Http404, 404), (PermissionDenied, 403), (SuspiciousOperation, 400)]
)
def test_view_that_raises_discards(get, as_view, ran, error, status):
    def view(request):
        airlock.enqueue(ran.append, 1)
        raise error

    response = get(as_view(view))

    assert response.status_code == status
    assert ran == []
    assert response.airlock_scope.is_discarded


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_no_handler_makes_a_response_of_discards_and_propagates(ran, error):
    def get_response(request):
        airlock.enqueue(ran.append, 1)
        raise error

    request = RequestFactory().get("/")
    with pytest.raises(error):
        AirlockMiddleware(get_response)(request)

    assert request.airlock_scope.is_discarded
    assert airlock.get_current_scope() is None
    assert ran == []


class FlushesOnlyTeapots(AirlockMiddleware):
    def should_flush(self, request, response):
        assert airlock.get_current_scope() is request.airlock_scope
        return response.status_code == 418


class CannotDecide(AirlockMiddleware):
    def should_flush(self, request, response):
        raise ZeroDivisionError


class DecidesNothing(AirlockMiddleware):
    def should_flush(self, request, response):
        return [response]


def test_should_flush_decides_otherwise(get, as_view, settings, enqueues, ran):
    settings.MIDDLEWARE = [here("FlushesOnlyTeapots")]

    assert get(as_view(enqueues), "200").airlock_scope.is_discarded
    assert get(as_view(enqueues), "418").airlock_scope.is_flushed
    assert ran == ["418"]


@pytest.mark.parametrize(
    ("middleware", "message"), [("CannotDecide", "ZeroDivisionError"), ("DecidesNothing", "return True or False")]
)
def test_should_flush_that_decides_nothing_discards(get, as_view, settings, enqueues, ran, caplog, middleware, message):
    settings.MIDDLEWARE = [here(middleware)]
    response = get(as_view(enqueues), "200")

    assert response.status_code == 500
    assert response.airlock_scope.is_discarded
    assert message in caplog.text
    assert ran == []


# The scope of a request


def test_each_request_has_a_scope_of_its_own(get, as_view, ran):
    def view(request):
        ran.append(airlock.get_current_scope() is request.airlock_scope)
        return HttpResponse()

    scopes = {get(as_view(view)).airlock_scope for _ in range(3)}

    assert ran == [True] * 3
    assert [type(scope) for scope in scopes] == [DjangoScope] * 3
    assert airlock.get_current_scope() is None


def test_coroutines_and_threads_of_an_async_view_share_its_scope(get, ran):
    async def work(number):
        await asyncio.sleep(0)
        airlock.enqueue(ran.append, number)
        await asyncio.to_thread(airlock.enqueue, ran.append, -number)

    async def view(request):
        await asyncio.gather(*map(work, (1, 2, 3)))
        assert ran == []
        return HttpResponse()

    get(view)

    assert sorted(ran) == [-3, -2, -1, 1, 2, 3]


def test_failing_dispatch_is_no_error_for_the_client(get, as_view, ran, log):
    def fails():
        raise ValueError

    def view(request):
        airlock.enqueue(fails)
        airlock.enqueue(ran.append, 1)
        return HttpResponse()

    response = get(as_view(view))

    assert response.status_code == 200
    assert ran == [1]
    assert [intent.task for intent in response.airlock_scope.undispatched_intents] == [fails]
    assert [record.levelname for record in log.records] == ["ERROR"]


def test_broken_setting_is_an_error_at_the_first_request(settings, ran):
    settings.AIRLOCK = {"EXECUTER": print}

    with pytest.raises(ImproperlyConfigured, match="EXECUTER"):
        AirlockMiddleware(lambda request: ran.append(1))(RequestFactory().get("/"))
    assert ran == []


# Its place among other middlewares


class EnqueuesAround(MiddlewareMixin):
    def process_request(self, request):
        airlock.enqueue(settings.RAN.append, "before")

    def process_response(self, request, response):
        airlock.enqueue(settings.RAN.append, "after")
        return response


@sync_and_async_middleware
def sync_and_async(get_response):
    return get_response


def sync_only(get_response):
    return lambda request: get_response(request)


def transaction_around_the_request(get_response):
    def middleware(request):
        with atomic():
            response = get_response(request)
            if request.META["QUERY_STRING"] == "rollback":
                transaction.set_rollback(True)
        return response

    return middleware


def test_middlewares_inside_of_ours_may_enqueue(get, as_view, settings, enqueues, ran):
    settings.MIDDLEWARE = [OURS, here("EnqueuesAround")]
    settings.RAN = ran

    get(as_view(enqueues), "500")
    assert ran == []
    get(as_view(enqueues), "200")
    assert ran == ["before", "200", "after"]


def test_middlewares_outside_of_ours_have_no_scope_to_enqueue_in(get, as_view, settings, ran, caplog):
    settings.MIDDLEWARE = [here("EnqueuesAround"), OURS]
    settings.RAN = ran

    assert get(as_view(lambda request: HttpResponse())).status_code == 500
    (record,) = (record for record in caplog.records if record.exc_info)
    assert record.exc_info[0] is airlock.NoScopeError


@pytest.mark.parametrize(
    "middlewares",
    [
        [OURS, here("sync_only")],
        [here("sync_only"), OURS],
        [here("sync_only"), OURS, here("sync_only")],
        [here("sync_and_async"), here("sync_only"), here("sync_and_async"), OURS],
    ],
    ids=lambda middlewares: " > ".join(name.rpartition(".")[2] for name in middlewares),
)
def test_beside_sync_middlewares_requests_are_boundaries(get, as_view, settings, enqueues, ran, middlewares):
    settings.MIDDLEWARE = middlewares
    for status in ("500", "200", "404", "201"):
        get(as_view(enqueues), status)

    assert ran == ["200", "201"]


@pytest.mark.parametrize("ours_is", ["outside", "inside"])
def test_effects_share_the_fate_of_the_transaction_of_a_middleware(
    get, as_view, ours_is, settings, transactional_db, ran
):
    ours_first = [OURS, here("transaction_around_the_request")]
    settings.MIDDLEWARE = ours_first if ours_is == "outside" else ours_first[::-1]

    def view(request):
        airlock.enqueue(ran.append, request.META["QUERY_STRING"])
        return HttpResponse()

    rolled_back = get(as_view(view), "rollback")
    committed = get(as_view(view), "commit")

    assert ran == ["commit"]
    assert len(rolled_back.airlock_scope.rolled_back_intents) == 1
    assert committed.airlock_scope.rolled_back_intents == []


# Transactions in views


@pytest.fixture(params=["ATOMIC_REQUESTS", "not ATOMIC_REQUESTS"])
def atomic_requests(request, transactional_db, monkeypatch):
    """Whether Django opens a transaction around each sync view; it refuses to for async ones."""
    chosen = request.param == "ATOMIC_REQUESTS"
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", chosen)
    return chosen


def test_effects_go_out_after_the_view_committed(get, atomic_requests, ran):
    def view(request):
        airlock.enqueue(ran.append, "first")
        transaction.on_commit(lambda: ran.append("callback"))
        with atomic():
            airlock.enqueue(ran.append, "second")
        return HttpResponse()

    get(view)

    assert ran == ["callback", "first", "second"]


def test_view_that_raises_has_no_effects_with_atomic_requests(get, atomic_requests, ran):
    def view(request):
        airlock.enqueue(ran.append, 1)
        with atomic():
            airlock.enqueue(ran.append, 2)
        raise ValueError

    assert get(view).status_code == 500
    assert ran == []


def test_block_rolled_back_in_a_view_that_succeeds_drops_intents(get, atomic_requests, rolled_back, ran):
    def view(request):
        with rolled_back():
            airlock.enqueue(ran.append, "dropped")
        airlock.enqueue(ran.append, "kept")
        return HttpResponse()

    response = get(view)

    assert ran == ["kept"]
    assert [intent.args for intent in response.airlock_scope.rolled_back_intents] == [("dropped",)]


@pytest.mark.parametrize("atomic_requests", ["ATOMIC_REQUESTS"], indirect=True)
def test_set_rollback_in_a_view_drops_all_of_its_intents(get, atomic_requests, ran):
    def view(request):
        airlock.enqueue(ran.append, 1)
        transaction.set_rollback(True)
        return HttpResponse()

    response = get(view)

    assert response.status_code == 200
    assert ran == []
    assert len(response.airlock_scope.rolled_back_intents) == 1


# What a view leaves behind


def test_scope_that_a_view_forgets_does_not_reach_the_next_request(get, enqueues, ran, log):
    def forgets(request):
        airlock.scope().enter()
        airlock.enqueue(ran.append, "lost")
        return HttpResponse()

    get(forgets)
    assert "never left: its intents are lost" in log.text
    get(enqueues, "200")
    assert ran == ["200"]
    assert airlock.get_current_scope() is None


def test_scope_that_a_generator_holds_does_not_reach_the_next_request(get, enqueues, ran):
    def generator():
        with airlock.scope():
            yield

    def forgets(request):
        held.append(generator())
        next(held[-1])
        return HttpResponse()

    held = []
    get(forgets)
    get(enqueues, "200")
    assert ran == ["200"]
    held.clear()


# What it says


def test_status_that_discards_is_in_the_log(get, enqueues, log):
    get(enqueues, "422")

    assert "append: discarded, because the response has the status 422" in log.text


def test_exception_that_django_answers_with_a_status_is_in_the_log(get, as_view, log):
    def view(request):
        airlock.enqueue(int)
        raise ValueError("4111 1111")

    get(as_view(view))
    get(as_view(lambda request: airlock.enqueue(int) and HttpResponse(status=500)))

    crashed, answered = [line for line in log.messages if "will not be dispatched" in line]
    assert crashed.endswith("int: discarded, because the response has the status 500: ValueError was raised")
    assert answered.endswith("int: discarded, because the response has the status 500")


def test_exception_of_a_middleware_inside_of_ours_is_in_the_log(get, enqueues, settings, log):
    settings.MIDDLEWARE = [OURS, here("raises_after")]

    get(enqueues, "200")

    assert "because the response has the status 500: ZeroDivisionError was raised" in log.text


async def test_each_of_concurrent_requests_has_its_own_exception_in_the_log(settings, log):
    both_are_there = asyncio.Barrier(2)

    async def view(request):
        airlock.enqueue(int, _name=request.GET["name"])
        await both_are_there.wait()
        raise {"a": ValueError, "b": LookupError}[request.GET["name"]]

    settings.ROOT_URLCONF = (path("", view),)
    client = AsyncClient(raise_request_exception=False)
    await asyncio.gather(client.get("/?name=a"), client.get("/?name=b"))

    lines = sorted(line.partition(". ")[2] for line in log.messages if "will not be dispatched" in line)
    assert lines == [
        "a: discarded, because the response has the status 500: ValueError was raised",
        "b: discarded, because the response has the status 500: LookupError was raised",
    ]


def test_exception_before_a_body_streams_is_in_the_log(get, settings, log):
    settings.MIDDLEWARE = [OURS, here("streams_what_it_caught")]

    def view(request):
        airlock.enqueue(int)
        raise ValueError

    b"".join(get(view))

    assert "int: discarded, because the response has the status 500: ValueError was raised" in log.text


def test_enqueue_outside_of_any_scope_names_what_to_add():
    with pytest.raises(airlock.NoScopeError, match=r"(?s)AirlockMiddleware.*AirlockTask.*@airlock_command"):
        airlock.enqueue(abs, 1)
