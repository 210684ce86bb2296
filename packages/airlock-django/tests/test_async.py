"""Scopes in coroutines: what blocks runs in a thread, and a flush that was begun is finished."""

import asyncio
import threading
from contextlib import suppress

import django
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections
from django.db.transaction import atomic
from django.dispatch import Signal
from django.http import HttpResponse
from django.test import AsyncClient, AsyncRequestFactory
from django.urls import path

import airlock
from airlock.integrations.django import AirlockMiddleware, DjangoScope


class Slow:
    """An executor that waits to be let go on, and tells that it has begun."""

    def __init__(self, error=None):
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.error = error
        self.done = []

    def __call__(self, intent):
        self.begun.set()
        assert self.go_on.wait(60)
        self.done.append(intent.args[0])

    def allows(self, intent):  # as a policy
        self(intent)
        raise self.error

    def on_enqueue(self, intent):
        """Nothing to say."""


@pytest.fixture
def slow(settings):
    executor = Slow()
    settings.AIRLOCK = {"EXECUTOR": executor}
    yield executor
    executor.go_on.set()


@pytest.fixture(params=["async with", "request"])
def in_scope(request):
    """Runs a coroutine function in a scope, and keeps the scope."""

    async def in_block(function):
        async with airlock.scope() as run.scope:
            await function()

    async def in_request(function):
        async def view(request):
            run.scope = request.airlock_scope
            await function()
            return HttpResponse()

        await AirlockMiddleware(view)(AsyncRequestFactory().get("/"))

    run = in_block if request.param == "async with" else in_request
    run.scope = None
    return run


async def enqueue_two():
    airlock.enqueue(abs, 1)
    airlock.enqueue(abs, 2)


async def wait_for(event):
    """Wait for a thread, and let the event loop go on."""
    await asyncio.to_thread(event.wait, 60)
    assert event.is_set()


async def test_dispatch_does_not_hold_up_the_event_loop(in_scope, slow):
    flushing = asyncio.create_task(in_scope(enqueue_two))
    await wait_for(slow.begun)
    # Only because the loop goes on is it let go on.
    asyncio.get_running_loop().call_soon(slow.go_on.set)
    await flushing

    assert slow.done == [1, 2]


async def test_detached_block_does_not_hold_up_the_event_loop(slow):
    async def block():
        async with airlock.scope(), airlock.detached():
            airlock.enqueue(abs, 1)

    running = asyncio.create_task(block())
    await wait_for(slow.begun)
    slow.go_on.set()
    await running

    assert slow.done == [1]


@pytest.mark.parametrize("times", [1, 3])
async def test_flush_that_was_begun_is_finished_when_cancelled(in_scope, slow, times):
    flushing = asyncio.create_task(in_scope(enqueue_two))
    await wait_for(slow.begun)
    for _ in range(times):
        flushing.cancel()
        await asyncio.sleep(0)
    slow.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await flushing

    assert slow.done == [1, 2]
    assert len(in_scope.scope.dispatched_intents) == 2


async def test_flush_cancelled_before_its_thread_is_free_is_finished(in_scope, ran):
    async def enqueue():
        airlock.enqueue(ran.append, 1)

    # Django's one thread for the database is busy, so that the flush has to wait for it.
    busy, free = threading.Event(), threading.Event()

    def hold():
        busy.set()
        assert free.wait(60)

    holding = asyncio.create_task(sync_to_async(hold)())
    await wait_for(busy)
    flushing = asyncio.create_task(in_scope(enqueue))
    while in_scope.scope is None or in_scope.scope.is_active:
        await asyncio.sleep(0)
    flushing.cancel()
    await asyncio.sleep(0)
    free.set()
    await holding
    with pytest.raises(asyncio.CancelledError):
        await flushing

    assert ran == [1]


async def test_cancelled_flush_that_fails_is_logged(in_scope, settings, log):
    policy = Slow(error=ZeroDivisionError())
    settings.AIRLOCK = {"POLICY": policy}
    flushing = asyncio.create_task(in_scope(enqueue_two))
    await wait_for(policy.begun)
    flushing.cancel()
    await asyncio.sleep(0)
    policy.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await flushing

    (record,) = log.records
    assert record.levelname == "ERROR"
    assert record.exc_info[0] is ZeroDivisionError


def test_flush_goes_on_when_the_event_loop_shuts_down(slow):
    async def block():
        async with airlock.scope():
            await enqueue_two()

    async def main():
        tasks.append(asyncio.create_task(block()))
        await wait_for(slow.begun)
        threading.Timer(0.1, slow.go_on.set).start()

    async def take_turn():
        await sync_to_async(lambda: None)()  # after the flush

    tasks = []
    asyncio.run(main())
    asyncio.run(take_turn())

    assert slow.done == [1, 2]


@pytest.mark.parametrize("error", [KeyError, asyncio.CancelledError])
async def test_coroutine_that_raises_discards(in_scope, ran, error):
    async def raises():
        airlock.enqueue(ran.append, 1)
        raise error

    with pytest.raises(error):
        await in_scope(raises)

    assert in_scope.scope.is_discarded
    assert ran == []


async def test_policy_that_raises_at_an_async_flush_propagates(in_scope, settings):
    policy = Slow(error=ZeroDivisionError())
    policy.go_on.set()
    settings.AIRLOCK = {"POLICY": policy}
    with pytest.raises(ZeroDivisionError):
        await in_scope(enqueue_two)

    assert len(in_scope.scope.undispatched_intents) == 2


# With the database


def roll_back_around(function, *args):
    with suppress(KeyError), atomic():
        function(*args)
        raise KeyError


@pytest.mark.django_db(transaction=True)
class TestInTransactions:
    def test_async_scope_around_knows_what_became_of_them(self, ran):
        def work(number):
            with atomic():
                airlock.enqueue(ran.append, number)

        async def main():
            async with airlock.scope():
                await sync_to_async(work)(1)
                await sync_to_async(roll_back_around)(work, 2)

        async_to_sync(main)()
        assert ran == [1]

    def test_async_scope_inside_waits_for_the_commit(self, ran):
        async def main():
            async with airlock.scope():
                airlock.enqueue(ran.append, 1)

        with atomic():
            async_to_sync(main)()
            assert ran == []
        roll_back_around(async_to_sync(main))

        assert ran == [1]

    def test_coroutine_that_sync_code_waits_for_is_in_its_transaction(self, ran):
        async def service():
            airlock.enqueue(ran.append, 1)

        with airlock.scope() as scope:
            roll_back_around(async_to_sync(service))

        assert ran == []
        assert len(scope.rolled_back_intents) == 1

    if django.VERSION >= (5,):  # before, signals have no async receivers

        def test_async_signal_receiver_is_in_the_transaction(self, ran):
            async def receiver(**_):
                airlock.enqueue(ran.append, 1)

            signal = Signal()
            signal.connect(receiver)
            with airlock.scope():
                roll_back_around(signal.send, None)

            assert ran == []

    def test_service_called_by_a_sync_view_under_asgi_is_in_its_transaction(self, settings, ran):
        async def service():
            airlock.enqueue(ran.append, "rolled back")

        def view(request):
            roll_back_around(async_to_sync(service))
            airlock.enqueue(ran.append, "view")
            return HttpResponse()

        settings.ROOT_URLCONF = (path("", view),)
        async_to_sync(AsyncClient().get)("/")

        assert ran == ["view"]

    async def test_background_task_of_a_sync_view_under_asgi_has_its_effects(self, settings, ran):
        """It outlives the view, and what its thread does later, such as another transaction, is no matter to it."""

        async def background():
            async with airlock.scope(_cls=Uncaptured):
                airlock.enqueue(ran.append, "before")
                await in_transaction.wait()
                airlock.enqueue(ran.append, "after")

        async def start():
            tasks.append(asyncio.create_task(background()))
            await asyncio.sleep(0)

        def view(request):
            async_to_sync(start)()
            return HttpResponse()

        def hold():
            with atomic():
                loop.call_soon_threadsafe(in_transaction.set)
                assert dispatched.wait(60)
            connections.close_all()

        class Uncaptured(DjangoScope):
            capturable = False

        tasks, loop, in_transaction, dispatched = [], asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        settings.ROOT_URLCONF = (path("", view),)
        await AsyncClient().get("/")
        holding = asyncio.create_task(sync_to_async(hold)())
        try:
            await asyncio.wait_for(tasks[0], 60)
            assert ran == ["before", "after"]
        finally:
            dispatched.set()
            await holding
