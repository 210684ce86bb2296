"""A scope around every call: functions, coroutine functions, generators, async generators."""

import asyncio
import functools
import gc
import inspect
import threading
from contextlib import aclosing, closing
from contextvars import copy_context

import pytest

import airlock


def run(coroutine):
    """Drive a coroutine that never waits. No event loop looks after the async generators in it."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for something")


# Functions


def test_a_function_runs_in_a_scope_of_its_own(ran):
    @airlock.scoped
    def work(number):
        airlock.enqueue(ran.append, number)
        assert ran == []
        return airlock.get_current_scope()

    scope = work(1)

    assert scope.is_flushed
    assert ran == [1]
    ran.clear()
    assert work(2) is not scope
    assert ran == [2]
    assert airlock.get_current_scope() is None


def test_a_function_that_raises_discards(ran):
    @airlock.scoped
    def work():
        airlock.enqueue(ran.append, 1)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        work()
    assert ran == []


def test_a_method_runs_in_a_scope_of_its_own(ran):
    class Order:
        @airlock.scoped
        def place(self, number):
            airlock.enqueue(ran.append, (self, number))

    order = Order()
    order.place(number=1)

    assert ran == [(order, 1)]


def test_a_function_called_in_a_scope_is_nested(ran):
    @airlock.scoped
    def work():
        airlock.enqueue(ran.append, 1)

    with airlock.scope():
        work()
        assert ran == []
    assert ran == [1]


@pytest.mark.parametrize("decorate", [airlock.scoped, airlock.scoped()], ids=["bare", "with parentheses"])
def test_both_ways_to_decorate_do_the_same(ran, decorate):
    @decorate
    def work():
        airlock.enqueue(ran.append, 1)
        assert ran == []
        return "returned"

    assert work() == "returned"
    assert ran == [1]


def test_arguments_of_the_decorator_are_those_of_scope(ran):
    class Marked(airlock.Scope):
        def __init__(self, policy=None, *, executor=None, mark):
            super().__init__(policy, executor=executor)
            self.mark = mark

    given = []

    @airlock.scoped(airlock.BlockTasks({"blocked"}), executor=given.append, _cls=Marked, mark=7)
    def work():
        airlock.enqueue(ran.append, 1, _name="blocked")
        airlock.enqueue(ran.append, 2)
        return airlock.get_current_scope()

    assert work().mark == 7
    assert [intent.args for intent in given] == [(2,)]


def test_a_policy_may_be_given_by_name_and_may_be_callable(ran):
    class CallablePolicy(airlock.DropAll):
        def __call__(self):
            raise AssertionError("nobody calls a policy")

    @airlock.scoped(CallablePolicy())
    def one():
        airlock.enqueue(ran.append, 1)

    @airlock.scoped(policy=airlock.DropAll())
    def other():
        airlock.enqueue(ran.append, 2)

    one()
    other()
    assert ran == []


def test_the_configuration_counts_at_the_call_not_at_the_decoration(ran):
    @airlock.scoped
    def work():
        airlock.enqueue(ran.append, 1)

    airlock.configure(policy=airlock.DropAll())
    work()

    assert ran == []


@pytest.mark.parametrize("nonsense", [airlock.DropAll, 42, "drop"], ids=repr)
def test_what_is_no_policy_is_refused_at_the_decoration(nonsense):
    with pytest.raises(TypeError, match=r"policy"):
        airlock.scoped(nonsense)


def test_what_is_no_executor_is_refused_at_the_decoration():
    with pytest.raises(TypeError, match="executor"):
        airlock.scoped(executor=42)


@pytest.mark.parametrize("nonsense", [42, airlock.Scope, classmethod(abs)], ids=["number", "class", "classmethod"])
def test_what_is_no_function_is_refused(nonsense):
    with pytest.raises(TypeError, match="decorates functions"):
        airlock.scoped()(nonsense)


def function(number: int, *, flag: bool = False) -> int:
    """What it does."""
    return number


async def coroutine_function(number: int, *, flag: bool = False) -> int:
    """What it does."""
    return number


def generator_function(number: int, *, flag: bool = False):
    """What it does."""
    yield number


async def async_generator_function(number: int, *, flag: bool = False):
    """What it does."""
    yield number


@pytest.mark.parametrize(
    "plain",
    [function, coroutine_function, generator_function, async_generator_function],
    ids=lambda plain: plain.__name__,
)
def test_name_signature_and_kind_are_kept(plain):
    decorated = airlock.scoped(plain)

    assert (decorated.__name__, decorated.__doc__, decorated.__module__) == (plain.__name__, "What it does.", __name__)
    assert inspect.signature(decorated) == inspect.signature(plain)
    for is_kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert is_kind(decorated) == is_kind(plain)


# Coroutine functions


async def test_a_coroutine_runs_in_a_scope_of_its_own(ran):
    @airlock.scoped
    async def work(number):
        airlock.enqueue(ran.append, number)
        await asyncio.sleep(0)
        assert ran == []
        return "returned"

    assert await work(1) == "returned"
    assert ran == [1]


async def test_a_coroutine_that_raises_or_is_cancelled_discards(ran):
    @airlock.scoped
    async def work(wait_for):
        airlock.enqueue(ran.append, 1)
        await wait_for
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await work(asyncio.sleep(0))
    task = asyncio.create_task(work(asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ran == []


async def test_the_scope_of_a_coroutine_begins_when_it_is_awaited(ran):
    @airlock.scoped
    async def work():
        airlock.enqueue(ran.append, 1)

    with airlock.scope():
        started_later = work()
    await started_later

    assert ran == [1]


async def test_a_partial_of_a_coroutine_function_is_one_too(ran):
    async def work(number):
        await asyncio.sleep(0)
        airlock.enqueue(ran.append, number)

    await airlock.scoped(functools.partial(work, 1))()

    assert ran == [1]


# Generators


def test_a_generator_dispatches_when_it_ends(ran):
    @airlock.scoped
    def steps():
        for number in range(3):
            airlock.enqueue(ran.append, number)
            yield number

    generator = steps()
    assert [next(generator), next(generator), next(generator)] == [0, 1, 2]
    assert ran == []
    assert next(generator, "end") == "end"
    assert ran == [0, 1, 2]


def test_a_generator_receives_returns_and_lets_its_result_through(ran):
    @airlock.scoped
    def echo():
        received = yield "first"
        while received is not None:
            airlock.enqueue(ran.append, received)
            received = yield received * 2
        return "returned"

    def consume():
        consumed.append((yield from echo()))

    consumed = []
    generator = consume()
    assert next(generator) == "first"
    assert generator.send(1) == 2
    assert generator.send(2) == 4
    with pytest.raises(StopIteration):
        generator.send(None)
    assert consumed == ["returned"]
    assert ran == [1, 2]


def test_a_generator_may_handle_what_is_thrown_into_it(ran):
    @airlock.scoped
    def steps():
        try:
            yield "first"
        except LookupError as error:
            airlock.enqueue(ran.append, str(error))
            yield "handled"

    generator = steps()
    next(generator)
    assert generator.throw(LookupError("thrown")) == "handled"
    assert next(generator, "end") == "end"

    assert ran == ["thrown"]


def test_a_generator_that_does_not_handle_what_is_thrown_into_it_discards(ran):
    @airlock.scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        yield

    error = LookupError("thrown")
    generator = steps()
    next(generator)
    with pytest.raises(LookupError) as raised:
        generator.throw(error)

    assert raised.value is error
    assert ran == []


def test_a_generator_that_raises_discards(ran):
    @airlock.scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        yield
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        list(steps())
    assert ran == []


def test_a_generator_closed_before_its_end_discards_and_cleans_up_inside(ran):
    @airlock.scoped
    def steps():
        try:
            airlock.enqueue(ran.append, 1)
            yield
        finally:
            ended_in.append(airlock.get_current_scope())

    ended_in = []
    with closing(steps()) as generator:
        next(generator)

    assert ran == []
    assert ended_in[0].is_discarded


def test_a_generator_that_ends_normally_when_it_is_closed_discards_all_the_same(ran):
    @airlock.scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        try:
            yield
        except GeneratorExit:
            return

    with closing(steps()) as generator:
        next(generator)
    assert ran == []


def test_a_generator_that_refuses_to_close_is_an_error_and_discards(ran):
    @airlock.scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        try:
            yield 1
        except GeneratorExit:
            yield 2

    generator = steps()
    next(generator)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        generator.close()
    assert ran == []


def test_a_generator_that_is_left_early_and_forgotten_discards(ran):
    @airlock.scoped
    def steps():
        scopes.append(airlock.get_current_scope())
        for number in range(3):
            airlock.enqueue(ran.append, number)
            yield number

    scopes = []
    for number in steps():
        if number == 1:
            break

    assert scopes[0].is_discarded
    assert ran == []


def test_a_generator_that_was_never_started_does_nothing(ran):
    @airlock.scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        yield

    steps().close()
    assert ran == []


def test_a_generator_without_steps_is_in_its_scope_as_well(ran):
    @airlock.scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        return
        yield

    assert list(steps()) == []
    assert ran == [1]


def test_the_scope_of_a_generator_begins_with_its_first_step(ran):
    @airlock.scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        yield

    generator = steps()
    with airlock.scope():
        next(generator)
        next(generator, None)
        assert ran == []
    assert ran == [1]


# Suspended generators


def test_a_suspended_generators_scope_is_not_its_consumers(ran):
    @airlock.scoped
    def steps():
        for number in range(3):
            airlock.enqueue(ran.append, number)
            yield

    with airlock.scope() as outer:
        for _ in steps():
            assert airlock.get_current_scope() is outer
            airlock.enqueue(ran.append, "consumer")
            assert len(outer.own_intents) == len(outer.intents)
    assert ran == [0, "consumer", 1, "consumer", 2, "consumer"]


def test_the_consumer_of_a_suspended_generator_is_in_no_scope_if_it_opened_none(ran):
    @airlock.scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        yield

    for _ in steps():
        assert airlock.get_current_scope() is None
        with pytest.raises(airlock.NoScopeError):
            airlock.enqueue(ran.append, "consumer")
    assert ran == [1]


def test_generators_that_take_turns_are_strangers_to_each_other(ran):
    @airlock.scoped
    def steps(name):
        for number in range(3):
            airlock.enqueue(ran.append, f"{name}{number}")
            yield airlock.get_current_scope()

    first, second = steps("a"), steps("b")
    for _ in range(3):
        assert next(first) is not next(second)
        assert airlock.get_current_scope() is None
    assert next(second, "end") == "end"
    assert ran == ["b0", "b1", "b2"]
    first.close()
    assert ran == ["b0", "b1", "b2"]


def test_generators_that_take_turns_in_a_scope_keep_the_order_of_enqueueing(ran):
    @airlock.scoped
    def steps(name):
        for number in range(2):
            airlock.enqueue(ran.append, f"{name}{number}")
            yield

    with airlock.scope():
        for _ in zip(steps("a"), steps("b"), strict=True):
            airlock.enqueue(ran.append, "consumer")
        assert ran == []
    assert ran == ["a0", "b0", "consumer", "a1", "b1", "consumer"]


def test_scopes_and_policies_inside_a_suspended_generator_stay_there(ran):
    @airlock.scoped
    def steps():
        with airlock.policy(airlock.BlockTasks({"blocked"})):
            with airlock.scope():
                airlock.enqueue(ran.append, 1, _name="blocked")
                yield
                airlock.enqueue(ran.append, 2, _name="blocked")
                airlock.enqueue(ran.append, 3)
                yield
            yield
        airlock.enqueue(ran.append, 4, _name="blocked")

    with airlock.scope() as outer:
        for number, _ in enumerate(steps()):
            assert airlock.get_current_scope() is outer
            airlock.enqueue(ran.append, f"consumer {number}", _name="blocked")

    assert ran == ["consumer 0", 3, "consumer 1", "consumer 2", 4]


def test_scopes_and_policies_around_a_later_step_are_not_the_generators(ran):
    @airlock.scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        yield airlock.get_current_scope()
        airlock.enqueue(ran.append, 2)
        yield airlock.get_current_scope()

    generator = steps()
    scope = next(generator)
    with airlock.scope(airlock.DropAll()) as other, airlock.policy(airlock.DropAll()):
        assert next(generator) is scope
        assert airlock.get_current_scope() is other
    assert next(generator, "end") == "end"

    assert ran == [1, 2]
    assert other.intents == []


def test_a_generator_may_consume_another(ran):
    @airlock.scoped
    def inner():
        airlock.enqueue(ran.append, "inner 1")
        yield 1
        airlock.enqueue(ran.append, "inner 2")
        yield 2

    @airlock.scoped
    def outer():
        airlock.enqueue(ran.append, "outer")
        yield from inner()
        assert ran == []

    assert list(outer()) == [1, 2]
    assert ran == ["outer", "inner 1", "inner 2"]


def test_a_generator_may_take_its_steps_in_different_contexts_and_threads(ran):
    @airlock.scoped
    def steps():
        for number in range(4):
            airlock.enqueue(ran.append, number)
            yield airlock.get_current_scope()

    generator = steps()
    first = next(generator)
    assert copy_context().run(next, generator) is first
    thread = threading.Thread(target=lambda: seen.append(next(generator)))
    seen = []
    thread.start()
    thread.join()
    assert seen == [first]
    assert copy_context().run(list, generator) == [first]

    assert ran == [0, 1, 2, 3]


def test_a_generator_collected_somewhere_else_discards_and_disturbs_nobody(ran):
    @airlock.scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        yield scopes.append(airlock.get_current_scope())

    scopes = []
    in_a_cycle = [steps()]
    in_a_cycle.append(in_a_cycle)
    next(in_a_cycle[0])
    del in_a_cycle
    with airlock.scope() as scope:
        gc.collect()
        assert airlock.get_current_scope() is scope
        airlock.enqueue(ran.append, 2)

    assert scopes[0].is_discarded
    assert ran == [2]


def test_a_generator_that_outlives_the_scope_it_began_in_is_told(ran):
    @airlock.scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        yield

    with airlock.scope():
        generator = steps()
        next(generator)

    with pytest.raises(airlock.ScopeStateError):
        next(generator)
    assert ran == []


# Async generators


async def test_an_async_generator_dispatches_when_it_ends(ran):
    @airlock.scoped
    async def steps():
        for number in range(3):
            await asyncio.sleep(0)
            airlock.enqueue(ran.append, number)
            yield number

    produced = []
    async for number in steps():
        produced.append(number)
        assert ran == []

    assert produced == [0, 1, 2]
    assert ran == [0, 1, 2]


async def test_an_async_generator_receives(ran):
    @airlock.scoped
    async def echo():
        received = yield "first"
        while received is not None:
            airlock.enqueue(ran.append, received)
            received = yield received * 2

    generator = echo()
    assert await anext(generator) == "first"
    assert await generator.asend(1) == 2
    assert await generator.asend(2) == 4
    with pytest.raises(StopAsyncIteration):
        await generator.asend(None)
    assert ran == [1, 2]


async def test_an_async_generator_may_handle_what_is_thrown_into_it(ran):
    @airlock.scoped
    async def steps():
        try:
            yield "first"
        except LookupError as error:
            airlock.enqueue(ran.append, str(error))
            yield "handled"

    generator = steps()
    await anext(generator)
    assert await generator.athrow(LookupError("thrown")) == "handled"
    assert await anext(generator, "end") == "end"

    assert ran == ["thrown"]


async def test_an_async_generator_that_does_not_handle_what_is_thrown_into_it_discards(ran):
    @airlock.scoped
    async def steps():
        airlock.enqueue(ran.append, 1)
        yield

    error = LookupError("thrown")
    generator = steps()
    await anext(generator)
    with pytest.raises(LookupError) as raised:
        await generator.athrow(error)

    assert raised.value is error
    assert ran == []


async def test_an_async_generator_that_raises_discards(ran):
    @airlock.scoped
    async def steps():
        airlock.enqueue(ran.append, 1)
        yield
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        [_ async for _ in steps()]
    assert ran == []


async def test_an_async_generator_closed_before_its_end_discards_and_cleans_up_inside(ran):
    @airlock.scoped
    async def steps():
        try:
            airlock.enqueue(ran.append, 1)
            yield
        finally:
            await asyncio.sleep(0)
            ended_in.append(airlock.get_current_scope())

    ended_in = []
    async with aclosing(steps()) as generator:
        await anext(generator)

    assert ran == []
    assert ended_in[0].is_discarded


async def test_an_async_generator_that_ends_normally_when_it_is_closed_discards_all_the_same(ran):
    @airlock.scoped
    async def steps():
        airlock.enqueue(ran.append, 1)
        try:
            yield
        except GeneratorExit:
            return

    async with aclosing(steps()) as generator:
        await anext(generator)
    assert ran == []


async def test_an_async_generator_that_fails_while_it_is_closed_discards(ran):
    @airlock.scoped
    async def steps():
        airlock.enqueue(ran.append, 1)
        try:
            yield
        finally:
            raise ValueError("wrong")

    generator = steps()
    await anext(generator)
    with pytest.raises(ValueError, match="wrong"):
        await generator.aclose()
    assert ran == []


async def test_an_async_generator_that_refuses_to_close_is_an_error_and_discards(ran):
    @airlock.scoped
    async def steps():
        airlock.enqueue(ran.append, 1)
        try:
            yield 1
        except GeneratorExit:
            yield 2

    generator = steps()
    await anext(generator)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        await generator.aclose()
    assert ran == []


async def test_an_async_generator_that_is_left_early_and_forgotten_discards(ran):
    @airlock.scoped
    async def steps():
        scopes.append(airlock.get_current_scope())
        for number in range(3):
            airlock.enqueue(ran.append, number)
            yield number

    scopes = []
    async for number in steps():
        if number == 1:
            break
    # The event loop closes what was forgotten, in a task of its own.
    while not scopes[0].is_discarded:
        await asyncio.sleep(0)

    assert ran == []


def test_an_async_generator_forgotten_without_an_event_loop_discards(ran):
    @airlock.scoped
    async def steps():
        airlock.enqueue(ran.append, 1)
        yield airlock.get_current_scope()

    scope = run(anext(steps()))

    assert scope.is_discarded
    assert ran == []


async def test_cancelling_the_consumer_inside_a_step_discards(ran):
    @airlock.scoped
    async def steps():
        airlock.enqueue(ran.append, 1)
        yield
        try:
            await asyncio.Event().wait()
        finally:
            ended_in.append(airlock.get_current_scope())

    async def consume():
        async for _ in steps():
            pass

    ended_in = []
    task = asyncio.create_task(consume())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ended_in[0].is_discarded
    assert ran == []


async def test_a_suspended_async_generators_scope_is_not_its_consumers(ran):
    @airlock.scoped
    async def steps():
        for number in range(2):
            airlock.enqueue(ran.append, number)
            yield

    async with airlock.scope() as outer:
        async for _ in steps():
            assert airlock.get_current_scope() is outer
            airlock.enqueue(ran.append, "consumer")
    assert ran == [0, "consumer", 1, "consumer"]


async def test_async_generators_that_take_turns_are_strangers_to_each_other(ran):
    @airlock.scoped
    async def steps(name):
        for number in range(3):
            await asyncio.sleep(0)
            airlock.enqueue(ran.append, f"{name}{number}")
            yield airlock.get_current_scope()

    first, second = steps("a"), steps("b")
    for _ in range(3):
        assert await anext(first) is not await anext(second)
        assert airlock.get_current_scope() is None
    assert await anext(second, "end") == "end"
    assert ran == ["b0", "b1", "b2"]
    await first.aclose()
    assert ran == ["b0", "b1", "b2"]


async def test_scopes_and_policies_inside_a_suspended_async_generator_stay_there(ran):
    @airlock.scoped
    async def steps():
        with airlock.policy(airlock.BlockTasks({"blocked"})):
            async with airlock.scope():
                airlock.enqueue(ran.append, 1, _name="blocked")
                yield
                airlock.enqueue(ran.append, 2, _name="blocked")
                airlock.enqueue(ran.append, 3)
                yield
        airlock.enqueue(ran.append, 4, _name="blocked")

    async with airlock.scope() as outer:
        async for _ in steps():
            assert airlock.get_current_scope() is outer
            airlock.enqueue(ran.append, "consumer", _name="blocked")

    assert ran == ["consumer", 3, "consumer", 4]


async def test_an_async_generator_may_take_its_steps_in_different_tasks(ran):
    @airlock.scoped
    async def steps():
        for number in range(3):
            airlock.enqueue(ran.append, number)
            yield airlock.get_current_scope()

    generator = steps()
    scopes = {await asyncio.create_task(anext(generator)) for _ in range(3)}
    assert await asyncio.create_task(anext(generator, "end")) == "end"

    assert len(scopes) == 1
    assert ran == [0, 1, 2]


async def test_a_scope_with_async_ends_is_awaited_around_coroutines_and_async_generators(ran):
    class AwaitsItsEnds(airlock.Scope):
        async def __aenter__(self):
            await asyncio.sleep(0)
            return await super().__aenter__()

        async def __aexit__(self, *error):
            await asyncio.sleep(0)
            await super().__aexit__(*error)

    @airlock.scoped(_cls=AwaitsItsEnds)
    async def work():
        airlock.enqueue(ran.append, 1)

    @airlock.scoped(_cls=AwaitsItsEnds)
    async def steps():
        airlock.enqueue(ran.append, 2)
        yield

    await work()
    assert [_ async for _ in steps()] == [None]
    assert ran == [1, 2]
    assert airlock.get_current_scope() is None
