"""Effects that go out whatever becomes of the request and its transaction."""

import asyncio
import threading
from contextlib import suppress

import pytest
from asgiref.sync import async_to_sync
from django.db.transaction import atomic
from django.http import HttpResponse
from django.test import RequestFactory

import airlock
from airlock.integrations.django import AirlockMiddleware


def test_goes_out_at_the_end_of_its_block_whatever_the_response(get, as_view, ran):
    def view(request):
        airlock.enqueue(ran.append, "request")
        with airlock.detached():
            airlock.enqueue(ran.append, "detached")
            assert ran == []
        assert ran == ["detached"]
        return HttpResponse(status=400)

    get(as_view(view))

    assert ran == ["detached"]


def test_goes_out_whatever_becomes_of_the_transaction(on_database, ran):
    with airlock.scope(), suppress(KeyError), atomic():
        airlock.enqueue(ran.append, "transaction")
        with airlock.detached() as detached:
            intent = airlock.enqueue(ran.append, "detached")
        assert ran == ["detached"]
        raise KeyError

    assert ran == ["detached"]
    assert detached.dispatched_intents == [intent]


def test_does_not_depend_on_savepoints_inside_of_it_either(on_database, ran):
    with airlock.scope(), atomic(), airlock.detached(), suppress(KeyError), atomic():
        airlock.enqueue(ran.append, 1)
        raise KeyError

    assert ran == [1]


def test_block_that_raises_discards(on_database, ran):
    with suppress(KeyError), airlock.scope(), airlock.detached():
        airlock.enqueue(ran.append, 1)
        raise KeyError

    assert ran == []


def test_scopes_inside_of_it_are_captured_by_it(on_database, ran):
    with suppress(KeyError), airlock.scope(), atomic():
        with airlock.detached():
            with airlock.scope():
                airlock.enqueue(ran.append, 1)
            assert ran == []
        assert ran == [1]
        raise KeyError

    assert ran == [1]


def test_works_outside_of_any_scope(on_database, ran):
    with suppress(KeyError), atomic():
        with airlock.detached():
            airlock.enqueue(ran.append, 1)
        raise KeyError

    assert ran == [1]


def test_goes_by_the_setting(settings, ran):
    settings.AIRLOCK = {
        "EXECUTOR": lambda intent: ran.append(intent.name),
        "POLICY": airlock.BlockTasks(["blocked"]),
        "CAPTURE_ORIGIN": True,
    }
    for outer in (airlock.scope, airlock.detached):
        with outer(), airlock.detached():
            intent = airlock.enqueue(abs, 1, _name="let pass")
            airlock.enqueue(abs, 1, _name="blocked")
        assert intent.origin.startswith(__file__)

    assert ran == ["let pass", "let pass"]


def test_policies_around_it_judge_it(ran):
    by_scope, by_block = airlock.BlockTasks(["scope"]), airlock.BlockTasks(["block"])
    with airlock.scope(by_scope), airlock.policy(by_block), airlock.detached():
        for name in ("scope", "block", "neither"):
            airlock.enqueue(ran.append, name, _name=name)

    assert ran == ["neither"]


def test_failing_dispatch_is_logged_and_the_others_go(on_database, ran, log):
    def fails():
        raise ValueError

    with airlock.scope(), airlock.detached() as detached:
        failed = airlock.enqueue(fails)
        airlock.enqueue(ran.append, 1)

    assert ran == [1]
    assert detached.undispatched_intents == [failed]
    (record,) = log.records
    assert record.levelname == "ERROR"
    assert failed.id in record.getMessage()


def test_under_a_plain_scope_it_is_a_plain_one(settings, ran):
    settings.AIRLOCK = {"SCOPE": "airlock.Scope"}

    def get_response(request):
        with pytest.raises(ValueError, match="broken"), airlock.detached():
            airlock.enqueue(fails)
        return HttpResponse()

    def fails():
        raise ValueError("broken")

    AirlockMiddleware(get_response)(RequestFactory().get("/"))


async def test_async_block_does_not_hold_up_the_event_loop(settings):
    begun, go_on, done = threading.Event(), threading.Event(), []

    def executor(intent):
        begun.set()
        assert go_on.wait(60)
        done.append(intent.args[0])

    async def block():
        async with airlock.scope() as scope:
            async with airlock.detached():
                airlock.enqueue(abs, 1)
            assert done == [1]
            assert scope.intents == []

    settings.AIRLOCK = {"EXECUTOR": executor}
    running = asyncio.create_task(block())
    await asyncio.get_running_loop().run_in_executor(None, begun.wait, 60)
    go_on.set()
    await running

    assert done == [1]


def test_async_block_goes_out_whatever_becomes_of_the_transaction(on_database, ran):
    async def main():
        async with airlock.detached():
            airlock.enqueue(ran.append, 1)

    with suppress(KeyError), airlock.scope(), atomic():
        async_to_sync(main)()
        assert ran == [1]
        raise KeyError

    assert ran == [1]
