"""When: from entering a scope to its one end."""

import asyncio
import signal
from contextlib import nullcontext, suppress

import pytest

import airlock


def left(scope, *tasks):
    """The scope, entered and left again, after enqueueing tasks without arguments."""
    scope.enter()
    for task in tasks:
        airlock.enqueue(task)
    scope.exit()
    return scope


def states(scope):
    return scope.is_active, scope.is_flushed, scope.is_discarded


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


class Decides(airlock.Scope):
    """Answers `should_flush` with what it is given, an exception by raising it, and notes what it was told."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def should_flush(self, error):
        self.told = (error, self.is_active)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


# Leaving it


@both_ways
def test_a_scope_left_normally_dispatches_at_its_end_and_not_before(ran, run):
    def block():
        airlock.enqueue(ran.append, 1)
        airlock.enqueue(ran.append, 2)
        assert ran == []

    scope = airlock.scope()
    run(scope, block)
    assert ran == [1, 2]
    assert states(scope) == (False, True, False)


@both_ways
@pytest.mark.parametrize(
    "error",
    [ValueError("wrong"), KeyboardInterrupt(), SystemExit(1), asyncio.CancelledError(), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)
def test_a_scope_left_by_an_exception_discards_and_lets_it_go_on(ran, run, error):
    def block():
        airlock.enqueue(ran.append, 1)
        raise error

    scope = airlock.scope()
    with pytest.raises(type(error)) as raised:
        run(scope, block)
    assert raised.value is error
    assert ran == []
    assert states(scope) == (False, False, True)


@both_ways
def test_a_scope_without_intents_ends_like_any_other(run):
    scope = airlock.scope()
    run(scope, lambda: None)
    assert scope.is_flushed
    assert scope.dispatched_intents == []


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


# should_flush and other hooks


@both_ways
@pytest.mark.parametrize("error", [None, ValueError("wrong")], ids=["success", "failure"])
@pytest.mark.parametrize("answer", [True, False], ids=["flush", "discard"])
def test_should_flush_decides_whatever_the_block_did(ran, run, answer, error):
    def block():
        airlock.enqueue(ran.append, 1)
        if error:
            raise error

    scope = Decides(answer)
    with pytest.raises(ValueError, match="wrong") if error else nullcontext():
        run(scope, block)
    assert scope.told == (error, False)
    assert ran == ([1] if answer else [])
    assert scope.is_discarded is not answer


@both_ways
def test_a_scope_whose_should_flush_raises_discards(ran, run):
    scope = Decides(LookupError("no response"))
    with pytest.raises(LookupError):
        run(scope, lambda: airlock.enqueue(ran.append, 1))
    assert ran == []
    assert scope.is_discarded
    assert airlock.get_current_scope() is None


@both_ways
@pytest.mark.parametrize("tasks", [[], [int]], ids=["empty", "not empty"])
@pytest.mark.parametrize(("overridden", "error"), [("exit", None), ("flush", None), ("discard", ValueError("wrong"))])
def test_what_a_subclass_overrides_is_called(run, overridden, error, tasks):
    def noting(scope):
        called.append(overridden)
        return getattr(airlock.Scope, overridden)(scope)

    def block():
        for task in tasks:
            airlock.enqueue(task)
        if error:
            raise error

    called = []
    scope = type("Overrides", (airlock.Scope,), {overridden: noting})()
    with suppress(ValueError):
        run(scope, block)
    assert called == [overridden]
    assert scope.is_discarded if error else scope.is_flushed


@both_ways
def test_an_error_in_the_flush_of_a_failed_block_keeps_the_first(run):
    def block():
        airlock.enqueue([].pop)
        raise ValueError("block")

    with pytest.raises(IndexError) as raised:
        run(Decides(True), block)
    assert str(raised.value.__context__) == "block"


# By hand


def test_flush_dispatches_and_returns_what_it_dispatched(ran, left_with):
    scope = left_with(1, 2, executor=ran.append)
    assert ran == []
    assert scope.flush() == scope.intents == ran


def test_discard_drops_and_returns_what_it_dropped(ran, left_with):
    scope = left_with(1, 2, executor=ran.append)
    assert scope.discard() == scope.intents
    assert ran == []


def test_a_scope_tells_how_far_its_life_has_come():
    scope = airlock.scope()
    seen = [states(scope)]
    for step in (scope.enter, scope.exit, scope.flush):
        step()
        seen.append(states(scope))
    nothing_yet = (False, False, False)
    assert seen == [nothing_yet, (True, False, False), nothing_yet, (False, True, False)]


@pytest.mark.parametrize("end", ["flush", "discard"])
def test_a_scope_does_not_end_before_it_was_left(ran, end):
    scope = airlock.scope()
    with pytest.raises(airlock.ScopeStateError):
        getattr(scope, end)()
    with scope:
        airlock.enqueue(ran.append, 1)
        with pytest.raises(airlock.ScopeStateError):
            getattr(scope, end)()
        assert scope.is_active
    assert ran == [1]


@pytest.mark.parametrize("second", ["flush", "discard"])
@pytest.mark.parametrize("first", ["flush", "discard"])
def test_a_scope_ends_once(left_with, first, second):
    scope = left_with(1, executor=print)
    getattr(scope, first)()
    before = (states(scope), scope.dispatched_intents)
    with pytest.raises(airlock.ScopeStateError):
        getattr(scope, second)()
    assert (states(scope), scope.dispatched_intents) == before


def test_a_flush_that_failed_is_not_repeated():
    scope = left(airlock.scope(), [].pop)
    with pytest.raises(IndexError):
        scope.flush()
    with pytest.raises(airlock.ScopeStateError):
        scope.flush()


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
    left(scope)
    with pytest.raises(airlock.ScopeStateError):
        scope.exit()


# The current scope


def test_the_current_scope_is_the_innermost_one():
    assert airlock.get_current_scope() is None
    with airlock.scope() as outer:
        assert airlock.get_current_scope() is outer
        with pytest.raises(ValueError, match="wrong"), airlock.scope() as inner:
            assert airlock.get_current_scope() is inner
            raise ValueError("wrong")
        assert airlock.get_current_scope() is outer
    assert airlock.get_current_scope() is None


# What it holds


def test_a_scope_that_was_not_entered_holds_nothing():
    scope = airlock.scope()
    assert scope.intents == scope.own_intents == scope.captured_intents == scope.rolled_back_intents == []
    assert scope.dispatched_intents == scope.undispatched_intents == scope.unknown_intents == []


def test_a_scope_shows_its_intents_before_and_after_its_end():
    with airlock.scope() as scope:
        intents = [airlock.enqueue(int)]
        assert scope.intents == intents
        intents.append(airlock.enqueue(int))
        assert scope.intents == scope.undispatched_intents == intents
        assert scope.dispatched_intents == []
    assert scope.intents == scope.dispatched_intents == intents
    assert scope.undispatched_intents == []


def test_a_discarded_scope_owes_nothing(left_with):
    scope = left_with(1)
    scope.discard()
    assert len(scope.intents) == 1
    assert scope.dispatched_intents == scope.undispatched_intents == []


def test_what_a_scope_shows_is_read_only(ran):
    lists = ["intents", "own_intents", "captured_intents", "dispatched_intents", "undispatched_intents"]
    lists += ["unknown_intents", "rolled_back_intents"]
    with airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)
        for name in lists:
            getattr(scope, name).clear()
        for name in [*lists, "is_active", "is_flushed", "is_discarded"]:
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
    assert repr(scope) == "<RequestScope active, 1 intents>"
    scope.exit()
    assert repr(scope) == "<RequestScope left, 1 intents>"
    scope.flush()
    assert repr(scope) == "<RequestScope flushed, 1 intents>"
    other = left(RequestScope())
    other.discard()
    assert repr(other) == "<RequestScope discarded, 0 intents>"
