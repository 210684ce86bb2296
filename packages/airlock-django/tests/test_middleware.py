"""Requests as boundaries, through the whole of Django's sync and async request handling."""

import asyncio
from contextlib import suppress

import pytest
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured, PermissionDenied, SuspiciousOperation
from django.db import connections, transaction
from django.db.transaction import atomic
from django.http import Http404, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory

import airlock
from airlock.integrations.django import AirlockMiddleware, DjangoScope

OURS = "airlock.integrations.django.AirlockMiddleware"


def here(name):
    """The dotted path of something in this module."""
    return f"{__name__}.{name}"


# What decides


@pytest.mark.parametrize("status", [200, 204, 302, 304, 399])
def test_status_below_400_flushes(get, as_view, ran, status):
    def view(request):
        airlock.enqueue(ran.append, 1)
        assert ran == []
        return HttpResponse(status=status)

    response = get(as_view(view))

    assert response.status_code == status
    assert ran == [1]
    assert response.airlock_scope.is_flushed


@pytest.mark.parametrize("status", [400, 403, 404, 422, 500, 503])
def test_status_of_400_or_above_discards(get, as_view, ran, status):
    def view(request):
        airlock.enqueue(ran.append, 1)
        return HttpResponse(status=status)

    response = get(as_view(view))

    assert response.status_code == status
    assert ran == []
    assert response.airlock_scope.is_discarded


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


def test_address_without_a_view_discards_what_middlewares_enqueued(get, settings, ran):
    settings.MIDDLEWARE = [OURS, here("enqueues_around_the_view")]
    settings.RAN = ran
    settings.APPEND_SLASH = False

    def not_found(request):
        raise Http404

    assert get(not_found).status_code == 404
    assert ran == []


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


def test_should_flush_decides_otherwise(get, as_view, settings, ran):
    settings.MIDDLEWARE = [here("FlushesOnlyTeapots")]

    def view(request):
        status = int(request.GET["status"])
        airlock.enqueue(ran.append, status)
        return HttpResponse(status=status)

    assert get(as_view(view), "status=200").airlock_scope.is_discarded
    assert get(as_view(view), "status=418").airlock_scope.is_flushed
    assert ran == [418]


class CannotDecide(AirlockMiddleware):
    def should_flush(self, request, response):
        raise ZeroDivisionError


def test_should_flush_that_raises_discards(get, as_view, settings, ran):
    settings.MIDDLEWARE = [here("CannotDecide")]

    def view(request):
        airlock.enqueue(ran.append, 1)
        return HttpResponse()

    response = get(as_view(view))

    assert response.status_code == 500
    assert response.airlock_scope.is_discarded
    assert ran == []


# The scope of a request


def test_scope_of_the_request_is_the_current_one_in_its_view(get, as_view, ran):
    def view(request):
        ran.append(airlock.get_current_scope() is request.airlock_scope)
        return HttpResponse()

    response = get(as_view(view))

    assert ran == [True]
    assert isinstance(response.airlock_scope, DjangoScope)
    assert airlock.get_current_scope() is None


def test_requests_one_after_the_other_have_scopes_of_their_own(get, as_view, ran):
    def view(request):
        airlock.enqueue(ran.append, request.GET["n"])
        return HttpResponse(status=int(request.GET["n"]))

    scopes = [get(as_view(view), f"n={status}").airlock_scope for status in (200, 500, 201)]

    assert len(set(scopes)) == 3
    assert ran == ["200", "201"]


def test_nested_scopes_in_a_view_are_captured_by_the_request(get, as_view, ran):
    def view(request):
        with airlock.scope():
            airlock.enqueue(ran.append, "kept")
        with suppress(KeyError), airlock.scope():
            airlock.enqueue(ran.append, "discarded")
            raise KeyError
        with airlock.policy(airlock.DropAll()):
            airlock.enqueue(ran.append, "dropped")
        assert ran == []
        return HttpResponse(status=int(request.GET["status"]))

    get(as_view(view), "status=500")
    assert ran == []
    get(as_view(view), "status=200")
    assert ran == ["kept"]


def test_what_coroutines_and_threads_of_an_async_view_enqueue_is_the_requests(get, ran):
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


@pytest.mark.parametrize("factory", [RequestFactory, AsyncRequestFactory])
def test_broken_setting_is_an_error_at_the_first_request(settings, factory, ran):
    settings.AIRLOCK = {"EXECUTER": print}

    with pytest.raises(ImproperlyConfigured, match="EXECUTER"):
        AirlockMiddleware(lambda request: ran.append(1))(factory().get("/"))
    assert ran == []


# Its place among other middlewares


def enqueues_around_the_view(get_response):
    from django.conf import settings

    if iscoroutinefunction(get_response):

        async def middleware(request):
            airlock.enqueue(settings.RAN.append, "before")
            response = await get_response(request)
            airlock.enqueue(settings.RAN.append, "after")
            return response

    else:

        def middleware(request):
            airlock.enqueue(settings.RAN.append, "before")
            response = get_response(request)
            airlock.enqueue(settings.RAN.append, "after")
            return response

    return middleware


enqueues_around_the_view.sync_capable = enqueues_around_the_view.async_capable = True


def sync_only(get_response):
    return lambda request: get_response(request)


def transaction_around_the_request(get_response):
    def middleware(request):
        with atomic():
            response = get_response(request)
            if "rollback" in request.GET:
                transaction.set_rollback(True)
        return response

    return middleware


def test_middlewares_inside_of_ours_may_enqueue(get, as_view, settings, ran):
    settings.MIDDLEWARE = [OURS, here("enqueues_around_the_view")]
    settings.RAN = ran

    def view(request):
        airlock.enqueue(ran.append, "view")
        return HttpResponse(status=int(request.GET["status"]))

    get(as_view(view), "status=500")
    assert ran == []
    get(as_view(view), "status=200")
    assert ran == ["before", "view", "after"]


def test_middlewares_outside_of_ours_have_no_scope_to_enqueue_in(get, as_view, settings, ran, caplog):
    settings.MIDDLEWARE = [here("enqueues_around_the_view"), OURS]
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
        [here("enqueues_nothing"), here("sync_only"), here("enqueues_nothing"), OURS],
    ],
    ids=lambda middlewares: " > ".join(name.rpartition(".")[2] for name in middlewares),
)
def test_beside_middlewares_that_are_sync_only_requests_are_boundaries(get, as_view, settings, ran, middlewares):
    settings.MIDDLEWARE = middlewares

    def view(request):
        airlock.enqueue(ran.append, request.GET["status"])
        return HttpResponse(status=int(request.GET["status"]))

    for status in (500, 200, 404, 201):
        assert get(as_view(view), f"status={status}").status_code == status

    assert ran == ["200", "201"]


def enqueues_nothing(get_response):
    if iscoroutinefunction(get_response):

        async def middleware(request):
            return await get_response(request)

    else:

        def middleware(request):
            return get_response(request)

    return middleware


enqueues_nothing.sync_capable = enqueues_nothing.async_capable = True


@pytest.mark.parametrize("ours_is", ["outside", "inside"])
def test_effects_share_the_fate_of_the_transaction_of_a_middleware(
    get, as_view, ours_is, settings, transactional_db, ran
):
    ours_first = [OURS, here("transaction_around_the_request")]
    settings.MIDDLEWARE = ours_first if ours_is == "outside" else ours_first[::-1]

    def view(request):
        airlock.enqueue(ran.append, request.GET.get("rollback", "commit"))
        return HttpResponse()

    rolled_back = get(as_view(view), "rollback=yes")
    committed = get(as_view(view))

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
        airlock.enqueue(ran.append, 1)
        transaction.on_commit(lambda: ran.append("callback"))
        with atomic():
            airlock.enqueue(ran.append, 2)
        return HttpResponse()

    get(view)

    assert [entry for entry in ran if entry != "callback"] == [1, 2]


def test_view_that_raises_has_no_effects_with_or_without_atomic_requests(get, atomic_requests, ran):
    def view(request):
        airlock.enqueue(ran.append, 1)
        with atomic():
            airlock.enqueue(ran.append, 2)
        raise ValueError

    assert get(view).status_code == 500
    assert ran == []


def test_transaction_rolled_back_in_a_view_that_succeeds_drops_its_intents(get, atomic_requests, ran):
    def view(request):
        airlock.enqueue(ran.append, "before")
        with suppress(KeyError), atomic():
            airlock.enqueue(ran.append, "raised")
            raise KeyError
        with atomic():
            airlock.enqueue(ran.append, "set_rollback")
            transaction.set_rollback(True)
        with atomic():
            with suppress(KeyError), atomic():
                airlock.enqueue(ran.append, "savepoint")
                raise KeyError
            airlock.enqueue(ran.append, "committed")
        return HttpResponse()

    response = get(view)

    assert ran == ["before", "committed"]
    assert [intent.args for intent in response.airlock_scope.rolled_back_intents] == [
        ("raised",),
        ("set_rollback",),
        ("savepoint",),
    ]


# What a view leaves behind


def test_scope_that_a_view_forgets_does_not_reach_the_next_request(get, ran, log):
    def forgets(request):
        airlock.scope().enter()
        airlock.enqueue(ran.append, "lost")
        return HttpResponse()

    def view(request):
        airlock.enqueue(ran.append, "next")
        return HttpResponse()

    get(forgets)
    assert "never left: its intents are lost" in log.text
    get(view)
    assert ran == ["next"]
    assert airlock.get_current_scope() is None


def test_scope_that_a_generator_holds_does_not_reach_the_next_request(get, ran):
    def generator():
        with airlock.scope():
            yield

    def forgets(request):
        held.append(generator())
        next(held[-1])
        return HttpResponse()

    def view(request):
        airlock.enqueue(ran.append, "next")
        return HttpResponse()

    held = []
    get(forgets)
    get(view)
    assert ran == ["next"]
    held.clear()


class DecidesNothing(AirlockMiddleware):
    def should_flush(self, request, response):
        return [response]


def test_should_flush_that_returns_no_bool_is_an_error(get, settings, ran, caplog):
    settings.MIDDLEWARE = [here("DecidesNothing")]

    def view(request):
        airlock.enqueue(ran.append, 1)
        return HttpResponse()

    assert get(view).status_code == 500
    assert ran == []
    assert "return True or False" in caplog.text


def test_status_that_discards_is_in_the_log(get, log):
    def view(request):
        airlock.enqueue(abs, 1)
        return HttpResponse(status=422)

    get(view)

    assert "abs: discarded, because the response has the status 422" in log.text


def test_enqueue_outside_of_any_scope_names_what_to_add():
    with pytest.raises(airlock.NoScopeError, match=r"(?s)AirlockMiddleware.*AirlockTask.*@airlock_command"):
        airlock.enqueue(abs, 1)
