"""For the few effects that must go out whatever becomes of everything around them."""

from contextvars import copy_context

import pytest

import airlock


def test_what_is_detached_goes_out_although_all_around_it_fails(ran):
    @airlock.scoped
    def fail_to_log_in():
        airlock.enqueue(ran.append, "welcome")
        with airlock.detached():
            airlock.enqueue(ran.append, "warning")
        raise PermissionError("wrong password")

    with pytest.raises(PermissionError):
        fail_to_log_in()
    assert ran == ["warning"]


def test_it_goes_out_at_the_end_of_the_block_and_not_before(ran):
    with airlock.scope() as outer:
        airlock.enqueue(ran.append, "around")
        with airlock.detached() as scope:
            assert airlock.get_current_scope() is scope
            intent = airlock.enqueue(ran.append, "detached")
            assert ran == []
        assert ran == ["detached"]
        assert scope.dispatched_intents == [intent]
        assert airlock.get_current_scope() is outer
        assert len(outer.intents) == 1
    assert ran == ["detached", "around"]


async def test_it_is_async_as_well(ran):
    async with airlock.scope():
        async with airlock.detached():
            airlock.enqueue(ran.append, "detached")
        assert ran == ["detached"]


def test_a_block_that_raises_discards_and_leaves_the_rest_alone(ran):
    with airlock.scope():
        airlock.enqueue(ran.append, "around")
        with pytest.raises(ValueError, match="wrong"), airlock.detached() as scope:
            airlock.enqueue(ran.append, "detached")
            raise ValueError("wrong")
    assert scope.is_discarded
    assert ran == ["around"]


def test_no_scope_around_it_is_asked(ran):
    class Asked(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            raise AssertionError("nothing is handed over")

    with airlock.scope(_cls=Asked), airlock.scope(_cls=Asked):
        with airlock.detached():
            airlock.enqueue(ran.append, 1)
        assert ran == [1]


def test_it_captures_the_scopes_inside_and_is_not_captured_itself(ran):
    with pytest.raises(ValueError, match="wrong"), airlock.detached():
        airlock.enqueue(ran.append, "never")
        with airlock.detached() as scope:
            airlock.enqueue(ran.append, 1)
            with airlock.scope():
                intent = airlock.enqueue(ran.append, 2)
            assert ran == []
        assert scope.captured_intents == [intent]
        raise ValueError("wrong")
    assert ran == [1, 2]


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
    with airlock.scope(Judge("outer", 1)), airlock.policy(Judge("between", 2)), airlock.scope(Judge("inner", 3)):
        with airlock.policy(Judge("local")), airlock.detached(), airlock.policy(Judge("inside")):
            for number in (1, 2, 3, 4):
                airlock.enqueue(ran.append, number)
        assert ran == [4]
    order = ["inside", "local", "between", "inner", "outer"]
    assert [name for name, number in observed if number == 4] == order
    assert [name for name, number in asked if number == 4] == order


def test_the_executor_is_that_of_the_outermost_scope():
    notes = []
    with airlock.scope(executor=lambda intent: notes.append("outermost")), airlock.scope(executor=len):
        with airlock.detached():
            airlock.enqueue(print)
        assert notes == ["outermost"]


def test_without_a_scope_around_it_the_configuration_holds(ran):
    airlock.configure(policy=airlock.BlockTasks({"blocked"}), executor=lambda intent: ran.append(intent.args))
    with airlock.policy(airlock.BlockTasks({"blocked here"})), airlock.detached():
        airlock.enqueue(int, 1, _name="blocked")
        airlock.enqueue(int, 2, _name="blocked here")
        airlock.enqueue(int, 3)
    assert ran == [(3,)]


def test_scopes_that_have_ended_are_not_around_it(ran):
    def late():
        with airlock.detached():
            airlock.enqueue(ran.append, 1)

    with airlock.scope(airlock.DropAll(), executor=len):
        still_inside = copy_context()
    still_inside.run(late)
    assert ran == [1]


@pytest.mark.parametrize("around", [True, False])
def test_origins_are_captured_as_around_it(around):
    airlock.configure(capture_origin=around)
    with airlock.scope():
        airlock.configure(capture_origin=not around)
        with airlock.detached():
            assert (airlock.enqueue(int).origin is not None) is around


def test_an_effect_that_fails_fails_at_the_end_of_the_block(ran):
    with airlock.scope() as outer:
        airlock.enqueue(ran.append, "around")
        with pytest.raises(ValueError, match="invalid literal"), airlock.detached() as scope:
            airlock.enqueue(int, "x")
        assert scope.undispatched_intents == scope.intents
        assert airlock.get_current_scope() is outer
    assert ran == ["around"]
