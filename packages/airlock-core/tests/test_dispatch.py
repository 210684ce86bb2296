"""Handing intents to the executor: in order, until one fails, and with exact accounts."""

import pytest

import airlock


class Fussy:
    """An executor that fails on the intent whose first argument is `on`."""

    def __init__(self, on, error):
        self.on = on
        self.error = error
        self.given = []

    def __call__(self, intent):
        self.given.append(intent.args[0])
        if intent.args[0] == self.on:
            raise self.error


def test_the_executor_is_given_each_intent_once_in_order(left_with):
    given = []
    scope = left_with(3, 1, 2, executor=given.append)
    intents = scope.intents

    assert scope.flush() == given == intents
    assert [intent.args for intent in given] == [(3,), (1,), (2,)]


def test_the_task_runs_with_its_arguments(ran):
    def task(*args, **kwargs):
        ran.append((args, kwargs))

    with airlock.scope():
        airlock.enqueue(task, 1, 2, key="value")

    assert ran == [((1, 2), {"key": "value"})]


def test_an_executor_is_used_even_if_python_takes_it_for_false(ran):
    class Recorder(list):
        def __call__(self, intent):
            self.append(intent)

    recorder = Recorder()
    with airlock.scope(executor=recorder):
        intent = airlock.enqueue(ran.append, 1)

    assert (recorder, ran) == ([intent], [])


@pytest.mark.parametrize("answer", [None, False, True, [], "done"], ids=repr)
def test_what_the_executor_returns_is_ignored(left_with, answer):
    scope = left_with(1, 2, executor=lambda intent: answer)

    assert scope.flush() == scope.intents


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_dispatch_stops_at_the_first_failure_and_keeps_exact_accounts(left_with, error):
    executor = Fussy(2, error)
    scope = left_with(1, 2, 3, executor=executor)
    first, failed, not_tried = scope.intents

    with pytest.raises(type(error)) as raised:
        scope.flush()

    assert raised.value is error
    assert executor.given == [1, 2]
    assert scope.dispatched_intents == [first]
    assert scope.undispatched_intents == [failed, not_tried]
    assert scope.is_flushed


def test_a_failure_at_the_first_intent_leaves_all_undispatched(left_with):
    scope = left_with(1, 2, executor=Fussy(1, ValueError("broken")))
    with pytest.raises(ValueError, match="broken"):
        scope.flush()

    assert scope.dispatched_intents == []
    assert scope.undispatched_intents == scope.intents


def test_a_failure_notes_which_intent_it_was_and_where_it_was_enqueued(left_with):
    scope = left_with(1, 2, 3, executor=Fussy(2, ValueError("broken")))
    failed = scope.intents[1]

    with pytest.raises(ValueError, match="broken") as raised:
        scope.flush()

    assert str(raised.value) == "broken"
    (note,) = raised.value.__notes__
    assert "task_2" in note
    assert failed.id in note
    assert "views.py:2" in note


def test_a_failure_without_a_known_origin_says_how_to_get_one():
    scope = airlock.scope(executor=Fussy(1, ValueError("broken")))
    with pytest.raises(ValueError, match="broken") as raised, scope:
        airlock.enqueue(abs, 1)

    (note,) = raised.value.__notes__
    assert "capture_origin" in note


def test_a_failure_in_a_nested_task_is_seen_at_the_outermost_scope():
    outer = airlock.scope(executor=Fussy(2, ValueError("broken")))
    with pytest.raises(ValueError, match="broken"), outer, airlock.scope() as inner:
        for number in (1, 2, 3):
            airlock.enqueue(abs, number)

    assert [intent.args for intent in outer.undispatched_intents] == [(2,), (3,)]
    assert inner.undispatched_intents == []


def test_what_policies_dropped_is_neither_dispatched_nor_owed(left_with):
    scope = left_with(1, 2, 3, 4, policy=airlock.BlockTasks({"task_1", "task_3"}), executor=Fussy(4, ValueError("x")))
    with pytest.raises(ValueError, match="x"):
        scope.flush()

    _, second, _, fourth = scope.intents
    assert scope.dispatched_intents == [second]
    assert scope.undispatched_intents == [fourth]


class LetsAllThrough(airlock.Scope):
    def before_descendant_flushes(self, exiting_scope, intents):
        return intents


def test_effects_run_outside_of_all_scopes(ran):
    def effect():
        ran.append(airlock.get_current_scope())

    with airlock.scope():
        airlock.enqueue(effect)
    with airlock.scope(_cls=LetsAllThrough) as outer:
        with airlock.scope():
            airlock.enqueue(effect)
        assert ran == [None, None]
        assert airlock.get_current_scope() is outer


def test_a_failing_effect_that_was_let_through_leaves_the_enclosing_scope_current():
    with airlock.scope(_cls=LetsAllThrough, executor=len) as outer:
        with pytest.raises(ValueError, match="broken"), airlock.scope(executor=Fussy(1, ValueError("broken"))):
            airlock.enqueue(abs, 1)
        assert airlock.get_current_scope() is outer


def test_an_effect_may_open_a_scope_of_its_own(ran):
    @airlock.scoped
    def follow_up():
        airlock.enqueue(ran.append, 2)
        ran.append(1)

    with airlock.scope():
        airlock.enqueue(follow_up)
        airlock.enqueue(ran.append, 3)

    assert ran == [1, 2, 3]


def test_an_effect_cannot_enqueue_into_the_scope_that_dispatches_it(ran):
    scope = airlock.scope()
    with pytest.raises(airlock.NoScopeError), scope:
        airlock.enqueue(airlock.enqueue, ran.append, 1)

    assert ran == []
    assert len(scope.undispatched_intents) == 1


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


def test_a_scope_may_dispatch_in_parts_and_keeps_account_of_all(left_with):
    class InParts(airlock.Scope):
        def dispatch_all(self, intents):
            for intent in reversed(intents):
                super().dispatch_all([intent])

    scope = left_with(1, 2, 3, _cls=InParts, executor=Fussy(1, ValueError("broken")))
    first, second, third = scope.intents
    with pytest.raises(ValueError, match="broken"):
        scope.flush()

    assert scope.dispatched_intents == [third, second]
    assert scope.undispatched_intents == [first]


def test_flush_returns_only_what_was_dispatched_by_then(left_with):
    class FirstOnly(airlock.Scope):
        def dispatch_all(self, intents):
            super().dispatch_all(intents[:1])

    scope = left_with(1, 2, _cls=FirstOnly, executor=lambda intent: None)

    assert scope.flush() == scope.intents[:1]


def test_dispatch_all_is_given_what_the_policies_allowed(left_with):
    given = []

    class Listens(airlock.Scope):
        def dispatch_all(self, intents):
            given.extend(intents)

    scope = left_with(1, 2, 3, _cls=Listens, policy=airlock.BlockTasks({"task_2"}))
    scope.flush()

    assert [intent.name for intent in given] == ["task_1", "task_3"]
