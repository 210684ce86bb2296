"""Process-wide defaults, and that explicit arguments win over them."""

import dataclasses

import pytest

import airlock


class Marked(airlock.Scope):
    def __init__(self, policy=None, *, executor=None, **marks):
        super().__init__(policy, executor=executor)
        self.marks = marks


def test_without_any_configuration_scopes_are_plain_let_everything_pass_and_run_it_in_place(ran):
    with airlock.scope() as scope:
        intent = airlock.enqueue(ran.append, 1)

    assert type(scope) is airlock.Scope
    assert ran == [1]
    assert intent.origin is None


def test_the_configured_policy_judges(ran):
    airlock.configure(policy=airlock.BlockTasks({"blocked"}))
    with airlock.scope():
        airlock.enqueue(ran.append, 1, _name="blocked")
        airlock.enqueue(ran.append, 2)

    assert ran == [2]


def test_an_explicit_policy_stands_in_for_the_configured_one(ran):
    airlock.configure(policy=airlock.DropAll())
    with airlock.scope(airlock.AllowAll()):
        airlock.enqueue(ran.append, 1)

    assert ran == [1]


def test_the_configured_executor_carries_out(ran):
    given = []
    airlock.configure(executor=given.append)
    with airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)

    assert given == scope.intents
    assert ran == []


def test_an_explicit_executor_stands_in_for_the_configured_one():
    configured, explicit = [], []
    airlock.configure(executor=configured.append)
    with airlock.scope(executor=explicit.append):
        airlock.enqueue(int)

    assert (len(configured), len(explicit)) == (0, 1)


def test_scopes_are_of_the_configured_class_and_get_the_configured_arguments():
    airlock.configure(scope_cls=Marked, scope_kwargs={"color": "red", "size": 1})

    assert airlock.scope().marks == {"color": "red", "size": 1}
    assert airlock.scope(size=2, shape="round").marks == {"color": "red", "size": 2, "shape": "round"}


def test_a_scope_class_may_be_any_callable_that_makes_scopes():
    airlock.configure(scope_cls=lambda **given: Marked(made_with=sorted(given)))
    assert airlock.scope().marks == {"made_with": []}
    assert airlock.scope(airlock.DropAll(), executor=print, x=1).marks == {"made_with": ["executor", "policy", "x"]}


def test_an_explicit_class_stands_in_for_the_configured_one_and_its_arguments():
    class Other(airlock.Scope):
        pass

    airlock.configure(scope_cls=Marked, scope_kwargs={"color": "red"})

    assert type(airlock.scope(_cls=Other)) is Other
    assert airlock.scope(_cls=Marked, size=1).marks == {"size": 1}


def test_a_class_that_does_not_take_an_argument_says_so():
    with pytest.raises(TypeError, match="color"):
        airlock.scope(color="red")


def test_scopes_made_directly_follow_the_configuration_as_well(ran):
    airlock.configure(policy=airlock.DropAll(), capture_origin=True)
    with airlock.Scope():
        intent = airlock.enqueue(ran.append, 1)

    assert ran == []
    assert intent.origin is not None


def test_what_is_not_given_stays_as_it_is(ran):
    given = []
    airlock.configure(policy=airlock.BlockTasks({"blocked"}))
    airlock.configure(executor=given.append)
    airlock.configure()
    with airlock.scope():
        airlock.enqueue(ran.append, 1, _name="blocked")
        airlock.enqueue(ran.append, 2)

    assert [intent.args for intent in given] == [(2,)]


def test_none_goes_back_to_the_default_of_one_setting(ran):
    airlock.configure(scope_cls=Marked, policy=airlock.DropAll(), executor=len)
    airlock.configure(scope_cls=None, policy=None, executor=None)
    with airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)

    assert ran == [1]
    assert type(scope) is airlock.Scope


def test_reset_goes_back_to_all_defaults():
    before = airlock.get_configuration()
    airlock.configure(
        scope_cls=Marked, policy=airlock.DropAll(), executor=len, scope_kwargs={"a": 1}, capture_origin=True
    )
    airlock.reset_configuration()

    assert airlock.get_configuration() == before == airlock.Configuration()


def test_the_configuration_in_force_can_be_read_and_not_written():
    policy, executor = airlock.DropAll(), len
    airlock.configure(
        scope_cls=Marked, policy=policy, executor=executor, scope_kwargs={"color": "red"}, capture_origin=True
    )
    configuration = airlock.get_configuration()

    assert configuration.scope_cls is Marked
    assert configuration.policy is policy
    assert configuration.executor is executor
    assert configuration.scope_kwargs == {"color": "red"}
    assert configuration.capture_origin is True
    with pytest.raises(dataclasses.FrozenInstanceError):
        configuration.policy = None
    with pytest.raises(TypeError):
        configuration.scope_kwargs["color"] = "blue"


def test_later_changes_to_the_given_arguments_change_nothing():
    arguments = {"color": "red"}
    airlock.configure(scope_cls=Marked, scope_kwargs=arguments)
    arguments["color"] = "blue"

    assert airlock.scope().marks == {"color": "red"}


def test_a_change_of_configuration_leaves_existing_scopes_as_they_are(ran):
    with airlock.scope():
        airlock.configure(policy=airlock.DropAll(), executor=len, capture_origin=True)
        assert airlock.enqueue(ran.append, 1).origin is None

    assert ran == [1]


@pytest.mark.parametrize(
    "nonsense",
    [{"policy": airlock.DropAll}, {"policy": "drop"}, {"executor": 42}],
    ids=["a policy class", "no policy", "no executor"],
)
def test_nonsense_is_refused_and_changes_nothing(nonsense):
    before = airlock.get_configuration()
    with pytest.raises(TypeError):
        airlock.configure(capture_origin=True, **nonsense)

    assert airlock.get_configuration() == before


def test_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="polycy"):
        airlock.configure(polycy=airlock.DropAll())


def test_what_is_no_executor_is_refused():
    with pytest.raises(TypeError, match="42"):
        airlock.scope(executor=42)
