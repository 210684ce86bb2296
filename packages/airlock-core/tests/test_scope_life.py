"""When: from entering a scope to its one end."""

import asyncio
import signal
from contextlib import suppress

import pytest

import airlock

BASE_EXCEPTIONS = [
    ValueError("wrong"),
    KeyboardInterrupt(),
    SystemExit(1),
    asyncio.CancelledError(),
    GeneratorExit(),
]


def left(scope, *tasks):
    """The scope, entered and left again, after enqueueing tasks without arguments."""
    scope.enter()
    for task in tasks:
        airlock.enqueue(task)
    scope.exit()
    return scope


def in_with(scope, block):
    with scope:
        block()


def in_async_with(scope, block):
    async def run():
        async with scope:
            block()

    # Driven by hand: an event loop would take KeyboardInterrupt and SystemExit personally.
    with suppress(StopIteration):
        run().send(None)


both_ways = pytest.mark.parametrize("run", [in_with, in_async_with], ids=["with", "async with"])


# Leaving it


@both_ways
def test_nothing_is_dispatched_before_the_scope_ends(ran, run):
    def block():
        airlock.enqueue(ran.append, 1)
        airlock.enqueue(ran.append, 2)
        assert ran == []

    run(airlock.scope(), block)


@both_ways
def test_a_scope_left_normally_dispatches(ran, run):
    def block():
        airlock.enqueue(ran.append, 1)
        airlock.enqueue(ran.append, 2)

    scope = airlock.scope()
    run(scope, block)

    assert ran == [1, 2]
    assert (scope.is_flushed, scope.is_discarded) == (True, False)


@both_ways
@pytest.mark.parametrize("error", BASE_EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_a_scope_left_by_an_exception_discards_and_lets_it_propagate(ran, run, error):
    def block():
        airlock.enqueue(ran.append, 1)
        raise error

    scope = airlock.scope()
    with pytest.raises(type(error)) as raised:
        run(scope, block)

    assert raised.value is error
    assert ran == []
    assert (scope.is_flushed, scope.is_discarded) == (False, True)


@both_ways
def test_a_scope_without_intents_ends_like_any_other(run):
    scope = airlock.scope()
    run(scope, lambda: None)

    assert scope.is_flushed
    assert scope.dispatched_intents == []


async def test_an_async_scope_may_wait_inside(ran):
    async with airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)
        await asyncio.sleep(0)
        assert airlock.get_current_scope() is scope
        assert ran == []

    assert ran == [1]


async def test_cancelling_a_task_discards_its_scope(ran):
    async def wait_in_scope():
        async with airlock.scope():
            airlock.enqueue(ran.append, 1)
            await asyncio.Event().wait()

    task = asyncio.create_task(wait_in_scope())
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert ran == []


def test_ctrl_c_discards(ran):
    # A shell that starts tests in the background makes Python ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), airlock.scope() as scope:
            airlock.enqueue(ran.append, 1)
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)

    assert ran == []
    assert scope.is_discarded


# should_flush


@both_ways
def test_should_flush_may_flush_in_spite_of_an_exception(ran, run):
    class FlushesAnyway(airlock.Scope):
        def should_flush(self, error):
            return True

    def block():
        airlock.enqueue(ran.append, 1)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        run(FlushesAnyway(), block)

    assert ran == [1]


@both_ways
def test_should_flush_may_discard_in_spite_of_success(ran, run):
    class NeverFlushes(airlock.Scope):
        def should_flush(self, error):
            return False

    scope = NeverFlushes()
    run(scope, lambda: airlock.enqueue(ran.append, 1))

    assert ran == []
    assert scope.is_discarded


@both_ways
def test_should_flush_is_told_what_the_block_raised(run):
    class Listens(airlock.Scope):
        def should_flush(self, error):
            told.append((error, self.is_active))
            return super().should_flush(error)

    def block():
        raise error

    told = []
    error = ValueError("wrong")
    run(Listens(), lambda: None)
    with pytest.raises(ValueError, match="wrong"):
        run(Listens(), block)

    assert told == [(None, False), (error, False)]


@both_ways
def test_a_scope_whose_should_flush_raises_discards(ran, run):
    class CannotDecide(airlock.Scope):
        def should_flush(self, error):
            raise LookupError("no response")

    scope = CannotDecide()
    with pytest.raises(LookupError):
        run(scope, lambda: airlock.enqueue(ran.append, 1))

    assert ran == []
    assert scope.is_discarded
    assert airlock.get_current_scope() is None


@both_ways
@pytest.mark.parametrize("tasks", [[], [int]], ids=["empty", "not empty"])
@pytest.mark.parametrize(
    ("overridden", "error"), [("exit", None), ("should_flush", None), ("flush", None), ("discard", ValueError("wrong"))]
)
def test_what_a_subclass_overrides_is_called(run, overridden, error, tasks):
    def noting(scope, *args):
        called.append(args)
        return getattr(airlock.Scope, overridden)(scope, *args)

    def block():
        for task in tasks:
            airlock.enqueue(task)
        if error:
            raise error

    called = []
    scope = type("Overrides", (airlock.Scope,), {overridden: noting})()
    with suppress(ValueError):
        run(scope, block)

    assert called == [(None,) if overridden == "should_flush" else ()]
    assert scope.is_discarded if error else scope.is_flushed


@both_ways
def test_an_error_while_flushing_a_failed_block_keeps_the_first_as_its_context(run):
    class FlushesAnyway(airlock.Scope):
        def should_flush(self, error):
            return True

    def fail():
        raise LookupError("dispatch")

    def block():
        airlock.enqueue(fail)
        raise ValueError("block")

    with pytest.raises(LookupError, match="dispatch") as raised:
        run(FlushesAnyway(), block)

    assert str(raised.value.__context__) == "block"


# By hand


def test_by_hand_flush_dispatches_and_returns_what_it_dispatched(ran):
    scope = airlock.scope()
    scope.enter()
    intents = [airlock.enqueue(ran.append, n) for n in range(3)]
    scope.exit()
    assert ran == []

    assert scope.flush() == intents
    assert ran == [0, 1, 2]


def test_by_hand_discard_drops_and_returns_what_it_dropped(ran):
    scope = airlock.scope()
    scope.enter()
    intents = [airlock.enqueue(ran.append, n) for n in range(3)]
    scope.exit()

    assert scope.discard() == intents
    assert ran == []


def test_a_scope_tells_how_far_its_life_has_come():
    scope = airlock.scope()
    states = []

    def note_state():
        states.append((scope.is_active, scope.is_flushed, scope.is_discarded))

    note_state()
    scope.enter()
    note_state()
    scope.exit()
    note_state()
    scope.flush()
    note_state()

    nothing_yet = (False, False, False)
    assert states == [nothing_yet, (True, False, False), nothing_yet, (False, True, False)]


@pytest.mark.parametrize("end", ["flush", "discard"])
def test_a_scope_does_not_end_before_it_was_left(ran, end):
    scope = airlock.scope()
    with pytest.raises(airlock.ScopeStateError):
        getattr(scope, end)()
    scope.enter()
    airlock.enqueue(ran.append, 1)
    with pytest.raises(airlock.ScopeStateError):
        getattr(scope, end)()
    scope.exit()

    assert (scope.is_flushed, scope.is_discarded) == (False, False)
    scope.flush()
    assert ran == [1]


@pytest.mark.parametrize("second", ["flush", "discard"])
@pytest.mark.parametrize("first", ["flush", "discard"])
def test_a_scope_ends_once(first, second):
    scope = left(airlock.scope(), int)
    getattr(scope, first)()
    before = (scope.is_flushed, scope.is_discarded, scope.dispatched_intents)

    with pytest.raises(airlock.ScopeStateError):
        getattr(scope, second)()

    assert (scope.is_flushed, scope.is_discarded, scope.dispatched_intents) == before


def test_a_flush_that_failed_is_not_repeated(ran):
    def fail():
        ran.append("tried")
        raise ValueError("wrong")

    scope = left(airlock.scope(), fail)
    with pytest.raises(ValueError, match="wrong"):
        scope.flush()

    with pytest.raises(airlock.ScopeStateError):
        scope.flush()
    assert ran == ["tried"]


def test_a_scope_is_entered_once():
    scope = airlock.scope()
    with scope, pytest.raises(airlock.ScopeStateError):
        scope.enter()
    with pytest.raises(airlock.ScopeStateError):
        scope.enter()

    assert airlock.get_current_scope() is None


def test_a_scope_is_left_once_and_only_after_it_was_entered():
    scope = airlock.scope()
    with pytest.raises(airlock.ScopeStateError):
        scope.exit()
    scope.enter()
    scope.exit()
    with pytest.raises(airlock.ScopeStateError):
        scope.exit()


# The current scope


def test_the_current_scope_is_the_innermost_one():
    assert airlock.get_current_scope() is None
    with airlock.scope() as outer:
        assert airlock.get_current_scope() is outer
        with airlock.scope() as inner:
            assert airlock.get_current_scope() is inner
        assert airlock.get_current_scope() is outer
    assert airlock.get_current_scope() is None


def test_an_exception_restores_the_current_scope_as_well():
    with airlock.scope() as outer:
        with pytest.raises(ValueError, match="wrong"), airlock.scope():
            raise ValueError("wrong")
        assert airlock.get_current_scope() is outer


def test_a_scope_left_inside_a_local_policy_is_not_current_any_more():
    scope = airlock.scope()
    scope.enter()
    with airlock.policy(airlock.AllowAll()):
        scope.exit()
        assert airlock.get_current_scope() is None
    scope.flush()


# What it holds


def test_a_scope_that_was_not_entered_holds_nothing():
    scope = airlock.scope()

    assert scope.intents == scope.own_intents == scope.captured_intents == []
    assert scope.dispatched_intents == scope.undispatched_intents == []


def test_a_scope_shows_its_intents_before_and_after_its_end():
    with airlock.scope() as scope:
        first = airlock.enqueue(int)
        assert scope.intents == [first]
        second = airlock.enqueue(int)
        assert scope.intents == scope.undispatched_intents == [first, second]
        assert scope.dispatched_intents == []

    assert scope.intents == scope.dispatched_intents == [first, second]
    assert scope.undispatched_intents == []


def test_a_discarded_scope_owes_nothing():
    with pytest.raises(ValueError, match="wrong"), airlock.scope() as scope:
        intent = airlock.enqueue(int)
        raise ValueError("wrong")

    assert scope.intents == [intent]
    assert scope.dispatched_intents == scope.undispatched_intents == []


def test_what_a_scope_shows_is_read_only(ran):
    shown = ["intents", "own_intents", "captured_intents", "dispatched_intents", "undispatched_intents"]
    with airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)
        for name in shown:
            getattr(scope, name).clear()
            with pytest.raises(AttributeError):
                setattr(scope, name, [])
        for name in ("is_active", "is_flushed", "is_discarded"):
            with pytest.raises(AttributeError):
                setattr(scope, name, True)

    assert ran == [1]


def test_a_scope_describes_itself():
    class RequestScope(airlock.Scope):
        pass

    scope = RequestScope()
    assert repr(scope) == "<RequestScope not entered, 0 intents>"
    scope.enter()
    airlock.enqueue(int)
    airlock.enqueue(int)
    assert repr(scope) == "<RequestScope active, 2 intents>"
    scope.exit()
    assert repr(scope) == "<RequestScope left, 2 intents>"
    scope.flush()
    assert repr(scope) == "<RequestScope flushed, 2 intents>"
    other = left(RequestScope())
    other.discard()
    assert repr(other) == "<RequestScope discarded, 0 intents>"
