"""For the few effects that must go out whatever becomes of everything around them."""

from contextvars import copy_context

import pytest

import airlock


@airlock.scoped
def fail_to_log_in(ran):
    airlock.enqueue(ran.append, "welcome")
    with airlock.detached():
        airlock.enqueue(ran.append, "warning")
    raise PermissionError("wrong password")


def test_what_is_enqueued_detached_goes_out_although_everything_around_fails(ran):
    with pytest.raises(PermissionError):
        fail_to_log_in(ran)

    assert ran == ["warning"]


def test_it_goes_out_at_the_end_of_the_block_and_not_before(ran):
    with airlock.scope():
        airlock.enqueue(ran.append, "around")
        with airlock.detached():
            airlock.enqueue(ran.append, "detached")
            assert ran == []
        assert ran == ["detached"]

    assert ran == ["detached", "around"]


async def test_it_is_async_as_well(ran):
    async with airlock.scope() as outer:
        async with airlock.detached() as scope:
            airlock.enqueue(ran.append, "detached")
        assert ran == ["detached"]

    assert outer.intents == []
    assert scope.is_flushed


def test_a_block_that_raises_discards_and_leaves_the_scope_around_alone(ran):
    with airlock.scope():
        airlock.enqueue(ran.append, "around")
        with pytest.raises(ValueError, match="wrong"), airlock.detached() as scope:
            airlock.enqueue(ran.append, "detached")
            raise ValueError("wrong")

    assert scope.is_discarded
    assert ran == ["around"]


def test_no_scope_around_captures_it_or_is_asked(ran):
    class Asked(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            raise AssertionError("nothing is handed over")

    with airlock.scope(_cls=Asked) as outer, airlock.scope(_cls=Asked) as inner:
        with airlock.detached() as scope:
            intent = airlock.enqueue(ran.append, 1)
        assert scope.dispatched_intents == scope.own_intents == [intent]

    assert inner.intents == outer.intents == []


def test_it_captures_the_scopes_inside(ran):
    with pytest.raises(ValueError, match="wrong"), airlock.scope():
        with airlock.detached() as scope:
            airlock.enqueue(ran.append, 1)
            with airlock.scope():
                intent = airlock.enqueue(ran.append, 2)
            assert ran == []
        raise ValueError("wrong")

    assert scope.captured_intents == [intent]
    assert ran == [1, 2]


def test_detached_in_detached_is_on_its_own(ran):
    with pytest.raises(ValueError, match="wrong"), airlock.detached():
        airlock.enqueue(ran.append, 1)
        with airlock.detached():
            airlock.enqueue(ran.append, 2)
        assert ran == [2]
        raise ValueError("wrong")

    assert ran == [2]


def test_it_is_the_current_scope_inside():
    with airlock.scope() as outer:
        with airlock.detached() as scope:
            assert airlock.get_current_scope() is scope
            assert isinstance(scope, airlock.Scope)
        assert airlock.get_current_scope() is outer


def test_every_policy_around_judges_once(ran):
    class Judge(airlock.AllowAll):
        def __init__(self, name, denies=None):
            self.name = name
            self.denies = denies

        def on_enqueue(self, intent):
            observed.append((self.name, intent.args[0]))

        def allows(self, intent):
            asked.append((self.name, intent.args[0]))
            return intent.args[0] != self.denies

    observed, asked = [], []
    with (
        airlock.scope(Judge("outer", denies=1)),
        airlock.policy(Judge("between", denies=2)),
        airlock.scope(Judge("inner", denies=3)),
        airlock.policy(Judge("local")),
    ):
        with airlock.detached(), airlock.policy(Judge("inside")):
            for number in (1, 2, 3, 4):
                airlock.enqueue(ran.append, number)
        assert ran == [4]

    order = ["inside", "local", "between", "inner", "outer"]
    assert [name for name, number in observed if number == 4] == order
    assert [name for name, number in asked if number == 4] == order


def test_the_executor_is_that_of_the_outermost_scope_which_would_have_dispatched_it():
    notes = []
    with airlock.scope(executor=lambda intent: notes.append("outermost")), airlock.scope(executor=len):
        with airlock.detached():
            airlock.enqueue(print)
        assert notes == ["outermost"]


def test_it_needs_no_scope_around_it(ran):
    airlock.configure(policy=airlock.BlockTasks({"blocked"}))
    with airlock.policy(airlock.BlockTasks({"blocked here"})), airlock.detached():
        airlock.enqueue(ran.append, 1, _name="blocked")
        airlock.enqueue(ran.append, 2, _name="blocked here")
        airlock.enqueue(ran.append, 3)

    assert ran == [3]


def test_without_a_scope_around_it_the_configured_executor_carries_out(ran):
    given = []
    airlock.configure(executor=given.append)
    with airlock.detached() as scope:
        airlock.enqueue(ran.append, 1)

    assert given == scope.intents
    assert ran == []


def test_scopes_that_have_ended_are_not_around_it(ran):
    def late():
        with airlock.detached():
            airlock.enqueue(ran.append, 1)

    with airlock.scope(airlock.DropAll(), executor=len):
        still_inside = copy_context()
    still_inside.run(late)

    assert ran == [1]


def test_origins_are_captured_as_around_it():
    airlock.configure(capture_origin=True)
    with airlock.scope():
        airlock.configure(capture_origin=False)
        with airlock.detached():
            assert airlock.enqueue(int).origin is not None
    with airlock.scope():
        airlock.configure(capture_origin=True)
        with airlock.detached():
            assert airlock.enqueue(int).origin is None


def test_effects_run_outside_of_all_scopes(ran):
    with airlock.scope():
        with airlock.detached():
            airlock.enqueue(lambda: ran.append(airlock.get_current_scope()))
        assert ran == [None]


def test_an_effect_that_fails_fails_at_the_end_of_the_block(ran):
    def fail():
        raise ValueError("broken")

    with airlock.scope() as outer:
        airlock.enqueue(ran.append, "around")
        with pytest.raises(ValueError, match="broken"), airlock.detached() as scope:
            intent = airlock.enqueue(fail)
        assert scope.undispatched_intents == [intent]
        assert airlock.get_current_scope() is outer

    assert ran == ["around"]


def test_a_policy_cannot_get_round_its_ban_detached(ran):
    class Meddles(airlock.AllowAll):
        def on_enqueue(self, intent):
            with airlock.detached():
                airlock.enqueue(ran.append, "from a policy")

    with airlock.scope(Meddles()), pytest.raises(airlock.PolicyEnqueueError):
        airlock.enqueue(ran.append, 1)

    assert ran == []


def test_it_is_used_once():
    detached = airlock.detached()
    with detached:
        pass

    with pytest.raises(airlock.ScopeStateError):
        detached.enter()
