"""Scopes in scopes: capturing, letting through, and in which order."""

import asyncio
import gc
import sys
from contextvars import copy_context

import pytest

import airlock


class Recording:
    """An executor that notes the first argument of each intent, under its own name."""

    def __init__(self, name, notes):
        self.name = name
        self.notes = notes

    def __call__(self, intent):
        self.notes.append((self.name, intent.args[0]))


class LetsThrough(airlock.Scope):
    """Lets through the intents whose first argument is among `letting`, and notes what it was asked about."""

    def __init__(self, *args, letting=(), **kwargs):
        super().__init__(*args, **kwargs)
        self.letting = letting
        self.asked = []

    def before_descendant_flushes(self, exiting_scope, intents):
        self.asked.append((exiting_scope, numbers(intents)))
        return [intent for intent in intents if intent.args[0] in self.letting]


def numbers(intents):
    return [intent.args[0] for intent in intents]


def letting(*values, **arguments):
    return airlock.scope(_cls=LetsThrough, letting=values, **arguments)


def entered(scope):
    scope.enter()
    return scope


def flushed(scope):
    scope.exit()
    return scope.flush()


def one_outlives_the_other(outer, inner, *values, task=abs):
    """The inner scope, left after the outer one has flushed, and what was enqueued in it."""
    still_inside = copy_context()
    still_inside.run(outer.enter)
    still_inside.run(inner.enter)
    intents = [still_inside.run(airlock.enqueue, task, value) for value in values]
    flushed(outer)
    still_inside.run(inner.exit)
    return intents


# Capturing


def test_a_nested_scope_dispatches_nothing_and_hands_its_intents_over(ran):
    with airlock.scope():
        inner = entered(airlock.scope())
        intent = airlock.enqueue(ran.append, 1)
        assert flushed(inner) == inner.dispatched_intents == inner.undispatched_intents == []
        assert inner.is_flushed
        assert inner.intents == [intent]
        assert ran == []
    assert ran == [1]


def test_the_executor_is_that_of_the_scope_that_dispatches():
    notes = []
    with airlock.scope(executor=Recording("outer", notes)), airlock.scope(executor=Recording("inner", notes)):
        airlock.enqueue(int, 1)
    assert notes == [("outer", 1)]


def test_a_scope_that_is_not_capturable_dispatches_on_its_own(ran):
    class OnItsOwn(airlock.Scope):
        capturable = False

    with airlock.scope() as outer:
        with airlock.scope(_cls=OnItsOwn):
            airlock.enqueue(ran.append, 1)
        assert ran == [1]
    assert outer.intents == []


def test_order_is_that_of_enqueueing_before_in_and_after_nested_ones(ran):
    with airlock.scope():
        airlock.enqueue(ran.append, 1)
        with airlock.scope():
            airlock.enqueue(ran.append, 2)
            with airlock.scope():
                airlock.enqueue(ran.append, 3)
            airlock.enqueue(ran.append, 4)
        airlock.enqueue(ran.append, 5)
    assert ran == [1, 2, 3, 4, 5]


async def test_order_is_that_of_enqueueing_when_scopes_interleave(ran):
    async def enqueue_then_wait_for(event, n):
        with airlock.scope():
            airlock.enqueue(ran.append, n)
            await event.wait()
            airlock.enqueue(ran.append, n + 10)

    first, second = asyncio.Event(), asyncio.Event()
    async with airlock.scope():
        tasks = [
            asyncio.create_task(enqueue_then_wait_for(first, 1)),
            asyncio.create_task(enqueue_then_wait_for(second, 2)),
        ]
        await asyncio.sleep(0)
        second.set()
        await tasks[1]
        first.set()
        await tasks[0]
    assert ran == [1, 2, 12, 11]


def test_a_discarded_nested_scope_takes_only_its_own_intents_along(ran):
    with airlock.scope() as outer:
        airlock.enqueue(ran.append, 1)
        with pytest.raises(ValueError, match="wrong"), airlock.scope():
            airlock.enqueue(ran.append, 2)
            with airlock.scope():
                airlock.enqueue(ran.append, 3)
            raise ValueError("wrong")
        airlock.enqueue(ran.append, 4)
        assert numbers(outer.intents) == [1, 4]
    assert ran == [1, 4]


def test_a_discarded_scope_drops_what_it_captured(ran):
    outer = entered(airlock.scope())
    first = airlock.enqueue(ran.append, 1)
    with airlock.scope():
        second = airlock.enqueue(ran.append, 2)
    outer.exit()
    assert outer.discard() == outer.intents == [first, second]
    assert ran == []


def test_own_and_captured_intents_are_told_apart():
    with airlock.scope() as outer:
        first = airlock.enqueue(int)
        with airlock.scope() as middle:
            second = airlock.enqueue(int)
            with airlock.scope() as inner:
                third = airlock.enqueue(int)
                assert middle.captured_intents == [], "not before the nested scope has ended"
            assert (middle.own_intents, middle.captured_intents) == ([second], [third])
        with airlock.policy(airlock.AllowAll()):
            fourth = airlock.enqueue(int)
    assert (inner.own_intents, inner.captured_intents) == ([third], [])
    assert (middle.own_intents, middle.captured_intents) == ([second], [third])
    assert outer.own_intents == [first, fourth]
    assert outer.captured_intents == [second, third]
    assert outer.intents == [first, second, third, fourth]


# Scopes that end after those that enclose them


def test_intents_that_nobody_takes_any_more_are_not_lost_in_silence(ran):
    inner = airlock.scope()
    intents = one_outlives_the_other(airlock.scope(), inner, 1, task=ran.append)
    with pytest.raises(airlock.ScopeStateError):
        inner.flush()
    assert ran == []
    assert inner.undispatched_intents == intents


def test_without_intents_a_scope_may_end_after_the_one_around_it():
    inner = airlock.scope()
    one_outlives_the_other(airlock.scope(), inner)
    assert inner.flush() == []
    assert inner.is_flushed


def test_a_scope_that_ends_too_late_may_still_be_discarded():
    inner = airlock.scope()
    intents = one_outlives_the_other(airlock.scope(), inner, 1)
    assert inner.discard() == intents


def test_an_ended_parent_captures_nothing_and_lets_nothing_through(ran):
    with airlock.scope():  # nobody knows yet whether this one flushes
        inner = airlock.scope()
        intents = one_outlives_the_other(letting(1), inner, 1, 2, task=ran.append)
        with pytest.raises(airlock.ScopeStateError):
            inner.flush()
        assert inner.undispatched_intents == intents
    assert ran == []


# Letting through


def test_a_parent_may_let_some_through_and_capture_the_rest():
    notes = []
    with letting(2, executor=Recording("outer", notes)) as outer:
        inner = entered(airlock.scope(executor=Recording("inner", notes)))
        first, second, third = (airlock.enqueue(abs, n) for n in (1, 2, 3))
        assert flushed(inner) == inner.dispatched_intents == [second]
        assert notes == [("inner", 2)]
        assert inner.undispatched_intents == []
        assert outer.intents == outer.captured_intents == [first, third]
    assert notes == [("inner", 2), ("outer", 1), ("outer", 3)]


def test_a_parent_is_asked_once_about_all_it_would_be_handed():
    with letting() as outer:
        with airlock.scope() as middle:
            airlock.enqueue(abs, 1)
            with airlock.scope():
                airlock.enqueue(abs, 2)
        airlock.enqueue(abs, 3)
    assert outer.asked == [(middle, [1, 2])]


def test_a_parent_is_not_asked_about_nothing_nor_what_was_discarded():
    with letting() as outer:
        with airlock.scope():
            pass
        with pytest.raises(ValueError, match="wrong"), airlock.scope():
            airlock.enqueue(abs, 2)
            raise ValueError("wrong")
    assert outer.asked == []


def test_every_enclosing_scope_is_asked_nearest_first():
    notes = []
    with letting(1, executor=Recording("far", notes)) as far:
        with letting(1, 2, executor=Recording("near", notes)) as near:
            with airlock.scope(executor=Recording("inner", notes)) as inner:
                for n in (1, 2, 3):
                    airlock.enqueue(abs, n)
            assert near.asked == [(inner, [1, 2, 3])]
            assert far.asked == [(inner, [1, 2])]
            assert notes == [("inner", 1)]
            assert (numbers(near.intents), numbers(far.intents)) == ([3], [2])
        assert far.asked[1:] == [(near, [3])]
    assert notes == [("inner", 1), ("far", 2), ("far", 3)]


def test_a_plain_scope_in_between_captures_everything():
    with letting(1) as far:
        with airlock.scope() as near:
            with airlock.scope() as inner:
                airlock.enqueue(abs, 1)
            assert far.asked == inner.dispatched_intents == []
        assert near.dispatched_intents == near.intents
    assert far.asked == [(near, [1])]


def test_a_plain_scope_further_out_captures_what_was_let_through():
    with airlock.scope() as far, letting(1) as near:
        with airlock.scope():
            intents = [airlock.enqueue(abs, n) for n in (1, 2)]
        assert (near.intents, far.intents) == ([intents[1]], [intents[0]])


def test_what_was_let_through_answers_to_every_policy(ran):
    blocked = airlock.BlockTasks
    with letting(1, 2, 3, policy=blocked({"third"})), airlock.scope(blocked({"second"})) as inner:
        for n, name in enumerate(["first", "second", "third"], 1):
            airlock.enqueue(ran.append, n, _name=name)
    assert ran == [1]
    assert inner.undispatched_intents == []


def test_what_was_let_through_and_failed_is_owed_by_who_tried_it():
    with letting(-1, 2) as outer:
        inner = entered(airlock.scope())
        captured, failed, untried = airlock.enqueue(abs, 0), airlock.enqueue(bytes, -1), airlock.enqueue(abs, 2)
        inner.exit()
        with pytest.raises(ValueError, match="negative count"):
            inner.flush()
        assert inner.undispatched_intents == [failed, untried]
        assert outer.intents == [captured]
        assert airlock.get_current_scope() is outer


@pytest.mark.parametrize(
    ("answer", "sent_first"),
    [(lambda intents: [*reversed(intents), *intents], [1, 2]), (lambda intents: [intents.pop()], [2])],
    ids=["all of them backwards and twice", "one taken from the list it was given"],
)
def test_what_a_parent_does_with_the_list_changes_no_order(ran, answer, sent_first):
    class Parent(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            return answer(intents)

    with airlock.scope(_cls=Parent):
        with airlock.scope() as inner:
            intents = [airlock.enqueue(ran.append, n) for n in (1, 2)]
        assert ran == sent_first
        assert inner.intents == intents
    assert sorted(ran) == [1, 2]


def test_a_parent_cannot_let_through_what_it_was_not_given(ran):
    class LetsOwnThrough(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            return self.own_intents

    with airlock.scope(_cls=LetsOwnThrough) as outer:
        own = airlock.enqueue(ran.append, 1)
        inner = entered(airlock.scope())
        nested = airlock.enqueue(ran.append, 2)
        inner.exit()
        with pytest.raises(airlock.UsageError, match="LetsOwnThrough"):
            inner.flush()
        assert inner.undispatched_intents == [nested]
        assert outer.intents == [own]
    assert ran == [1]


def test_a_parent_that_cannot_decide_leaves_everything_undispatched(ran):
    class CannotDecide(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            raise LookupError("no idea")

    with airlock.scope(_cls=CannotDecide) as far, letting(1) as near:
        inner = entered(airlock.scope())
        intents = [airlock.enqueue(ran.append, n) for n in (1, 2)]
        inner.exit()
        with pytest.raises(LookupError):
            inner.flush()
        assert inner.undispatched_intents == intents
        assert far.intents == near.intents == []
    assert ran == []


# Depth


def lines_run(call):
    """How many lines of Python `call` runs."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()  # a coverage measurement, perhaps
    gc.disable()  # what it finalizes runs lines, too
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def test_nesting_a_thousand_deep_takes_no_recursion(ran):
    depth = 1
    frame = sys._getframe()  # noqa: SLF001
    while frame := frame.f_back:
        depth += 1
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 50)
    try:
        scopes = [entered(airlock.scope()) for _ in range(1000)]
        airlock.enqueue(ran.append, 1)
        while scopes:
            flushed(scopes.pop())
    finally:
        sys.setrecursionlimit(limit)
    assert ran == [1]


@pytest.mark.parametrize("kept", [1, 500])
def test_entering_and_handing_over_cost_the_same_at_every_depth(kept):
    scopes = [airlock.scope() for _ in range(100)]
    entering = [lines_run(scope.enter) for scope in scopes]
    for _ in range(kept):
        airlock.enqueue(int)
    leaving = [lines_run(lambda scope=scope: flushed(scope)) for scope in reversed(scopes[1:])]
    flushed(scopes[0])
    assert len(set(entering[1:])) == len(set(leaving)) == 1


def test_scopes_of_which_one_ends_too_early_capture_nothing():
    class LeavingItself(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            self.exit()
            return []

    class LettingOneThrough(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            return intents[:1]

    _outermost, parent, nested = scopes = LeavingItself(), LettingOneThrough(), airlock.Scope()
    for scope in scopes:
        scope.enter()
    intents = [airlock.enqueue(abs, 1), airlock.enqueue(abs, 2)]
    nested.exit()
    with pytest.raises(airlock.ScopeStateError):
        nested.flush()
    assert nested.undispatched_intents == intents
    assert parent.captured_intents == []
    parent.exit()
