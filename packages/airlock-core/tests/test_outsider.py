"""An integration with a framework, as an outsider writes it: with `airlock` and `airlock.ext` alone."""

import pytest

import airlock
from airlock.ext import outside, set_defaults, suspend, when_no_scope

#: The framework's settings, and what it does about an effect outside of any scope. Tests add to them.
settings = [{}]
handlers = []


@pytest.fixture(scope="module", autouse=True)
def _installed():
    set_defaults(lambda: settings[-1])
    when_no_scope(lambda what: handlers[-1](what) if handlers else None)


@pytest.fixture(autouse=True)
def _as_found():
    yield
    del settings[1:]
    handlers.clear()


class FrameworkScope(airlock.Scope):
    def __init__(self, *args, label="none", **kwargs):
        super().__init__(*args, **kwargs)
        self.label = label


# Layers of configuration


def test_settings_of_a_framework_hold_where_nothing_else_is_said():
    settings.append({"scope_cls": FrameworkScope, "scope_kwargs": {"label": "settings"}, "executor": print})
    assert airlock.scope().label == "settings"
    assert airlock.get_configuration().executor is print
    assert airlock.get_configuration().policy is None


def test_configure_wins_over_settings_and_arguments_over_both(ran):
    settings.append({"policy": airlock.DropAll(), "executor": len})
    airlock.configure(policy=airlock.AllowAll())
    with airlock.scope(executor=lambda intent: ran.append(intent.args)):
        airlock.enqueue(int, 1)
    assert ran == [(1,)]


def test_a_reset_goes_back_to_what_the_integrations_say():
    settings.append({"scope_cls": FrameworkScope})
    airlock.configure(scope_cls=airlock.Scope, capture_origin=True)
    airlock.reset_configuration()
    assert type(airlock.scope()) is FrameworkScope
    assert airlock.get_configuration() == airlock.Configuration(scope_cls=FrameworkScope)


def test_settings_are_read_when_a_scope_is_made():
    before = airlock.scope()
    settings.append({"scope_cls": FrameworkScope})
    assert (type(before), type(airlock.scope())) == (airlock.Scope, FrameworkScope)


# Outside of any scope


def test_a_framework_may_give_a_scope_for_one_intent(ran):
    handlers.append(lambda what: airlock.scope(airlock.BlockTasks({"blocked"})))
    assert airlock.enqueue(ran.append, 1).origin is None
    assert ran == [1]
    airlock.configure(capture_origin=True)
    assert airlock.enqueue(ran.append, 2, _name="blocked").origin.startswith(__file__)
    assert airlock.enqueue(ran.append, 2, _name="blocked", _origin="here").origin == "here"
    assert ran == [1]


def test_a_framework_may_say_what_to_do(ran):
    def refuse(what):
        raise airlock.NoScopeError(f"{what}: add the middleware")

    handlers.append(refuse)
    with pytest.raises(airlock.NoScopeError, match=r"builtins\.list\.append: add the middleware"):
        airlock.enqueue(ran.append, 1)


def test_a_framework_that_does_not_care_leaves_the_usual_error():
    handlers.append(lambda what: None)
    with pytest.raises(airlock.NoScopeError, match="outside of any scope"):
        airlock.enqueue(int)


def test_a_policy_cannot_get_a_scope_from_a_framework(ran):
    class Meddles(airlock.AllowAll):
        def on_enqueue(self, intent):
            airlock.enqueue(ran.append, "meddling")

    handlers.append(lambda what: airlock.scope())
    with airlock.scope(Meddles()), pytest.raises(airlock.PolicyEnqueueError):
        airlock.enqueue(int)
    assert ran == []


# A response whose body streams


def test_a_suspended_scope_is_gone_until_its_code_goes_on(ran):
    scope = airlock.scope()
    scope.enter()
    airlock.policy(airlock.BlockTasks({"blocked"})).__enter__()
    airlock.enqueue(ran.append, "view")
    inside = suspend(scope)
    assert airlock.get_current_scope() is None
    for number in (1, 2):
        with inside:
            assert airlock.get_current_scope() is scope
            airlock.enqueue(ran.append, number)
            airlock.enqueue(ran.append, "never", _name="blocked")
        assert airlock.get_current_scope() is None
    with inside:
        scope.exit()
        assert airlock.get_current_scope() is None
    scope.flush()
    assert ran == ["view", 1, 2]


def test_what_is_entered_in_a_suspended_place_is_found_again(ran):
    with airlock.scope() as outer:
        scope = airlock.scope()
        scope.enter()
        inside = suspend(scope)
        assert airlock.get_current_scope() is outer
        with inside:
            nested = airlock.scope()
            nested.enter()
        with airlock.scope(airlock.DropAll()), inside:
            assert airlock.get_current_scope() is nested
            airlock.enqueue(ran.append, 1)
            nested.exit()
            nested.flush()
            scope.exit()
        scope.flush()
        assert outer.intents == scope.intents
    assert ran == [1]


def test_a_block_outside_of_a_scope_is_where_it_was_entered(ran):
    with airlock.scope() as outer, airlock.scope() as scope:
        with pytest.raises(ValueError, match="wrong"), outside(scope):
            assert airlock.get_current_scope() is outer
            airlock.enqueue(ran.append, 1)
            raise ValueError("wrong")
        assert airlock.get_current_scope() is scope
        assert (scope.intents, len(outer.intents)) == ([], 1)


# Its executor


def test_an_executor_may_refuse_arguments_at_the_call(ran):
    class Checks:
        def check(self, intent):
            if not intent.args:
                raise TypeError(f"{intent.name} needs an argument")

        def __call__(self, intent):
            ran.append(intent.args)

    with airlock.scope(executor=Checks()) as scope:
        with pytest.raises(TypeError, match="int needs an argument"):
            airlock.enqueue(int)
        with airlock.scope(executor=print), pytest.raises(TypeError):
            airlock.enqueue(int)
        airlock.enqueue(int, 1)
        assert len(scope.intents) == 1
    assert ran == [(1,)]


def test_what_is_an_executor_can_be_asked():
    assert isinstance(print, airlock.Executor)
    assert not isinstance(42, airlock.Executor)


async def test_aflush_is_what_async_with_calls(ran):
    class InAnotherThread(airlock.Scope):
        async def aflush(self):
            ran.append("aflush")
            return self.flush()

    async with InAnotherThread():
        airlock.enqueue(ran.append, 1)
    with InAnotherThread():
        airlock.enqueue(ran.append, 2)
    assert ran == ["aflush", 1, 2]


# Interruptions


@pytest.mark.parametrize("where", ["check", "on_enqueue", "carrier"])
def test_an_interruption_in_enqueue_records_nothing(ran, where):
    def interrupt(*_):
        raise KeyboardInterrupt

    def executor(intent):
        ran.append(intent.args)

    class Executor:
        check = staticmethod(interrupt if where == "check" else int)

        def __call__(self, intent):
            ran.append(intent.args)

    policy = airlock.AllowAll()
    if where == "on_enqueue":
        policy.on_enqueue = interrupt
    scope = airlock.scope(policy, executor=Executor() if where == "check" else executor)
    scope.carriers = [interrupt] if where == "carrier" else []
    with scope:
        with pytest.raises(KeyboardInterrupt):
            airlock.enqueue(int)
        assert airlock.get_current_scope() is scope
    assert ran == scope.intents == []
