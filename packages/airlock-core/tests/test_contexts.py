"""Whose scope it is: threads, asyncio tasks, greenlets, contexts that come and go, and forked processes."""

import asyncio
import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from functools import partial

import greenlet
import pytest

import airlock


@pytest.fixture
def other_threads():
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield pool


# Threads


def test_a_new_thread_is_in_no_scope(ran, other_threads):
    with airlock.scope() as scope:
        assert other_threads.submit(airlock.get_current_scope).result() is None
        with pytest.raises(airlock.NoScopeError):
            other_threads.submit(airlock.enqueue, ran.append, 1).result()
        assert scope.intents == []


def test_scopes_and_policies_of_threads_are_strangers(other_threads):
    all_are_inside = threading.Barrier(4)

    def own_scope(number):
        ran = []
        with airlock.policy(airlock.BlockTasks({f"not_{number}"})), airlock.scope() as scope:
            all_are_inside.wait()
            airlock.enqueue(ran.append, number, _name=f"not_{(number + 1) % 4}")
            all_are_inside.wait()
            assert len(scope.intents) == 1
        return ran

    assert list(other_threads.map(own_scope, range(4))) == [[0], [1], [2], [3]]


def test_threads_that_share_a_scope_lose_nothing(ran, other_threads):
    def enqueue_many(thread):
        for number in range(500):
            airlock.enqueue(ran.append, (thread, number))

    with airlock.scope():
        contexts = [copy_context() for _ in range(4)]
        futures = [other_threads.submit(context.run, enqueue_many, n) for n, context in enumerate(contexts)]
        for future in futures:
            future.result()
    for thread in range(4):
        assert [number for one, number in ran if one == thread] == list(range(500))


async def test_to_thread_shares_the_scope_while_it_is_open(ran):
    def work():
        airlock.enqueue(ran.append, 1)
        airlock.scoped(airlock.enqueue)(ran.append, 2)
        return airlock.get_current_scope()

    async with airlock.scope() as scope:
        assert await asyncio.to_thread(work) is scope
        assert ran == []
    assert ran == [1, 2]


async def test_a_thread_that_outlives_its_scope_is_told(ran):
    left = threading.Event()

    def enqueue_late():
        left.wait()
        airlock.enqueue(ran.append, 1)

    async with airlock.scope() as scope:
        late = asyncio.create_task(asyncio.to_thread(enqueue_late))
        await asyncio.sleep(0)
    left.set()
    with pytest.raises(airlock.ScopeStateError):
        await late
    assert ran == scope.intents == []


class Interleaved:
    """Runs `first`, then `second` in another thread, each up to a moment; then `first` and then `second` to its end.

    The moments are calls and returns: after those, Python may switch threads. They are counted from zero.
    """

    #: Seconds after which one who was to go on is taken to wait for the other, who was to wait for it.
    patience = 0.02

    def __init__(self, first, first_moment, second, second_moment):
        self.first_stopped = self.second_stopped = False
        self._second_waits, self._first_has_ended = threading.Event(), threading.Event()
        self._second = threading.Thread(target=self._run, args=(second, second_moment, self._wait_for_first))
        self.outcome = self._run(first, first_moment, self._start_second)
        self._first_has_ended.set()
        if self.first_stopped:
            self._second.join()

    def _run(self, call, moment, stop):
        events = itertools.count()
        sys.setprofile(lambda frame, event, arg: stop() if next(events) == moment else None)
        try:
            return call()
        finally:
            sys.setprofile(None)
            self._second_waits.set()  # or has ended, which is the same to the first one

    def _start_second(self):
        self.first_stopped = True
        self._second.start()
        self._second_waits.wait(self.patience)

    def _wait_for_first(self):
        self.second_stopped = True
        self._second_waits.set()
        self._first_has_ended.wait(self.patience)


def in_all_interleavings(meet):
    """Call `meet`, which takes two moments and returns what was interleaved there, with all moments there are."""
    for first_moment in itertools.count():
        for second_moment in itertools.count():
            both = copy_context().run(meet, first_moment, second_moment)
            if not both.second_stopped:
                break
        if not both.first_stopped:
            break


def enqueue_late(ran):
    return partial(copy_context().run, airlock.enqueue, ran.append, "late")


def hand_over_late(ran):
    nested, context = airlock.scope(), copy_context()
    context.run(nested.enter)
    context.run(airlock.enqueue, ran.append, "late")
    context.run(nested.exit)
    return nested.flush


@pytest.mark.parametrize("prepare", [enqueue_late, hand_over_late], ids=["intent", "nested scope"])
@pytest.mark.parametrize("around", [nullcontext, airlock.scope], ids=["outermost", "nested"])
def test_what_races_with_the_end_is_dispatched_or_refused(around, prepare):
    def try_to(come_late):
        try:
            come_late()
        except airlock.ScopeStateError:
            return ["in time"]
        else:
            return ["in time", "late"]

    def leave(scope):
        scope.exit()
        scope.flush()

    def meet(coming_stops, leaving_stops):
        ran = []
        with around():
            scope = airlock.scope()
            scope.enter()
            airlock.enqueue(ran.append, "in time")
            leaving = partial(copy_context().run, leave, scope)
            both = Interleaved(partial(try_to, prepare(ran)), coming_stops, leaving, leaving_stops)
            if not both.first_stopped:
                leave(scope)
        assert ran == both.outcome
        outcomes.add(len(ran))
        return both

    outcomes = set()
    in_all_interleavings(meet)
    assert outcomes == {1, 2}


# asyncio


async def test_child_tasks_share_the_scope_while_it_is_open(ran):
    async def work(number):
        await asyncio.sleep(0)
        airlock.enqueue(ran.append, number)

    async with airlock.scope(), asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(work(number))
    assert ran == [0, 1, 2]


async def test_scopes_of_tasks_are_strangers_to_each_other():
    async def own_scope(number, arrived, go_on):
        ran = []
        async with airlock.scope() as scope:
            airlock.enqueue(ran.append, number)
            arrived.set()
            await go_on.wait()
            assert airlock.get_current_scope() is scope
            assert len(scope.intents) == 1
        return ran

    first, second = asyncio.Event(), asyncio.Event()
    assert await asyncio.gather(own_scope(1, first, second), own_scope(2, second, first)) == [[1], [2]]
    assert airlock.get_current_scope() is None


async def test_a_background_task_that_outlives_its_scope_is_told(ran):
    left = asyncio.Event()

    async def enqueue_late():
        await left.wait()
        assert airlock.get_current_scope() is scope
        with pytest.raises(airlock.ScopeStateError):
            airlock.enqueue(ran.append, 1)
        async with airlock.scope() as own:
            airlock.enqueue(ran.append, 2)
        assert own.dispatched_intents

    async with airlock.scope(airlock.DropAll(), executor=abs) as scope:
        late = asyncio.create_task(enqueue_late())
    left.set()
    await late
    assert scope.intents == []
    assert ran == [2]


async def test_a_nested_scope_that_outlives_the_one_around_it_is_told(ran):
    left = asyncio.Event()

    async def work_late():
        async with airlock.scope() as nested:
            scopes.append(nested)
            airlock.enqueue(ran.append, 1)
            await left.wait()

    scopes = []
    async with airlock.scope():
        late = asyncio.create_task(work_late())
        await asyncio.sleep(0)
    left.set()
    with pytest.raises(airlock.ScopeStateError):
        await late
    assert ran == []
    assert [intent.args for intent in scopes[0].undispatched_intents] == [(1,)]


async def test_a_local_policy_holds_in_child_tasks_and_not_beside_them(ran):
    async def work(number):
        await asyncio.sleep(0)
        airlock.enqueue(ran.append, number)

    async with airlock.scope():
        with airlock.policy(airlock.DropAll()):
            child = asyncio.create_task(work(1))
        await work(2)
        await child
    assert ran == [2]


# Greenlets


def test_scopes_of_greenlets_that_take_turns_are_strangers(ran):
    hub = greenlet.getcurrent()

    def own_scope(name):
        assert airlock.get_current_scope() is None
        with airlock.scope() as scope:
            for number in range(2):
                assert airlock.get_current_scope() is scope
                airlock.enqueue(ran.append, f"{name}{number}")
                hub.switch()

    first, second = greenlet.greenlet(own_scope), greenlet.greenlet(own_scope)
    with airlock.scope(airlock.DropAll()):
        first.switch("a")
        second.switch("b")
        first.switch()
        second.switch()
    assert ran == []
    second.switch()
    assert ran == ["b0", "b1"]
    first.switch()
    assert ran == ["b0", "b1", "a0", "a1"]


def test_a_policy_may_switch_greenlets(ran):
    hub = greenlet.getcurrent()

    class Waits(airlock.AllowAll):
        def allows(self, intent):
            hub.switch()
            return True

    worker = greenlet.greenlet(airlock.scoped(Waits())(airlock.enqueue))
    worker.switch(ran.append, 1)
    with airlock.scope():
        airlock.enqueue(ran.append, 2)
    worker.switch()
    assert ran == [2, 1]


# Entering in one context and leaving in another


def test_a_scope_may_be_entered_in_one_context_and_left_in_another(ran):
    one, other = copy_context(), copy_context()
    scope = airlock.scope()
    one.run(scope.enter)
    one.run(airlock.enqueue, ran.append, 1)
    other.run(scope.exit)
    other.run(scope.flush)
    assert ran == [1]
    assert other.run(airlock.get_current_scope) is None
    with pytest.raises(airlock.ScopeStateError):
        one.run(airlock.enqueue, ran.append, 2)


async def test_a_scope_may_be_entered_in_one_task_and_left_in_another(ran):
    scope = airlock.scope()

    async def begin():
        await scope.__aenter__()
        airlock.enqueue(ran.append, 1)

    await asyncio.create_task(begin())
    assert ran == []
    await asyncio.create_task(scope.__aexit__(None, None, None))
    assert ran == [1]
    assert airlock.get_current_scope() is None


@pytest.mark.parametrize("block", [airlock.scope(), airlock.policy(airlock.DropAll())], ids=["scope", "policy"])
def test_leaving_in_another_context_does_not_touch_what_is_current(ran, block):
    copy_context().run(block.__enter__)
    with airlock.scope() as current:
        block.__exit__(None, None, None)
        assert airlock.get_current_scope() is current
        airlock.enqueue(ran.append, 1)
    assert ran == [1]


@pytest.mark.parametrize("block", [airlock.scope, lambda: airlock.policy(airlock.AllowAll())], ids=["scope", "policy"])
def test_what_ended_in_another_context_is_not_current_any_more(block):
    def take_part():
        inner = airlock.scope()
        with airlock.scope() as outer:
            inner.enter()
            with block():
                copy_context().run(inner.exit)
                inner.flush()
            return airlock.get_current_scope() is outer

    assert copy_context().run(take_part)


# A boundary leaves nothing behind


@pytest.mark.parametrize("error", [None, ValueError("wrong")], ids=["flushed", "discarded"])
def test_a_forgotten_scope_is_left_with_the_one_around_it(ran, caplog, error):
    with pytest.raises(ValueError, match="wrong") if error else nullcontext(), airlock.scope() as outer:
        airlock.enqueue(ran.append, 1)
        forgotten = airlock.scope(airlock.DropAll())
        forgotten.enter()
        airlock.policy(airlock.DropAll()).__enter__()
        airlock.enqueue(ran.append, 2)
        if error:
            raise error
    assert airlock.get_current_scope() is None
    assert (
        f"{forgotten!r} was entered inside <Scope left, 1 intents> and never left: its intents are lost" in caplog.text
    )
    with airlock.scope():
        airlock.enqueue(ran.append, 3)
    assert ran == ([3] if error else [1, 3])
    assert outer.undispatched_intents == []


def test_a_scope_around_it_is_current_again_after_forgetting(caplog):
    with airlock.scope() as outer:
        with airlock.scope():
            airlock.scope().enter()
        assert airlock.get_current_scope() is outer
    assert caplog.text.count("never left") == 1


def test_scopes_and_policies_that_end_crosswise_leave_nothing(ran):
    def take_part():
        blocks = [
            airlock.scope(),
            airlock.policy(airlock.DropAll()),
            airlock.scope(),
            airlock.policy(airlock.DropAll()),
        ]
        for _ in range(2):
            for block in blocks:
                block.__enter__()
            for block in blocks:
                block.__exit__(None, None, None)
            assert airlock.get_current_scope() is None
            blocks = [airlock.policy(airlock.DropAll()), airlock.scope(), airlock.policy(airlock.DropAll())]
        with airlock.scope():
            airlock.enqueue(ran.append, 1)

    copy_context().run(take_part)
    assert ran == [1]


def test_a_scope_that_outlives_a_local_policy_stays_current(ran):
    scope = airlock.scope()
    with airlock.policy(airlock.BlockTasks({"blocked"})):
        scope.enter()
    assert airlock.get_current_scope() is scope
    airlock.enqueue(ran.append, 1, _name="blocked")
    airlock.enqueue(ran.append, 2)
    scope.exit()
    scope.flush()
    assert ran == [2]


@pytest.mark.parametrize("block", [airlock.scope, lambda: airlock.policy(airlock.AllowAll())], ids=["scope", "policy"])
def test_a_task_that_outlives_its_scope_is_refused_after_a_block_too(ran, block):
    def outlive():
        with block():
            pass
        with pytest.raises(airlock.ScopeStateError):
            airlock.enqueue(ran.append, 1)

    with airlock.scope():
        with airlock.scope():
            context = copy_context()
        context.run(outlive)
    assert ran == []


def test_a_local_policy_ends_though_a_scope_inside_of_it_ended_elsewhere(ran):
    with airlock.scope() as outer:
        with airlock.policy(airlock.DropAll()):
            inner = airlock.scope()
            inner.enter()
            copy_context().run(inner.exit)
        assert airlock.get_current_scope() is outer
        airlock.enqueue(ran.append, 1)
    assert ran == [1]
