"""What is over is freed at once, without waiting for the cyclic garbage collector."""

import gc
import weakref
from contextvars import ContextVar, copy_context

import pytest

import airlock
import airlock.ext


class Order:
    """An argument of an intent, so that one can see when the intent is gone."""


def process(order):
    pass


def fail(order):
    raise ValueError("wrong")


class LetsOneThrough(airlock.Scope):
    def before_descendant_flushes(self, exiting_scope, intents):
        return intents[:1]


class Crate:
    def __call__(self, intent):
        intent.task(*intent.args)

    def dispatch_many(self, intents):
        return [airlock.ext.dispatch_one(self, intent) for intent in intents]


@pytest.fixture(autouse=True)
def _without_cyclic_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def flushed(order):
    with airlock.scope():
        airlock.enqueue(process, order)


def discarded(order):
    with pytest.raises(ValueError, match="wrong"), airlock.scope():
        airlock.enqueue(process, order)
        raise ValueError("wrong")


def dropped(order):
    with airlock.scope(airlock.DropAll()), airlock.policy(airlock.AllowAll()):
        airlock.enqueue(process, order)


def refused(order):
    with airlock.scope(airlock.AssertNoEffects()), pytest.raises(airlock.PolicyViolation):
        airlock.enqueue(process, order)


def failed(order):
    with pytest.raises(ValueError, match="wrong"), airlock.scope():
        airlock.enqueue(fail, order)


def failed_in_a_batch(order):
    with pytest.raises(ValueError, match="wrong"), airlock.scope(executor=Crate()):
        airlock.enqueue(fail, order)
        airlock.enqueue(fail, order)


def captured(order):
    with airlock.scope(airlock.AllowAll()), airlock.scope(airlock.AllowAll()):
        airlock.enqueue(process, order)


def let_through(order):
    with airlock.scope(_cls=LetsOneThrough), airlock.scope(), airlock.scope():
        airlock.enqueue(process, order)
        airlock.enqueue(process, order)


@airlock.scoped
def in_function(order):
    airlock.enqueue(process, order)


@airlock.scoped
def steps(order):
    airlock.enqueue(process, order)
    yield
    yield


def generator_ended(order):
    for _ in steps(order):
        pass


def generator_closed(order):
    generator = steps(order)
    next(generator)
    generator.close()


def generator_failed(order):
    generator = steps(order)
    next(generator)
    with pytest.raises(ValueError, match="thrown"):
        generator.throw(ValueError("thrown"))


@airlock.scoped
async def async_steps(order):
    airlock.enqueue(process, order)
    yield


def step(awaitable):
    """Drive an awaitable that never waits."""
    try:
        awaitable.send(None)
    except StopIteration:
        pass
    finally:
        del awaitable  # it may hold an exception, whose traceback holds this frame


def async_generator_ended(order):
    generator = async_steps(order)
    step(generator.asend(None))
    with pytest.raises(StopAsyncIteration):
        step(generator.asend(None))


def async_generator_failed(order):
    generator = async_steps(order)
    step(generator.asend(None))
    with pytest.raises(ValueError, match="thrown"):
        step(generator.athrow(ValueError("thrown")))


@pytest.mark.parametrize(
    "life",
    [
        *(flushed, discarded, dropped, refused, failed, failed_in_a_batch, captured, let_through, in_function),
        *(generator_ended, generator_closed, generator_failed, async_generator_ended, async_generator_failed),
    ],
    ids=lambda life: life.__name__,
)
def test_nothing_is_left_of_intents_and_scopes(life):
    class Watched(airlock.Scope):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            scopes.append(weakref.ref(self))

    scopes = []
    airlock.configure(scope_cls=Watched)
    order = Order()
    gone = weakref.ref(order)
    life(order)
    del order
    assert gone() is None
    assert [scope() for scope in scopes] == [None] * len(scopes)


@pytest.mark.parametrize("policy", [None, airlock.DropAll()], ids=["dispatched", "dropped"])
def test_an_ended_intent_keeps_neither_its_scope_nor_its_context(policy):
    class Watched(airlock.Scope):
        pass

    current_order = ContextVar("current_order")
    order = Order()
    scope = airlock.scope(policy, _cls=Watched)
    scope_gone, order_gone = weakref.ref(scope), weakref.ref(order)
    with scope:
        token = current_order.set(order)
        intent = airlock.enqueue(process, 1)
        current_order.reset(token)
    del scope, order, token
    assert scope_gone() is order_gone() is None
    assert intent.args == (1,)


def test_scopes_left_in_another_context_do_not_pile_up():
    def serve():
        class Watched(airlock.Scope):
            pass

        watched = []
        for _ in range(10):
            scope = airlock.scope(_cls=Watched)
            watched.append(weakref.ref(scope))
            scope.enter()
            copy_context().run(scope.exit)
            scope.flush()
        del scope
        return sum(one() is not None for one in watched)

    assert copy_context().run(serve) <= 1, "the last one is still current where it was entered"


def test_a_very_long_chain_of_scopes_is_freed_within_the_stack():
    scopes = [airlock.scope() for _ in range(100_000)]
    for scope in scopes:
        scope.enter()
        airlock.enqueue(int)
    for scope in reversed(scopes):
        scope.exit()
        scope.flush()
    gone = weakref.ref(scopes[0])
    del scopes, scope
    assert gone() is None
