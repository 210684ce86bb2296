"""Executors that take several intents at a time, and tell what became of each."""

import pytest

import airlock
from airlock import OutcomeUnknown


class Crate:
    """An executor that takes so many intents at a time, and returns an outcome other than `None` for some of them.

    Args:
        outcomes: by the first argument of an intent.
        at_a_time: how many it takes.
    """

    def __init__(self, outcomes=None, *, at_a_time=1000):
        self.outcomes = outcomes or {}
        self.at_a_time = at_a_time
        self.given = []

    def __call__(self, intent):
        self.given.append(intent.args[0])

    def dispatch_many(self, intents):
        self.given.append([intent.args[0] for intent in intents])
        return [self.outcomes.get(intent.args[0]) for intent in intents[: self.at_a_time]]


def numbers(intents):
    return [intent.args[0] for intent in intents]


def test_a_flush_is_handed_over_as_a_whole_and_in_order(left_with):
    crate = Crate()
    scope = left_with(3, 1, 2, executor=crate)

    assert scope.flush() == scope.intents
    assert crate.given == [[3, 1, 2]]


def test_a_single_intent_is_handed_over_as_ever(left_with):
    crate = Crate()
    left_with(1, executor=crate).flush()

    assert crate.given == [1]


def test_nothing_is_handed_over_when_there_is_nothing(left_with):
    crate = Crate()
    left_with(1, 2, policy=airlock.DropAll(), executor=crate).flush()

    assert crate.given == []


def test_an_executor_is_called_again_with_what_it_did_not_take(left_with):
    crate = Crate(at_a_time=2)
    scope = left_with(1, 2, 3, 4, 5, executor=crate)

    assert numbers(scope.flush()) == [1, 2, 3, 4, 5]
    assert crate.given == [[1, 2, 3, 4, 5], [3, 4, 5], 5]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_dispatch_stops_at_a_failure_and_keeps_exact_accounts(left_with, error):
    crate = Crate({3: error}, at_a_time=4)
    scope = left_with(1, 2, 3, 4, 5, executor=crate)

    with pytest.raises(type(error)) as raised:
        scope.flush()

    assert raised.value is error
    assert crate.given == [[1, 2, 3, 4, 5]]
    assert numbers(scope.dispatched_intents) == [1, 2, 4]
    assert numbers(scope.undispatched_intents) == [3, 5]
    assert scope.unknown_intents == []


def test_what_interrupts_is_raised_rather_than_what_failed_before_it(left_with):
    scope = left_with(1, 2, 3, 4, executor=Crate({2: ValueError("broken"), 3: OutcomeUnknown(KeyboardInterrupt())}))

    with pytest.raises(KeyboardInterrupt) as raised:
        scope.flush()

    which, others, unknown = raised.value.__notes__
    assert "task_3" in which
    assert "1 more" in others
    assert "unknown_intents" in unknown
    assert numbers(scope.undispatched_intents) == [2, 3]


def test_a_failure_of_the_last_one_alone_is_as_any_other(left_with):
    class Alone(Crate):
        def __call__(self, intent):
            raise ValueError("broken")

    scope = left_with(1, 2, 3, executor=Alone(at_a_time=2))
    with pytest.raises(ValueError, match="broken"):
        scope.flush()

    assert numbers(scope.dispatched_intents) == [1, 2]
    assert numbers(scope.undispatched_intents) == [3]


def test_a_failure_notes_which_intent_it_was_and_how_many_failed_with_it(left_with):
    scope = left_with(1, 2, 3, executor=Crate({2: ValueError("broken"), 3: ValueError("as well")}))

    with pytest.raises(ValueError, match="broken") as raised:
        scope.flush()

    which, others = raised.value.__notes__
    assert "task_2" in which
    assert scope.intents[1].id in which
    assert "views.py:2" in which
    assert "1 more" in others


def test_an_unknown_outcome_is_a_failure_that_is_told_apart(left_with):
    lost = ConnectionError("lost")
    crate = Crate({2: OutcomeUnknown(lost), 3: OutcomeUnknown(lost), 4: ValueError("broken")})
    scope = left_with(1, 2, 3, 4, executor=crate)

    with pytest.raises(ConnectionError) as raised:
        scope.flush()

    assert raised.value is lost
    assert numbers(scope.dispatched_intents) == [1]
    assert numbers(scope.undispatched_intents) == [2, 3, 4]
    assert numbers(scope.unknown_intents) == [2, 3]
    assert "unknown_intents" in raised.value.__notes__[-1]


@pytest.mark.parametrize("error", [ConnectionError("lost"), KeyboardInterrupt()], ids=repr)
def test_when_the_executor_itself_raises_all_it_was_given_is_unknown(left_with, error):
    class Crashing(Crate):
        def dispatch_many(self, intents):
            if self.given:
                raise error
            return super().dispatch_many(intents)

    scope = left_with(1, 2, 3, 4, executor=Crashing(at_a_time=2))
    with pytest.raises(type(error)) as raised:
        scope.flush()

    assert raised.value is error
    assert numbers(scope.dispatched_intents) == [1, 2]
    assert numbers(scope.undispatched_intents) == numbers(scope.unknown_intents) == [3, 4]


@pytest.mark.parametrize("answer", [None, [], [None] * 4, {1: None}, 3], ids=repr)
def test_an_executor_that_does_not_tell_what_became_of_them_is_told_how(left_with, answer):
    class Silent(Crate):
        def dispatch_many(self, intents):
            return answer

    scope = left_with(1, 2, 3, executor=Silent())
    with pytest.raises(airlock.UsageError, match=r"was given 3 intents and returned .* must return"):
        scope.flush()

    assert numbers(scope.unknown_intents) == [1, 2, 3]


def test_an_override_of_dispatch_all_may_hand_over_parts(left_with):
    class InParts(airlock.Scope):
        def dispatch_all(self, intents):
            super().dispatch_all(intents[:2])
            super().dispatch_all(intents[2:])

    crate = Crate({4: ValueError("broken")})
    scope = left_with(1, 2, 3, 4, _cls=InParts, executor=crate)
    with pytest.raises(ValueError, match="broken"):
        scope.flush()

    assert crate.given == [[1, 2], [3, 4]]
    assert numbers(scope.dispatched_intents) == [1, 2, 3]


def test_an_unknown_outcome_shows_its_reason():
    assert repr(OutcomeUnknown(ConnectionError("lost"))) == "OutcomeUnknown(ConnectionError('lost'))"


def test_the_account_is_whole_when_parts_are_dispatched_in_the_middle_of_others(left_with):
    class InParts(airlock.Scope):
        def dispatch_all(self, intents):
            super().dispatch_all(intents[:2])

    class Nested(Crate):
        def dispatch_many(self, intents):
            outcomes = super().dispatch_many(intents)
            if 1 in numbers(intents):
                airlock.Scope.dispatch_all(scope, scope.intents[2:])
            return outcomes

    crate = Nested()
    scope = left_with(1, 2, 3, 4, executor=crate, _cls=InParts)
    scope.flush()

    assert crate.given == [[1, 2], [3, 4]]
    assert numbers(scope.dispatched_intents) == [3, 4, 1, 2]
    assert scope.undispatched_intents == []
