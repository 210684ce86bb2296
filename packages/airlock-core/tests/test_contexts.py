"""Whose scope it is: threads, asyncio tasks, greenlets, and contexts that come and go."""

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


def test_scopes_of_threads_are_strangers_to_each_other(other_threads):
    all_are_inside = threading.Barrier(4)

    def own_scope(number):
        ran = []
        with airlock.scope() as scope:
            all_are_inside.wait()
            airlock.enqueue(ran.append, number)
            all_are_inside.wait()
            assert len(scope.intents) == 1
        return ran

    assert list(other_threads.map(own_scope, range(4))) == [[0], [1], [2], [3]]


def test_a_local_policy_is_of_no_concern_to_other_threads(ran, other_threads):
    @airlock.scoped
    def work():
        airlock.enqueue(ran.append, 1)

    with airlock.policy(airlock.DropAll()):
        other_threads.submit(work).result()

    assert ran == [1]


def test_threads_that_share_a_scope_lose_nothing(ran, other_threads):
    def enqueue_many(thread):
        for number in range(500):
            airlock.enqueue(ran.append, (thread, number))

    with airlock.scope():
        contexts = [copy_context() for _ in range(4)]
        futures = [other_threads.submit(context.run, enqueue_many, n) for n, context in enumerate(contexts)]
        for future in futures:
            future.result()

    assert sorted(ran) == [(thread, number) for thread in range(4) for number in range(500)]
    for thread in range(4):
        assert [number for one, number in ran if one == thread] == list(range(500))


async def test_to_thread_shares_the_scope_while_it_is_open(ran):
    async with airlock.scope() as scope:
        assert await asyncio.to_thread(airlock.get_current_scope) is scope
        await asyncio.to_thread(airlock.enqueue, ran.append, 1)
        assert ran == []

    assert ran == [1]


async def test_a_scope_opened_in_to_thread_is_nested(ran):
    @airlock.scoped
    def work():
        airlock.enqueue(ran.append, 1)

    async with airlock.scope():
        await asyncio.to_thread(work)
        assert ran == []

    assert ran == [1]


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


@pytest.mark.parametrize("nested", [False, True], ids=["outermost", "nested"])
def test_a_scope_left_while_a_policy_observes_takes_nothing(ran, other_threads, nested):
    observing, left = threading.Event(), threading.Event()

    class TakesItsTime(airlock.AllowAll):
        def on_enqueue(self, intent):
            if intent.args == ("late",):
                observing.set()
                left.wait()

    def take_part():
        with airlock.scope() if nested else nullcontext():
            inner = airlock.scope(TakesItsTime())
            inner.enter()
            airlock.enqueue(ran.append, "in time")
            late = other_threads.submit(copy_context().run, airlock.enqueue, ran.append, "late")
            observing.wait()
            inner.exit()
            inner.flush()
            left.set()
            with pytest.raises(airlock.ScopeStateError):
                late.result()
        assert [intent.args for intent in inner.intents] == [("in time",)]

    copy_context().run(take_part)
    assert ran == ["in time"]


class Interleaved:
    """Runs `first`, then `second` in another thread, each up to a moment; then `first` and then `second` to its end.

    The moments are calls and returns: after those, Python may switch threads. They are counted from zero.
    """

    #: Seconds after which one who was to go on is taken to wait for the other, who was to wait for it.
    patience = 0.05

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


@pytest.mark.parametrize("nested", [False, True], ids=["outermost", "nested"])
@pytest.mark.parametrize("policy", [None, airlock.AllowAll()], ids=["no policy", "a policy"])
@pytest.mark.parametrize("in_time", [[], ["in time"]], ids=["first intent", "later intent"])
def test_however_enqueueing_and_leaving_interleave_an_intent_is_dispatched_or_refused(in_time, policy, nested):
    def enqueue(ran):
        try:
            airlock.enqueue(ran.append, "late")
        except airlock.ScopeStateError:
            return in_time
        else:
            return [*in_time, "late"]

    def leave(scope):
        scope.exit()
        scope.flush()

    def meet(enqueueing_stops, leaving_stops):
        ran = []
        with airlock.scope() if nested else nullcontext():
            scope = airlock.scope(policy)
            scope.enter()
            for word in in_time:
                airlock.enqueue(ran.append, word)
            both = Interleaved(
                partial(copy_context().run, enqueue, ran),
                enqueueing_stops,
                partial(copy_context().run, leave, scope),
                leaving_stops,
            )
            if not both.first_stopped:
                leave(scope)
        assert ran == both.outcome
        outcomes.add(len(ran) - len(in_time))
        return both

    outcomes = set()
    in_all_interleavings(meet)

    assert outcomes == {0, 1}


@pytest.mark.parametrize("nested", [False, True], ids=["in the scope itself", "in nested scopes"])
def test_however_two_threads_enqueue_the_first_intents_of_a_scope_none_is_lost(nested):
    def enqueue(ran, word):
        with airlock.scope() if nested else nullcontext():
            airlock.enqueue(ran.append, word)

    def meet(one_stops, other_stops):
        ran = []
        with airlock.scope():
            both = Interleaved(
                partial(copy_context().run, enqueue, ran, "one"),
                one_stops,
                partial(copy_context().run, enqueue, ran, "other"),
                other_stops,
            )
        if both.first_stopped:
            assert sorted(ran) == ["one", "other"]
        return both

    in_all_interleavings(meet)


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


async def test_a_scope_of_a_child_task_is_not_its_parents():
    entered, leave = asyncio.Event(), asyncio.Event()

    async def child():
        async with airlock.scope():
            entered.set()
            await leave.wait()

    async with airlock.scope() as scope:
        task = asyncio.create_task(child())
        await entered.wait()
        assert airlock.get_current_scope() is scope
        leave.set()
        await task


async def test_a_background_task_that_outlives_its_scope_is_told(ran):
    left = asyncio.Event()

    async def enqueue_late():
        await left.wait()
        current = airlock.get_current_scope()
        assert current is scope
        assert not current.is_active
        airlock.enqueue(ran.append, 1)

    async with airlock.scope() as scope:
        late = asyncio.create_task(enqueue_late())
    left.set()

    with pytest.raises(airlock.ScopeStateError):
        await late
    assert ran == scope.intents == []


async def test_a_background_task_that_outlives_its_scope_may_open_one_of_its_own(ran):
    left = asyncio.Event()

    async def work_late():
        await left.wait()
        async with airlock.scope() as own:
            airlock.enqueue(ran.append, 1)
        assert airlock.get_current_scope() is not own

    async with airlock.scope(airlock.DropAll(), executor=abs):
        late = asyncio.create_task(work_late())
    left.set()
    await late

    assert ran == [1]


async def test_a_background_task_with_a_nested_scope_open_at_the_end_of_the_outer_one_is_told(ran):
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


async def test_a_local_policy_holds_in_child_tasks_and_not_in_the_parents_meantime(ran):
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


def test_a_greenlet_is_in_no_scope_of_others(ran):
    with airlock.scope():
        assert greenlet.greenlet(airlock.get_current_scope).switch() is None


def test_scopes_of_greenlets_that_take_turns_are_strangers_to_each_other(ran):
    hub = greenlet.getcurrent()

    def own_scope(name):
        with airlock.scope() as scope:
            for number in range(3):
                assert airlock.get_current_scope() is scope
                airlock.enqueue(ran.append, f"{name}{number}")
                hub.switch()

    first, second = greenlet.greenlet(own_scope), greenlet.greenlet(own_scope)
    first.switch("a")
    second.switch("b")
    for _ in range(2):
        first.switch()
        second.switch()
    assert airlock.get_current_scope() is None
    assert ran == []

    second.switch()
    assert ran == ["b0", "b1", "b2"]
    first.switch()
    assert ran == ["b0", "b1", "b2", "a0", "a1", "a2"]


def test_a_policy_may_switch_greenlets(ran):
    hub = greenlet.getcurrent()

    class Waits(airlock.AllowAll):
        def allows(self, intent):
            hub.switch()
            return True

    @airlock.scoped(Waits())
    def work():
        airlock.enqueue(ran.append, 1)

    worker = greenlet.greenlet(work)
    worker.switch()
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


def test_leaving_in_another_context_does_not_touch_the_scope_that_is_current_there(ran):
    scope = airlock.scope()
    copy_context().run(scope.enter)
    with airlock.scope() as current:
        scope.exit()
        scope.flush()
        assert airlock.get_current_scope() is current
        airlock.enqueue(ran.append, 1)

    assert ran == [1]


async def test_a_scope_may_be_entered_in_one_task_and_left_in_another(ran):
    scope = airlock.scope()

    async def begin():
        await scope.__aenter__()
        airlock.enqueue(ran.append, 1)

    async def end():
        await scope.__aexit__(None, None, None)

    await asyncio.create_task(begin())
    assert ran == []
    await asyncio.create_task(end())

    assert ran == [1]
    assert airlock.get_current_scope() is None


def test_a_local_policy_may_be_left_in_another_context(ran):
    policy = airlock.policy(airlock.DropAll())
    copy_context().run(policy.__enter__)
    with airlock.scope():
        policy.__exit__(None, None, None)
        airlock.enqueue(ran.append, 1)

    assert ran == [1]


def test_what_ended_in_another_context_is_not_current_after_the_next_end_here():
    def take_part():
        outer, inner = airlock.scope(), airlock.scope()
        outer.enter()
        inner.enter()
        copy_context().run(inner.exit)
        inner.flush()
        outer.exit()
        outer.flush()
        return airlock.get_current_scope()

    assert copy_context().run(take_part) is None


def test_what_ended_in_another_context_is_not_current_after_a_local_policy_ends_here():
    def take_part():
        inner = airlock.scope()
        with airlock.scope() as outer:
            inner.enter()
            with airlock.policy(airlock.AllowAll()):
                copy_context().run(inner.exit)
                inner.flush()
            return airlock.get_current_scope() is outer

    assert copy_context().run(take_part)


# Ends in another order than beginnings


def test_scopes_that_end_crosswise_leave_nothing_behind():
    def take_part():
        first, second = airlock.scope(), airlock.scope()
        first.enter()
        second.enter()
        first.exit()
        first.flush()
        assert airlock.get_current_scope() is second
        second.exit()
        second.flush()
        return airlock.get_current_scope()

    assert copy_context().run(take_part) is None


@pytest.mark.parametrize("policy_first", [True, False])
def test_a_scope_and_a_local_policy_that_end_crosswise_leave_nothing_behind(ran, policy_first):
    def take_part():
        scope, policy = airlock.scope(), airlock.policy(airlock.DropAll())
        if policy_first:
            policy.__enter__()
            scope.enter()
            policy.__exit__(None, None, None)
            scope.exit()
        else:
            scope.enter()
            policy.__enter__()
            scope.exit()
            policy.__exit__(None, None, None)
        assert airlock.get_current_scope() is None
        with airlock.scope():
            airlock.enqueue(ran.append, 1)

    copy_context().run(take_part)
    assert ran == [1]


def test_local_policies_that_end_crosswise_leave_nothing_behind(ran):
    def take_part():
        first, second = airlock.policy(airlock.DropAll()), airlock.policy(airlock.BlockTasks({"blocked"}))
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)
        with airlock.scope():
            airlock.enqueue(ran.append, 1)
            airlock.enqueue(ran.append, 2, _name="blocked")

    copy_context().run(take_part)
    assert ran == [1, 2]
