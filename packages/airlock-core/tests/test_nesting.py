"""Scopes in scopes: capturing, letting through, and in which order."""

import asyncio
import gc
import sys
import tracemalloc

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

    def __init__(self, policy=None, *, executor=None, letting=()):
        super().__init__(policy, executor=executor)
        self.letting = letting
        self.asked = []

    def before_descendant_flushes(self, exiting_scope, intents):
        self.asked.append((exiting_scope, [intent.args[0] for intent in intents]))
        return [intent for intent in intents if intent.args[0] in self.letting]


def letting(*values, **arguments):
    return airlock.scope(_cls=LetsThrough, letting=values, **arguments)


def entered(**arguments):
    scope = airlock.scope(**arguments)
    scope.enter()
    return scope


def flushed(scope):
    scope.exit()
    return scope.flush()


# Capturing


def test_a_nested_scope_dispatches_nothing_and_hands_its_intents_over(ran):
    with airlock.scope():
        with airlock.scope():
            airlock.enqueue(ran.append, 1)
        assert ran == []

    assert ran == [1]


def test_the_executor_is_that_of_the_scope_that_dispatches():
    notes = []
    with airlock.scope(executor=Recording("outer", notes)), airlock.scope(executor=Recording("inner", notes)):
        airlock.enqueue(int, 1)

    assert notes == [("outer", 1)]


def test_order_is_that_of_enqueueing_before_in_and_after_nested_scopes(ran):
    with airlock.scope():
        airlock.enqueue(ran.append, 1)
        with airlock.scope():
            airlock.enqueue(ran.append, 2)
            with airlock.scope():
                airlock.enqueue(ran.append, 3)
            airlock.enqueue(ran.append, 4)
        airlock.enqueue(ran.append, 5)

    assert ran == [1, 2, 3, 4, 5]


async def test_order_is_that_of_enqueueing_when_nested_scopes_interleave_in_tasks(ran):
    async def every_other(start, this_one, other_one):
        with airlock.scope():
            for n in range(start, 10, 2):
                await this_one.wait()
                this_one.clear()
                airlock.enqueue(ran.append, n)
                other_one.set()

    even, odd = asyncio.Event(), asyncio.Event()
    async with airlock.scope():
        even.set()
        await asyncio.gather(every_other(0, even, odd), every_other(1, odd, even))
        assert ran == []

    assert ran == list(range(10))


async def test_order_is_that_of_enqueueing_when_the_later_scope_ends_first(ran):
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
        assert [intent.args for intent in outer.intents] == [(1,), (4,)]

    assert ran == [1, 4]


def test_a_discarded_scope_drops_what_it_captured(ran):
    with pytest.raises(ValueError, match="wrong"), airlock.scope() as outer:
        with airlock.scope():
            captured = airlock.enqueue(ran.append, 1)
        raise ValueError("wrong")

    assert ran == []
    assert outer.intents == [captured]


def test_by_hand_discard_returns_captured_intents_as_well():
    outer = entered()
    first = airlock.enqueue(int)
    with airlock.scope():
        second = airlock.enqueue(int)
    outer.exit()

    assert outer.discard() == [first, second]


def test_own_and_captured_intents_are_told_apart():
    with airlock.scope() as outer:
        first = airlock.enqueue(int)
        with airlock.scope() as middle:
            second = airlock.enqueue(int)
            with airlock.scope() as inner:
                third = airlock.enqueue(int)
            assert (middle.own_intents, middle.captured_intents) == ([second], [third])
        with airlock.policy(airlock.AllowAll()):
            fourth = airlock.enqueue(int)

    assert (inner.own_intents, inner.captured_intents) == ([third], [])
    assert outer.own_intents == [first, fourth]
    assert outer.captured_intents == [second, third]
    assert outer.intents == [first, second, third, fourth]


def test_intents_of_an_open_nested_scope_are_not_captured_yet():
    with airlock.scope() as outer:
        with airlock.scope():
            intent = airlock.enqueue(int)
            assert outer.intents == []
        assert outer.intents == [intent]


def test_a_scope_that_handed_over_dispatched_nothing_and_owes_nothing(ran):
    with airlock.scope():
        inner = entered()
        intent = airlock.enqueue(ran.append, 1)

        assert flushed(inner) == []
        assert inner.is_flushed
        assert inner.intents == [intent]
        assert inner.dispatched_intents == inner.undispatched_intents == []


def test_what_a_scope_captured_stays_to_be_seen_when_it_is_handed_on():
    with letting(3), airlock.scope() as middle, airlock.scope() as inner:
        with airlock.scope():
            intents = [airlock.enqueue(abs, n) for n in (2, 3)]
        assert inner.captured_intents == intents
    assert middle.captured_intents == intents

    assert inner.captured_intents == intents


# Scopes that end after those that enclose them


def test_intents_whose_enclosing_scope_has_ended_are_not_lost_in_silence(ran):
    outer, inner = entered(), entered()
    intent = airlock.enqueue(ran.append, 1)
    flushed(outer)
    inner.exit()

    with pytest.raises(airlock.ScopeStateError):
        inner.flush()

    assert ran == []
    assert inner.undispatched_intents == [intent]
    assert airlock.get_current_scope() is None


def test_a_scope_without_intents_may_end_after_the_one_that_encloses_it():
    outer, inner = entered(), entered()
    airlock.enqueue(int)
    inner_left = inner.intents
    inner.exit()
    inner.discard()
    assert len(inner_left) == 1

    late = entered()
    outer.exit()
    outer.flush()
    late.exit()
    assert late.flush() == []
    assert late.is_flushed


def test_a_scope_that_ends_too_late_may_still_be_discarded():
    outer, inner = entered(), entered()
    intent = airlock.enqueue(int)
    flushed(outer)
    inner.exit()

    assert inner.discard() == [intent]


def test_ended_scopes_enclose_nothing(ran):
    with airlock.scope():
        ended = entered()
        late = entered()
        flushed(ended)
        # `late` is current still, and encloses what is opened now; `ended` stands around it and does not.
        with airlock.scope():
            airlock.enqueue(ran.append, 1)
        assert [intent.args for intent in late.intents] == [(1,)]
        late.exit()
        late.discard()
        with airlock.scope():
            airlock.enqueue(ran.append, 2)
        assert ran == []

    assert ran == [2]


# Letting through


def test_a_parent_may_let_some_through_and_capture_the_rest():
    notes = []
    with letting(2, executor=Recording("outer", notes)) as outer:
        inner = entered(executor=Recording("inner", notes))
        first, second, third = (airlock.enqueue(abs, n) for n in (1, 2, 3))

        assert flushed(inner) == [second]
        assert notes == [("inner", 2)]
        assert inner.dispatched_intents == [second]
        assert inner.undispatched_intents == []
        assert outer.intents == outer.captured_intents == [first, third]

    assert notes == [("inner", 2), ("outer", 1), ("outer", 3)]


def test_a_parent_is_asked_once_about_the_exiting_scope_and_all_it_would_hand_over():
    with letting() as outer:
        with airlock.scope() as middle:
            airlock.enqueue(abs, 1)
            with airlock.scope():
                airlock.enqueue(abs, 2)
        airlock.enqueue(abs, 3)

    assert outer.asked == [(middle, [1, 2])]


def test_a_parent_is_not_asked_about_nothing_nor_about_what_was_discarded():
    with letting() as outer:
        airlock.enqueue(abs, 1)
        with airlock.scope():
            pass
        with pytest.raises(ValueError, match="wrong"), airlock.scope():
            airlock.enqueue(abs, 2)
            raise ValueError("wrong")

    assert outer.asked == []


def test_every_enclosing_scope_is_asked_nearest_first_about_what_the_nearer_ones_let_through():
    notes = []
    with letting(1, executor=Recording("far", notes)) as far:
        with letting(1, 2, executor=Recording("near", notes)) as near:
            with airlock.scope(executor=Recording("inner", notes)) as inner:
                for n in (1, 2, 3):
                    airlock.enqueue(abs, n)
            assert near.asked == [(inner, [1, 2, 3])]
            assert far.asked == [(inner, [1, 2])]
            assert notes == [("inner", 1)]
            assert [intent.args[0] for intent in near.intents] == [3]
            assert [intent.args[0] for intent in far.intents] == [2]
        assert far.asked[1:] == [(near, [3])]
        assert [intent.args[0] for intent in far.intents] == [2, 3]

    assert notes == [("inner", 1), ("far", 2), ("far", 3)]


def test_a_plain_scope_in_between_captures_everything():
    with letting(1) as far:
        with airlock.scope() as near:
            with airlock.scope() as inner:
                airlock.enqueue(abs, 1)
            assert far.asked == []
            assert inner.dispatched_intents == []

        assert near.dispatched_intents == [*near.intents]

    assert far.asked == [(near, [1])]


def test_a_plain_scope_further_out_captures_what_a_nearer_one_let_through():
    with airlock.scope() as far:
        with letting(1) as near:
            with airlock.scope():
                intents = [airlock.enqueue(abs, n) for n in (1, 2)]
            assert (near.intents, far.intents) == ([intents[1]], [intents[0]])

        assert far.intents == intents


def test_what_was_let_through_answers_to_every_policy(ran):
    class Odd(airlock.AllowAll):
        def allows(self, intent):
            return intent.args[0] % 2 == 1

    with letting(1, 2, 3, policy=airlock.BlockTasks({"third"})), airlock.scope(Odd()) as inner:
        airlock.enqueue(ran.append, 1)
        airlock.enqueue(ran.append, 2)
        airlock.enqueue(ran.append, 3, _name="third")

    assert ran == [1]
    assert inner.undispatched_intents == []


def test_what_was_let_through_and_failed_is_owed_by_the_scope_that_tried():
    def fail(n):
        raise ValueError(n)

    with letting(1, 2) as outer:
        inner = entered()
        captured, failed, not_tried = airlock.enqueue(abs, 0), airlock.enqueue(fail, 1), airlock.enqueue(abs, 2)
        inner.exit()
        with pytest.raises(ValueError, match="1"):
            inner.flush()

        assert inner.undispatched_intents == [failed, not_tried]
        assert outer.intents == [captured]


def test_the_order_a_parent_returns_them_in_does_not_matter(ran):
    class LetsAllThroughBackwards(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            return [*reversed(intents), *intents]

    with airlock.scope(_cls=LetsAllThroughBackwards), airlock.scope():
        for n in (1, 2, 3):
            airlock.enqueue(ran.append, n)

    assert ran == [1, 2, 3]


def test_a_parent_may_do_what_it_likes_with_the_list_it_is_given(ran):
    class Pops(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            return [intents.pop()]

    with airlock.scope(_cls=Pops) as outer:
        with airlock.scope() as inner:
            intents = [airlock.enqueue(ran.append, n) for n in (1, 2)]
        assert ran == [2]
        assert outer.intents == intents[:1]
        assert inner.intents == intents

    assert ran == [2, 1]


def test_a_parent_cannot_let_through_what_it_was_not_given(ran):
    class LetsOwnThrough(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            return self.own_intents

    with airlock.scope(_cls=LetsOwnThrough) as outer:
        own = airlock.enqueue(ran.append, 1)
        inner = entered()
        nested = airlock.enqueue(ran.append, 2)
        inner.exit()
        with pytest.raises(airlock.UsageError, match="LetsOwnThrough"):
            inner.flush()

        assert inner.undispatched_intents == [nested]
        assert outer.intents == [own]

    assert ran == [1]


def test_a_parent_that_fails_to_decide_leaves_everything_undispatched(ran):
    class CannotDecide(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            raise LookupError("no idea")

    with airlock.scope(_cls=CannotDecide) as far, letting(1):
        inner = entered()
        intents = [airlock.enqueue(ran.append, n) for n in (1, 2)]
        inner.exit()
        with pytest.raises(LookupError):
            inner.flush()

        assert inner.undispatched_intents == intents
        assert far.intents == []

    assert ran == []


def test_an_ended_parent_may_still_let_everything_through(ran):
    outer = letting(1)
    outer.enter()
    inner = entered()
    airlock.enqueue(ran.append, 1)
    flushed(outer)

    flushed(inner)

    assert ran == [1]


def test_an_ended_parent_captures_nothing(ran):
    outer = letting(1)
    outer.enter()
    inner = entered()
    intents = [airlock.enqueue(ran.append, n) for n in (1, 2)]
    flushed(outer)
    inner.exit()

    with pytest.raises(airlock.ScopeStateError):
        inner.flush()

    assert ran == []
    assert inner.undispatched_intents == intents


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


def bytes_needed(call):
    """How many bytes `call` has allocated at its peak."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    call()
    _, peak = tracemalloc.get_traced_memory()
    return peak - before


@pytest.fixture
def _traced_memory():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_nesting_a_thousand_deep_takes_no_recursion(ran):
    depth = 1
    frame = sys._getframe()  # noqa: SLF001
    while frame := frame.f_back:
        depth += 1
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 50)
    try:
        scopes = [entered() for _ in range(1000)]
        for n in range(3):
            airlock.enqueue(ran.append, n)
        assert len(scopes[-1].intents) == 3
        while scopes:
            flushed(scopes.pop())
    finally:
        sys.setrecursionlimit(limit)

    assert ran == [0, 1, 2]


@pytest.mark.parametrize("kept", [1, 500])
def test_entering_and_handing_over_run_as_many_lines_at_every_depth(kept):
    scopes = [airlock.scope() for _ in range(1000)]
    entering = [lines_run(scope.enter) for scope in scopes]
    for _ in range(kept):
        airlock.enqueue(int)
    leaving = [lines_run(lambda scope=scope: flushed(scope)) for scope in reversed(scopes[1:])]
    flushed(scopes[0])

    assert len(set(entering[2:])) == 1, "the first has nobody to look at, the second makes their log, others are alike"
    assert len(set(leaving)) == 1


def test_handing_over_runs_as_many_lines_for_many_intents_as_for_one():
    lines = []
    for count in (1, 1000):
        with airlock.scope():
            inner = entered()
            for _ in range(count):
                airlock.enqueue(int)
            lines.append(lines_run(lambda scope=inner: flushed(scope)))

    assert lines[0] == lines[1] > 0


@pytest.mark.usefixtures("_traced_memory")
def test_handing_over_copies_no_intents():
    scopes = [entered() for _ in range(100)]
    for _ in range(10_000):
        airlock.enqueue(int)
    needed = [bytes_needed(lambda scope=scope: flushed(scope)) for scope in reversed(scopes[1:])]
    flushed(scopes[0])

    assert max(needed) < 10_000, "less than a byte for each of the intents"


@pytest.mark.usefixtures("_traced_memory")
def test_letting_through_costs_no_more_the_more_was_let_through_before():
    def needed_by(count):
        needed = 0
        with letting(1):
            for _ in range(count):
                inner = entered()
                airlock.enqueue(abs, 1)
                needed += bytes_needed(lambda scope=inner: flushed(scope))
        return needed

    once, twice = needed_by(1000), needed_by(2000)

    assert twice < 3 * once, "twice the number takes twice the memory, and not four times"
