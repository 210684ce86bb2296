"""A scope around every call: functions, coroutine functions, generators, async generators."""

import asyncio
import functools
import gc
import inspect
import threading
from contextlib import aclosing
from contextvars import copy_context

import pytest

import airlock

# Functions


def test_a_function_runs_in_a_scope_of_its_own(ran):
    @airlock.scoped
    def work(number):
        airlock.enqueue(ran.append, number)
        assert number not in ran
        return airlock.get_current_scope()

    assert work(1).is_flushed
    assert work(2) is not work(3)
    assert ran == [1, 2, 3]
    assert airlock.get_current_scope() is None


def test_a_function_that_raises_discards(ran):
    @airlock.scoped
    def work():
        airlock.enqueue(ran.append, 1)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        work()
    assert ran == []


def test_methods_can_be_decorated(ran):
    class Order:
        @airlock.scoped
        def place(self, number):
            airlock.enqueue(ran.append, (self, number))

    order = Order()
    order.place(number=1)
    assert ran == [(order, 1)]


def test_a_function_called_in_a_scope_is_nested(ran):
    with airlock.scope():
        airlock.scoped(airlock.enqueue)(ran.append, 1)
        assert ran == []
    assert ran == [1]


def test_arguments_of_the_decorator_are_those_of_scope(ran):
    class Marked(airlock.Scope):
        def __init__(self, *args, mark, **kwargs):
            super().__init__(*args, **kwargs)
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

    airlock.scoped(CallablePolicy())(airlock.enqueue)(ran.append, 1)
    airlock.scoped(policy=airlock.DropAll())(airlock.enqueue)(ran.append, 2)
    assert ran == []


def test_the_configuration_counts_at_the_call_not_at_the_decoration(ran):
    work = airlock.scoped()(airlock.enqueue)
    airlock.configure(policy=airlock.DropAll())
    work(ran.append, 1)
    assert ran == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"policy": airlock.DropAll}, "class"), ({"policy": 42}, "policy"), ({"executor": 42}, "executor")],
    ids=repr,
)
def test_wrong_arguments_are_refused_at_the_decoration(arguments, message):
    with pytest.raises(TypeError, match=message):
        airlock.scoped(**arguments)


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
        assert number not in ran
        return "returned"

    with airlock.scope():
        started_later = work(1)
    assert await started_later == "returned"
    assert ran == [1]
    await airlock.scoped(functools.partial(work, 2))()
    assert ran == [1, 2]


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


# Generators of both kinds


def as_async(function):
    """An async generator function that does what a generator function does."""

    @functools.wraps(function)
    async def async_function(*args):
        generator = function(*args)
        resume = functools.partial(next, generator)
        while True:
            try:
                produced = resume()
            except StopIteration:
                return
            try:
                resume = functools.partial(generator.send, (yield produced))
            except BaseException as error:
                resume = functools.partial(generator.throw, error)

    return async_function


class Driven:
    """An async generator that never waits, driven by hand as if it were a plain one."""

    def __init__(self, generator):
        self.generator = generator

    def __iter__(self):
        return self

    def __next__(self):
        return self.run(self.generator.asend(None))

    def send(self, value):
        return self.run(self.generator.asend(value))

    def throw(self, error):
        return self.run(self.generator.athrow(error))

    def close(self):
        self.run(self.generator.aclose())

    def run(self, awaitable):
        try:
            awaitable.send(None)
        except StopIteration as end:
            return end.value
        except StopAsyncIteration:
            raise StopIteration from None


@pytest.fixture(params=["generator", "async generator"])
def scoped(request):
    """`airlock.scoped`. It makes an async generator of what it decorates in one of two runs."""

    def scoped(function):
        if request.param == "generator":
            return airlock.scoped(function)
        decorated = airlock.scoped(as_async(function))
        return lambda *args: Driven(decorated(*args))

    return scoped


def test_a_generator_dispatches_when_it_ends(ran, scoped):
    @scoped
    def steps():
        for number in range(3):
            airlock.enqueue(ran.append, number)
            yield number

    generator = steps()
    assert [next(generator), next(generator), next(generator)] == [0, 1, 2]
    assert ran == []
    assert next(generator, "end") == "end"
    assert ran == [0, 1, 2]


def test_a_generator_receives(ran, scoped):
    @scoped
    def echo():
        received = yield "first"
        while received is not None:
            airlock.enqueue(ran.append, received)
            received = yield received * 2

    generator = echo()
    assert [next(generator), generator.send(1), generator.send(2)] == ["first", 2, 4]
    with pytest.raises(StopIteration):
        generator.send(None)
    assert ran == [1, 2]


def test_a_generator_returns():
    @airlock.scoped
    def steps():
        yield 1
        return "returned"

    def consume():
        result = yield from steps()
        yield result

    assert list(consume()) == [1, "returned"]


def test_a_generator_may_handle_what_is_thrown_into_it(ran, scoped):
    @scoped
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


def test_a_generator_that_does_not_handle_what_is_thrown_discards(ran, scoped):
    @scoped
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


def test_a_generator_that_raises_discards(ran, scoped):
    @scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        yield
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        list(steps())
    assert ran == []


def test_a_generator_closed_early_discards_and_cleans_up_inside(ran, scoped):
    @scoped
    def steps():
        try:
            airlock.enqueue(ran.append, 1)
            yield
        finally:
            ended_in.append(airlock.get_current_scope())

    ended_in = []
    generator = steps()
    next(generator)
    generator.close()
    assert ended_in[0].is_discarded
    assert ran == []


def test_a_generator_that_ends_normally_when_closed_discards(ran, scoped):
    @scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        try:
            yield
        except GeneratorExit:
            return

    generator = steps()
    next(generator)
    generator.close()
    assert ran == []


@pytest.mark.parametrize(("error", "message"), [(None, "ignored GeneratorExit"), (RuntimeError("wrong"), "wrong")])
def test_a_generator_that_cannot_be_closed_is_an_error_and_discards(ran, scoped, error, message):
    @scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        try:
            yield 1
        except GeneratorExit:
            if error:
                raise error from None
            yield 2

    generator = steps()
    next(generator)
    with pytest.raises(RuntimeError, match=message):
        generator.close()
    assert ran == []


def test_a_generator_that_is_forgotten_discards(ran, scoped):
    @scoped
    def steps():
        airlock.enqueue(ran.append, 1)
        yield airlock.get_current_scope()

    scope = next(steps())
    gc.collect()
    assert scope.is_discarded
    assert ran == []


def test_a_generator_that_was_never_started_does_nothing(ran, scoped):
    @scoped
    def steps():
        yield airlock.enqueue(ran.append, 1)

    steps().close()
    assert ran == []


def test_the_scope_of_a_generator_begins_with_its_first_step(ran, scoped):
    @scoped
    def steps():
        yield airlock.enqueue(ran.append, 1)

    generator = steps()
    with airlock.scope():
        next(generator)
        next(generator, None)
        assert ran == []
    assert ran == [1]


def test_a_suspended_generators_scope_is_not_its_consumers(ran, scoped):
    @scoped
    def steps():
        for number in range(2):
            yield airlock.enqueue(ran.append, number)

    with airlock.scope() as outer:
        for _ in steps():
            assert airlock.get_current_scope() is outer
            airlock.enqueue(ran.append, "consumer")
            assert len(outer.own_intents) == len(outer.intents)
    assert ran == [0, "consumer", 1, "consumer"]


def test_the_consumer_of_a_suspended_generator_may_be_in_no_scope(ran, scoped):
    @scoped
    def steps():
        yield airlock.enqueue(ran.append, 1)

    for _ in steps():
        assert airlock.get_current_scope() is None
        with pytest.raises(airlock.NoScopeError):
            airlock.enqueue(ran.append, "consumer")
    assert ran == [1]


def test_generators_that_take_turns_are_strangers_to_each_other(ran, scoped):
    @scoped
    def steps(name):
        for number in range(2):
            airlock.enqueue(ran.append, f"{name}{number}")
            yield airlock.get_current_scope()

    first, second = steps("a"), steps("b")
    for _ in range(2):
        assert next(first) is not next(second)
        assert airlock.get_current_scope() is None
    assert next(second, "end") == "end"
    assert ran == ["b0", "b1"]
    first.close()
    assert ran == ["b0", "b1"]


def test_scopes_and_policies_in_a_suspended_generator_stay_there(ran, scoped):
    @scoped
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


def test_what_is_around_a_later_step_is_not_the_generators(ran, scoped):
    @scoped
    def steps():
        for number in (1, 2):
            airlock.enqueue(ran.append, number)
            yield airlock.get_current_scope()

    generator = steps()
    scope = next(generator)
    with airlock.scope(airlock.DropAll()) as other, airlock.policy(airlock.DropAll()):
        assert next(generator) is scope
        assert airlock.get_current_scope() is other
    next(generator, None)
    assert ran == [1, 2]
    assert other.intents == []


def test_a_generator_may_consume_another(ran, scoped):
    @scoped
    def inner():
        for number in (1, 2):
            airlock.enqueue(ran.append, number)
            yield number

    @scoped
    def outer():
        airlock.enqueue(ran.append, "outer")
        yield from inner()
        assert ran == []

    assert list(outer()) == [1, 2]
    assert ran == ["outer", 1, 2]


def test_a_generator_may_take_its_steps_in_contexts_and_threads(ran, scoped):
    @scoped
    def steps():
        for number in range(3):
            airlock.enqueue(ran.append, number)
            yield airlock.get_current_scope()

    generator = steps()
    seen = [next(generator), copy_context().run(next, generator)]
    thread = threading.Thread(target=lambda: seen.append(next(generator)))
    thread.start()
    thread.join()
    assert copy_context().run(list, generator) == []
    assert len(set(seen)) == 1
    assert ran == [0, 1, 2]


def test_a_generator_collected_somewhere_else_disturbs_nobody(ran, scoped):
    @scoped
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


def test_a_generator_that_outlives_the_scope_it_began_in_is_told(ran, scoped):
    @scoped
    def steps():
        yield airlock.enqueue(ran.append, 1)

    with airlock.scope():
        generator = steps()
        next(generator)
    with pytest.raises(airlock.ScopeStateError):
        next(generator)
    assert ran == []


# Async generators in an event loop


async def test_an_async_generator_may_wait_and_change_tasks(ran):
    @airlock.scoped
    async def steps():
        try:
            for number in range(2):
                await asyncio.sleep(0)
                airlock.enqueue(ran.append, number)
                yield airlock.get_current_scope()
        finally:
            await asyncio.sleep(0)

    generator = steps()
    scopes = {await asyncio.create_task(anext(generator)) for _ in range(2)}
    assert await asyncio.create_task(anext(generator, "end")) == "end"
    assert len(scopes) == 1
    assert ran == [0, 1]
    async with aclosing(steps()) as generator:
        await anext(generator)
    assert ran == [0, 1]


async def test_a_forgotten_async_generator_discards_in_the_event_loop(ran):
    @airlock.scoped
    async def steps():
        airlock.enqueue(ran.append, 1)
        yield scopes.append(airlock.get_current_scope())

    scopes = []
    await anext(steps())
    while not scopes[0].is_discarded:  # the event loop closes it, in a task of its own
        await asyncio.sleep(0)
    assert ran == []


async def test_cancelling_the_consumer_inside_a_step_discards(ran):
    @airlock.scoped
    async def steps():
        yield airlock.enqueue(ran.append, 1)
        scopes.append(airlock.get_current_scope())
        await asyncio.Event().wait()

    async def consume():
        async for _ in steps():
            pass

    scopes = []
    task = asyncio.create_task(consume())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scopes[0].is_discarded
    assert ran == []


async def test_a_scope_with_async_ends_is_awaited(ran):
    class AwaitsItsEnds(airlock.Scope):
        async def __aenter__(self):
            await asyncio.sleep(0)
            return await super().__aenter__()

        async def aflush(self):
            await asyncio.sleep(0)
            return await super().aflush()

    @airlock.scoped(_cls=AwaitsItsEnds)
    async def work():
        airlock.enqueue(ran.append, 1)

    @airlock.scoped(_cls=AwaitsItsEnds)
    async def steps():
        yield airlock.enqueue(ran.append, 2)

    await work()
    assert len([_ async for _ in steps()]) == 1
    assert ran == [1, 2]
