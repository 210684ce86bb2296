"""Handing intents to the executor: in order, one by one or many at a time, until one fails, with exact accounts."""

import pytest

import airlock
from airlock import OutcomeUnknown

LOST = ConnectionError("lost")


class Fussy:
    """An executor that fails on some intents.

    Args:
        outcomes: what becomes of an intent other than success, by its first argument.
    """

    def __init__(self, outcomes=None):
        self.outcomes = outcomes or {}
        self.given = []

    def __call__(self, intent):
        self.given.append(intent.args[0])
        if error := self.outcomes.get(intent.args[0]):
            raise error


class Crate(Fussy):
    """The same for many intents, of which it takes so many at a time."""

    at_a_time = 1000

    def dispatch_many(self, intents):
        self.given.append(numbers(intents))
        return [self.outcomes.get(intent.args[0]) for intent in intents[: self.at_a_time]]


class SmallCrate(Crate):
    at_a_time = 2


def numbers(intents):
    return [intent.args[0] for intent in intents]


errors = pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)], ids=repr)


# One by one


def test_the_executor_is_given_each_intent_once_in_order(left_with):
    given = []
    scope = left_with(3, 1, 2, executor=given.append)
    assert scope.flush() == given == scope.intents
    assert numbers(given) == [3, 1, 2]


def test_an_executor_is_used_even_if_python_takes_it_for_false(left_with):
    class Recorder(list):
        def __call__(self, intent):
            self.append(intent)

    recorder = Recorder()
    scope = left_with(1, executor=recorder)
    assert scope.flush() == recorder


@pytest.mark.parametrize("answer", [None, False, [], "done"], ids=repr)
def test_what_the_executor_returns_is_ignored(left_with, answer):
    scope = left_with(1, 2, executor=lambda intent: answer)
    assert scope.flush() == scope.intents


@errors
def test_dispatch_stops_at_the_first_failure(left_with, error):
    executor = Fussy({2: error})
    scope = left_with(1, 2, 3, executor=executor)
    with pytest.raises(type(error)) as raised:
        scope.flush()
    assert raised.value is error
    assert executor.given == [1, 2]
    assert numbers(scope.dispatched_intents) == [1]
    assert numbers(scope.undispatched_intents) == [2, 3]
    assert scope.is_flushed


def test_a_failure_notes_the_intent_and_where_it_was_enqueued(left_with):
    scope = left_with(1, 2, executor=Fussy({2: ValueError("broken")}))
    with pytest.raises(ValueError, match="broken") as raised:
        scope.flush()
    assert str(raised.value) == "broken"
    assert raised.value.__notes__ == [
        f"This happened while dispatching task_2 (id {scope.intents[1].id}), enqueued at views.py:2."
    ]


def test_a_failure_without_a_known_origin_says_how_to_get_one():
    with pytest.raises(ValueError, match="x") as raised, airlock.scope():
        airlock.enqueue(int, "x")
    assert "capture_origin" in raised.value.__notes__[0]


def test_a_failure_in_a_nested_task_is_seen_at_the_outermost_scope():
    outer = airlock.scope(executor=Fussy({2: ValueError("broken")}))
    with pytest.raises(ValueError, match="broken"), outer, airlock.scope() as inner:
        for number in (1, 2, 3):
            airlock.enqueue(abs, number)
    assert numbers(outer.undispatched_intents) == [2, 3]
    assert inner.undispatched_intents == []


def test_what_policies_dropped_is_neither_dispatched_nor_owed(left_with):
    policy = airlock.BlockTasks({"task_1", "task_3"})
    scope = left_with(1, 2, 3, 4, policy=policy, executor=Fussy({4: ValueError("broken")}))
    with pytest.raises(ValueError, match="broken"):
        scope.flush()
    assert numbers(scope.dispatched_intents) == [2]
    assert numbers(scope.undispatched_intents) == [4]


# Many at a time


def test_a_flush_is_handed_over_as_a_whole_and_in_order(left_with):
    crate = Crate()
    scope = left_with(3, 1, 2, executor=crate)
    assert scope.flush() == scope.intents
    assert crate.given == [[3, 1, 2]]


@pytest.mark.parametrize(("given", "policy"), [([[1]], None), ([], airlock.DropAll())], ids=["one", "none"])
def test_one_intent_is_handed_over_in_the_same_way_and_none_is_not(left_with, given, policy):
    crate = Crate()
    left_with(1, policy=policy, executor=crate).flush()
    assert crate.given == given


def test_an_executor_is_called_again_with_what_it_did_not_take(left_with):
    crate = SmallCrate()
    scope = left_with(1, 2, 3, 4, 5, executor=crate)
    assert numbers(scope.flush()) == [1, 2, 3, 4, 5]
    assert crate.given == [[1, 2, 3, 4, 5], [3, 4, 5], [5]]


@errors
def test_a_batch_stops_after_a_failure_with_exact_accounts(left_with, error):
    crate = SmallCrate({1: error})
    scope = left_with(1, 2, 3, executor=crate)
    with pytest.raises(type(error)) as raised:
        scope.flush()
    assert raised.value is error
    assert crate.given == [[1, 2, 3]]
    assert numbers(scope.dispatched_intents) == [2]
    assert numbers(scope.undispatched_intents) == [1, 3]
    assert scope.unknown_intents == []


def test_a_failure_of_the_last_one_alone_is_as_any_other(left_with):
    scope = left_with(1, 2, 3, executor=SmallCrate({3: ValueError("broken")}))
    with pytest.raises(ValueError, match="broken"):
        scope.flush()
    assert numbers(scope.undispatched_intents) == [3]


def test_what_interrupts_is_handled_rather_than_what_failed(left_with):
    scope = left_with(1, 2, 3, executor=Crate({2: ValueError("broken"), 3: OutcomeUnknown(KeyboardInterrupt())}))
    with pytest.raises(KeyboardInterrupt) as raised:
        scope.flush()
    which, others, unknown = raised.value.__notes__
    assert "task_3" in which
    assert "1 more" in others
    assert "unknown_intents" in unknown


def test_an_unknown_outcome_is_a_failure_that_is_told_apart(left_with):
    crate = Crate({2: OutcomeUnknown(LOST), 3: OutcomeUnknown(LOST), 4: ValueError("broken")})
    scope = left_with(1, 2, 3, 4, executor=crate)
    with pytest.raises(ConnectionError) as raised:
        scope.flush()
    assert raised.value is LOST
    assert numbers(scope.dispatched_intents) == [1]
    assert numbers(scope.undispatched_intents) == [2, 3, 4]
    assert numbers(scope.unknown_intents) == [2, 3]
    assert repr(crate.outcomes[2]) == "OutcomeUnknown(ConnectionError('lost'))"


@errors
def test_when_dispatch_many_raises_all_it_was_given_is_unknown(left_with, error):
    class Crashing(SmallCrate):
        def dispatch_many(self, intents):
            if self.given:
                raise error
            return super().dispatch_many(intents)

    scope = left_with(1, 2, 3, 4, executor=Crashing())
    with pytest.raises(type(error)) as raised:
        scope.flush()
    assert raised.value is error
    assert numbers(scope.dispatched_intents) == [1, 2]
    assert numbers(scope.undispatched_intents) == numbers(scope.unknown_intents) == [3, 4]


@pytest.mark.parametrize("answer", [None, [], [None] * 4, {1: None}, iter([None])], ids=lambda it: type(it).__name__)
def test_an_executor_that_gives_no_account_is_told_how(left_with, answer):
    class Silent(Crate):
        def dispatch_many(self, intents):
            return answer

    scope = left_with(1, 2, 3, executor=Silent())
    with pytest.raises(airlock.UsageError, match=r"was given 3 intents and returned .* must return"):
        scope.flush()
    assert numbers(scope.unknown_intents) == [1, 2, 3]


# dispatch_all


def test_a_scope_may_dispatch_later(ran):
    class Later(airlock.Scope):
        def dispatch_all(self, intents):
            self.kept = intents

        def now(self):
            super().dispatch_all(self.kept)

    with airlock.scope(_cls=Later) as scope:
        intents = [airlock.enqueue(ran.append, n) for n in (1, 2)]
    assert ran == []
    assert (scope.dispatched_intents, scope.undispatched_intents) == ([], intents)
    scope.now()
    assert ran == [1, 2]
    assert (scope.dispatched_intents, scope.undispatched_intents) == (intents, [])


@pytest.mark.parametrize("executor", [Fussy, Crate])
def test_a_scope_may_dispatch_in_parts_and_keeps_account_of_all(left_with, executor):
    class InParts(airlock.Scope):
        def dispatch_all(self, intents):
            super().dispatch_all(intents[2:])
            super().dispatch_all(intents[:2])

    scope = left_with(1, 2, 3, 4, _cls=InParts, executor=executor({1: ValueError("broken")}))
    with pytest.raises(ValueError, match="broken"):
        scope.flush()
    assert numbers(scope.dispatched_intents) in ([3, 4], [3, 4, 2])
    assert {*scope.dispatched_intents, *scope.undispatched_intents} == {*scope.intents}


def test_dispatch_all_is_given_what_the_policies_allowed(left_with):
    class FirstOnly(airlock.Scope):
        def dispatch_all(self, intents):
            given.extend(intents)
            super().dispatch_all(intents[:1])

    given = []
    scope = left_with(1, 2, 3, _cls=FirstOnly, policy=airlock.BlockTasks({"task_2"}), executor=print)
    assert numbers(scope.flush()) == [1], "only what was dispatched by then"
    assert numbers(given) == [1, 3]


def test_dispatch_all_may_be_called_by_hand(left_with):
    scope = left_with(1, executor=print)
    scope.dispatch_all(scope.intents)
    assert scope.dispatched_intents == scope.intents


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_an_interrupted_intent_may_have_gone_out(left_with, error):
    scope = left_with(1, 2, executor=Fussy({1: error}))
    with pytest.raises(type(error)) as raised:
        scope.flush()
    assert numbers(scope.unknown_intents) == [1]
    assert numbers(scope.undispatched_intents) == [1, 2]
    assert any("may have their effects twice" in note for note in raised.value.__notes__)


def test_what_policies_dropped_is_not_owed_when_a_later_one_raises(left_with):
    class DropsOneAndFails(airlock.AllowAll):
        def allows(self, intent):
            if intent.args == (2,):
                raise LookupError
            return intent.args != (1,)

    scope = left_with(1, 2, 3, policy=DropsOneAndFails())
    with pytest.raises(LookupError):
        scope.flush()
    assert numbers(scope.undispatched_intents) == [2, 3]


def test_an_executor_may_say_that_nobody_can_tell(left_with):
    lost = ConnectionError("lost")

    def executor(intent):
        raise OutcomeUnknown(lost)

    scope = left_with(1, 2, executor=executor)
    with pytest.raises(ConnectionError) as raised:
        scope.flush()

    assert raised.value is lost
    assert numbers(scope.unknown_intents) == [1]
    assert numbers(scope.undispatched_intents) == [1, 2]
