"""Process-wide defaults, and that explicit arguments win over them."""

import dataclasses

import pytest

import airlock


class Marked(airlock.Scope):
    def __init__(self, policy=None, *, executor=None, **marks):
        super().__init__(policy, executor=executor)
        self.marks = marks


class Other(airlock.Scope):
    pass


def execute(intent):
    raise AssertionError("nothing is dispatched")


def test_without_configuration_scopes_are_plain_and_run_in_place(ran):
    with airlock.scope() as scope:
        intent = airlock.enqueue(ran.append, 1)
    assert type(scope) is airlock.Scope
    assert ran == [1]
    assert intent.origin is None


@pytest.mark.parametrize("make", [airlock.scope, airlock.Scope], ids=["scope()", "Scope()"])
def test_the_configured_policy_and_executor_hold(make):
    given = []
    airlock.configure(policy=airlock.BlockTasks({"blocked"}), executor=given.append, capture_origin=True)
    with make():
        airlock.enqueue(int, 1, _name="blocked")
        intent = airlock.enqueue(int, 2)
    assert given == [intent]
    assert intent.origin is not None


def test_explicit_arguments_stand_in_for_the_configured_ones():
    given = []
    airlock.configure(policy=airlock.DropAll(), executor=execute)
    with airlock.scope(airlock.AllowAll(), executor=given.append) as scope:
        airlock.enqueue(int)
    assert given == scope.intents


def test_scopes_are_of_the_configured_class_with_its_arguments():
    airlock.configure(scope_cls=Marked, scope_kwargs={"color": "red", "size": 1})
    assert airlock.scope().marks == {"color": "red", "size": 1}
    assert airlock.scope(size=2, shape="round").marks == {"color": "red", "size": 2, "shape": "round"}


def test_what_makes_scopes_is_given_by_keyword_what_was_given():
    airlock.configure(scope_cls=lambda **given: Marked(made_with=sorted(given)))
    assert airlock.scope().marks == {"made_with": []}
    assert airlock.scope(airlock.DropAll(), executor=print, x=1).marks == {"made_with": ["executor", "policy", "x"]}


def test_an_explicit_class_gets_none_of_the_configured_arguments():
    airlock.configure(scope_cls=Marked, scope_kwargs={"color": "red"})
    assert type(airlock.scope(_cls=Other)) is Other
    assert airlock.scope(_cls=Marked, size=1).marks == {"size": 1}


def test_a_class_that_does_not_take_an_argument_says_so():
    with pytest.raises(TypeError, match="color"):
        airlock.scope(color="red")


def test_what_is_not_given_stays_as_it_is():
    policy = airlock.DropAll()
    airlock.configure(policy=policy)
    airlock.configure(executor=execute)
    airlock.configure()
    assert airlock.get_configuration() == airlock.Configuration(policy=policy, executor=execute)


def test_none_or_a_reset_goes_back_to_the_defaults():
    airlock.configure(scope_cls=Marked, policy=airlock.DropAll(), executor=execute)
    airlock.configure(scope_cls=None, policy=None, executor=None)
    assert airlock.get_configuration() == airlock.Configuration()
    airlock.configure(scope_cls=Marked, scope_kwargs={"a": 1}, capture_origin=True, carriers=[print])
    airlock.reset_configuration()
    assert airlock.get_configuration() == airlock.Configuration()
    assert type(airlock.scope()) is airlock.Scope


def test_the_configuration_in_force_can_be_read_and_not_written():
    arguments = {"color": "red"}
    airlock.configure(scope_cls=Marked, scope_kwargs=arguments, capture_origin=True, carriers=[print])
    arguments["color"] = "blue"
    configuration = airlock.get_configuration()
    assert (configuration.scope_cls, configuration.capture_origin) == (Marked, True)
    assert (configuration.policy, configuration.executor, configuration.carriers) == (None, None, (print,))
    assert configuration.scope_kwargs == {"color": "red"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        configuration.policy = None
    with pytest.raises(TypeError):
        configuration.scope_kwargs["color"] = "blue"


def test_a_change_leaves_existing_scopes_as_they_are(ran):
    with airlock.scope():
        airlock.configure(policy=airlock.DropAll(), executor=execute, capture_origin=True, carriers=[execute])
        assert airlock.enqueue(ran.append, 1).origin is None
    assert ran == [1]


@pytest.mark.parametrize(
    "nonsense", [{"policy": airlock.DropAll}, {"policy": "drop"}, {"executor": 42}, {"polycy": None}], ids=repr
)
def test_nonsense_is_refused_and_changes_nothing(nonsense):
    with pytest.raises(TypeError):
        airlock.configure(capture_origin=True, **nonsense)
    assert airlock.get_configuration() == airlock.Configuration()
