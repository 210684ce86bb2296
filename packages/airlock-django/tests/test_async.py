"""Scopes in coroutines: what blocks runs in a thread, and a flush that was begun is finished."""

import asyncio
import threading

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db.transaction import atomic
from django.http import HttpResponse
from django.test import AsyncRequestFactory

import airlock
from airlock.integrations.django import AirlockMiddleware, DjangoScope


class Slow:
    """An executor that waits to be let go on, and tells that it has begun."""

    def __init__(self):
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.done = []

    def __call__(self, intent):
        self.begun.set()
        assert self.go_on.wait(60)
        self.done.append(intent.args[0])


@pytest.fixture
def slow(settings):
    executor = Slow()
    settings.AIRLOCK = {"EXECUTOR": executor}
    yield executor
    executor.go_on.set()


@pytest.fixture(params=["async with", "request"])
def boundary(request):
    """Runs a coroutine function in a scope, and returns what was made of it."""

    async def in_block(function):
        async with airlock.scope() as scope:
            scopes.append(scope)
            await function()

    async def in_request(function):
        async def view(request):
            scopes.append(request.airlock_scope)
            await function()
            return HttpResponse()

        await AirlockMiddleware(view)(AsyncRequestFactory().get("/"))

    scopes = []
    run = in_block if request.param == "async with" else in_request
    run.scopes = scopes
    return run


async def enqueue_two():
    airlock.enqueue(abs, 1)
    airlock.enqueue(abs, 2)


async def wait_for(event):
    """Wait for a thread, and let the event loop go on."""
    await asyncio.get_running_loop().run_in_executor(None, event.wait, 60)
    assert event.is_set()


async def test_dispatch_does_not_hold_up_the_event_loop(boundary, slow):
    flushing = asyncio.create_task(boundary(enqueue_two))
    await wait_for(slow.begun)
    # Only because the loop goes on is it let go on.
    asyncio.get_running_loop().call_soon(slow.go_on.set)
    await flushing

    assert slow.done == [1, 2]


async def test_flush_that_was_begun_is_finished_when_the_task_is_cancelled(boundary, slow):
    flushing = asyncio.create_task(boundary(enqueue_two))
    await wait_for(slow.begun)
    flushing.cancel()
    await asyncio.sleep(0)
    slow.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await flushing

    assert slow.done == [1, 2]
    (scope,) = boundary.scopes
    assert len(scope.dispatched_intents) == 2


async def test_flush_that_waits_for_a_thread_is_finished_when_the_task_is_cancelled_more_than_once(boundary, ran):
    async def enqueue():
        airlock.enqueue(ran.append, 1)

    # Django's one thread for the database is busy, so that the flush has to wait for it.
    busy, free = threading.Event(), threading.Event()

    def hold():
        busy.set()
        assert free.wait(60)

    holding = asyncio.create_task(sync_to_async(hold)())
    await wait_for(busy)
    flushing = asyncio.create_task(boundary(enqueue))
    while not boundary.scopes or boundary.scopes[0].is_active:
        await asyncio.sleep(0)
    for _ in range(3):
        flushing.cancel()
        await asyncio.sleep(0)
    free.set()
    await holding
    with pytest.raises(asyncio.CancelledError):
        await flushing
    await sync_to_async(lambda: None)()  # takes its turn after the flush

    assert ran == [1]


async def test_cancelled_flush_that_fails_is_logged_and_the_cancellation_propagates(boundary, settings, log):
    class Broken(airlock.AllowAll):
        def allows(self, intent):
            begun.set()
            assert go_on.wait(60)
            raise ZeroDivisionError

    begun, go_on = threading.Event(), threading.Event()
    settings.AIRLOCK = {"POLICY": Broken()}
    flushing = asyncio.create_task(boundary(enqueue_two))
    await wait_for(begun)
    flushing.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await flushing

    (record,) = log.records
    assert record.levelname == "ERROR"
    assert record.exc_info[0] is ZeroDivisionError
    assert len(boundary.scopes[0].undispatched_intents) == 2


async def test_cancelled_coroutine_discards(boundary, ran):
    async def never_ends():
        airlock.enqueue(ran.append, 1)
        await asyncio.Event().wait()

    running = asyncio.create_task(boundary(never_ends))
    while not boundary.scopes:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    (scope,) = boundary.scopes
    assert scope.is_discarded
    assert ran == []


async def test_coroutine_that_raises_discards(boundary, ran):
    async def raises():
        airlock.enqueue(ran.append, 1)
        raise KeyError

    with pytest.raises(KeyError):
        await boundary(raises)

    (scope,) = boundary.scopes
    assert scope.is_discarded
    assert ran == []


async def test_after_a_flush_the_scope_is_not_the_current_one_any_more(boundary, ran):
    await boundary(enqueue_two)

    assert airlock.get_current_scope() is None
    assert len(boundary.scopes[0].dispatched_intents) == 2


async def test_async_scope_asks_should_flush(ran):
    class Contrary(DjangoScope):
        def should_flush(self, error):
            return error is not None

    async with Contrary() as good:
        airlock.enqueue(ran.append, 1)
    with pytest.raises(KeyError):
        async with Contrary() as bad:
            airlock.enqueue(ran.append, 2)
            raise KeyError

    assert good.is_discarded
    assert bad.is_flushed
    assert ran == [2]


async def test_async_scope_whose_should_flush_raises_discards(ran):
    class Broken(DjangoScope):
        def should_flush(self, error):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with Broken() as scope:
            airlock.enqueue(ran.append, 1)

    assert scope.is_discarded
    assert ran == []


async def test_policy_that_raises_at_an_async_flush_propagates(boundary, settings, ran):
    class Broken(airlock.AllowAll):
        def allows(self, intent):
            raise ZeroDivisionError

    settings.AIRLOCK = {"POLICY": Broken()}
    with pytest.raises(ZeroDivisionError):
        await boundary(enqueue_two)

    assert len(boundary.scopes[0].undispatched_intents) == 2


async def test_nested_async_scope_hands_over(ran):
    async with airlock.scope():
        async with airlock.scope() as nested:
            intent = airlock.enqueue(ran.append, 1)
        assert ran == []

    assert nested.intents == [intent]
    assert ran == [1]


async def test_coroutines_side_by_side_have_scopes_of_their_own(ran):
    async def run(number):
        async with airlock.scope():
            airlock.enqueue(ran.append, number)
            await asyncio.sleep(0)
            if number % 2:
                raise KeyError

    await asyncio.gather(*map(run, range(20)), return_exceptions=True)

    assert sorted(ran) == list(range(0, 20, 2))


# With the database: `async_to_sync` brings the threads of `sync_to_async` back to the one of the test.


def test_async_scope_around_transactions_knows_what_became_of_them(on_database, ran):
    def work(number, *, rolls_back):
        with atomic():
            airlock.enqueue(ran.append, number)
            if rolls_back:
                raise KeyError

    async def main():
        async with airlock.scope() as scope:
            await sync_to_async(work)(1, rolls_back=False)
            with pytest.raises(KeyError):
                await sync_to_async(work)(2, rolls_back=True)
        return scope

    scope = async_to_sync(main)()

    assert ran == [1]
    assert [intent.args for intent in scope.rolled_back_intents] == [(2,)]


def test_async_scope_inside_a_transaction_waits_for_its_commit(on_database, ran):
    async def main():
        async with airlock.scope():
            airlock.enqueue(ran.append, 1)

    with atomic():
        async_to_sync(main)()
        assert ran == []

    assert ran == [1]


def test_async_scope_inside_a_transaction_that_is_rolled_back_dispatches_nothing(on_database, ran):
    async def main():
        async with airlock.scope() as scope:
            airlock.enqueue(ran.append, 1)
        return scope

    with pytest.raises(KeyError), atomic():
        scope = async_to_sync(main)()
        raise KeyError

    assert ran == []
    assert len(scope.rolled_back_intents) == 1
