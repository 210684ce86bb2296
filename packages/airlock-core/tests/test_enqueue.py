"""Recording an intent, and the mistakes that are refused at the call that makes them."""

from contextvars import copy_context

import pytest

import airlock


def send_email(*args, **kwargs):
    raise AssertionError("tasks run at dispatch, and this one is never dispatched")


@pytest.fixture
def scope():
    """A scope whose intents never go out."""
    scope = airlock.scope()
    scope.enter()
    yield scope
    scope.exit()
    scope.discard()


class TakesNames:
    """An executor that carries out names as well as callables."""

    def __init__(self):
        self.carried_out = []
        self.asked_about = []

    def accepts(self, task):
        self.asked_about.append(task)
        return isinstance(task, str)

    def __call__(self, intent):
        self.carried_out.append(intent.task)


def test_enqueue_runs_nothing(scope, ran):
    airlock.enqueue(ran.append, 1)

    assert ran == []


def test_enqueue_returns_the_recorded_intent(scope):
    intent = airlock.enqueue(send_email, 1, subject="Hello")

    assert scope.intents == [intent]
    assert (intent.task, intent.args, intent.kwargs) == (send_email, (1,), {"subject": "Hello"})


def test_no_parameter_name_is_taken_from_the_task(scope):
    intent = airlock.enqueue(send_email, task=1, policy=2, scope=3, name=4, self=5)

    assert intent.kwargs == {"task": 1, "policy": 2, "scope": 3, "name": 4, "self": 5}


def test_options_for_airlock_do_not_reach_the_task(scope):
    options = {"countdown": 60}

    intent = airlock.enqueue(send_email, 1, _name="hello", _origin="here", _dispatch_options=options)

    assert (intent.name, intent.origin, intent.dispatch_options) == ("hello", "here", options)
    assert (intent.args, intent.kwargs) == ((1,), {})


def test_enqueue_outside_any_scope_is_refused():
    with pytest.raises(airlock.NoScopeError):
        airlock.enqueue(send_email)


def test_enqueue_after_the_scope_is_refused():
    with airlock.scope():
        pass

    with pytest.raises(airlock.NoScopeError):
        airlock.enqueue(send_email)


def test_enqueue_into_a_closed_scope_is_refused():
    with airlock.scope() as scope:
        still_inside = copy_context()

    with pytest.raises(airlock.ScopeStateError):
        still_inside.run(airlock.enqueue, send_email)
    assert scope.intents == []


def test_enqueue_into_a_closed_scope_is_refused_although_an_enclosing_one_is_open(scope):
    with airlock.scope():
        still_inside = copy_context()

    with pytest.raises(airlock.ScopeStateError):
        still_inside.run(airlock.enqueue, send_email)
    assert scope.intents == []


@pytest.mark.parametrize("task", [42, None, {"task": "send_email"}, "shop.tasks.send_email"], ids=repr)
def test_a_task_that_nobody_could_carry_out_is_refused(scope, task):
    with pytest.raises(TypeError) as refusal:
        airlock.enqueue(task)

    assert repr(task) in str(refusal.value)
    assert type(task).__name__ in str(refusal.value)
    assert scope.intents == []


def test_an_executor_may_accept_other_tasks_than_callables():
    executor = TakesNames()

    with airlock.scope(executor=executor):
        airlock.enqueue("shop.tasks.send_email", 1)

    assert executor.carried_out == ["shop.tasks.send_email"]


def test_what_the_executor_does_not_accept_is_refused():
    with airlock.scope(executor=TakesNames()), pytest.raises(TypeError, match="42"):
        airlock.enqueue(42)


def test_executors_are_not_asked_about_callables():
    executor = TakesNames()

    with airlock.scope(executor=executor):
        airlock.enqueue(send_email)

    assert executor.asked_about == []


def test_the_executor_of_any_enclosing_scope_may_accept_it_as_any_of_them_may_dispatch_it():
    executor = TakesNames()

    with airlock.scope(executor=executor), airlock.scope(), airlock.scope():
        airlock.enqueue("first")

    class LetsAllThrough(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            return intents

    with airlock.scope(_cls=LetsAllThrough), airlock.scope(executor=executor):
        airlock.enqueue("second")

    assert executor.carried_out == ["first", "second"]


class EnqueuesOnEnqueue(airlock.AllowAll):
    def on_enqueue(self, intent):
        airlock.enqueue(send_email)


class EnqueuesWhenAsked(airlock.AllowAll):
    def allows(self, intent):
        airlock.enqueue(send_email)
        return True


class OpensScopeOnEnqueue(airlock.AllowAll):
    def on_enqueue(self, intent):
        with airlock.scope():
            airlock.enqueue(send_email)


@pytest.mark.parametrize("policy", [EnqueuesOnEnqueue(), OpensScopeOnEnqueue()], ids=lambda it: type(it).__name__)
def test_a_policy_cannot_enqueue_when_it_observes(policy):
    with airlock.scope(policy) as scope:
        with pytest.raises(airlock.PolicyEnqueueError):
            airlock.enqueue(send_email)

        assert scope.intents == []


def test_a_policy_cannot_enqueue_when_it_is_asked_at_the_flush(ran):
    with pytest.raises(airlock.PolicyEnqueueError), airlock.scope(EnqueuesWhenAsked()):
        airlock.enqueue(ran.append, 1)

    assert ran == []


def test_a_policy_cannot_enqueue_when_it_is_asked_in_between(scope):
    with airlock.policy(EnqueuesWhenAsked()):
        intent = airlock.enqueue(send_email)

    with pytest.raises(airlock.PolicyEnqueueError):
        intent.passes_local_policies()
    assert scope.intents == [intent]


def test_a_policy_that_was_refused_an_effect_leaves_the_scope_in_order(ran):
    with airlock.scope():
        with airlock.policy(EnqueuesOnEnqueue()), pytest.raises(airlock.PolicyEnqueueError):
            airlock.enqueue(ran.append, 1)
        airlock.enqueue(ran.append, 2)

    assert ran == [2]


def test_what_a_policy_refuses_at_the_call_is_not_recorded(scope):
    class Refuses(airlock.AllowAll):
        def on_enqueue(self, intent):
            raise LookupError(intent.name)

    with airlock.policy(Refuses()), pytest.raises(LookupError, match="send_email"):
        airlock.enqueue(send_email)

    assert scope.intents == []
