"""Recording an intent, and the mistakes that are refused at the call that makes them."""

from contextvars import copy_context

import pytest

import airlock


def send_email(*args, **kwargs):
    raise AssertionError("tasks run at dispatch, and this one is never dispatched")


@pytest.fixture
def scope():
    """A scope whose intents never go out."""
    with airlock.scope(airlock.DropAll()) as scope:
        yield scope


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


def test_enqueue_records_and_runs_nothing(scope):
    intent = airlock.enqueue(send_email, 1, subject="Hello")
    assert scope.intents == [intent]
    assert (intent.task, intent.args, intent.kwargs) == (send_email, (1,), {"subject": "Hello"})


def test_the_task_runs_with_its_arguments(ran):
    with airlock.scope():
        airlock.enqueue(lambda *args, **kwargs: ran.append((args, kwargs)), 1, 2, key="value")
    assert ran == [((1, 2), {"key": "value"})]


def test_no_parameter_name_is_taken_from_the_task(scope):
    intent = airlock.enqueue(send_email, task=1, policy=2, scope=3, name=4, self=5)
    assert intent.kwargs == {"task": 1, "policy": 2, "scope": 3, "name": 4, "self": 5}


def test_options_for_airlock_do_not_reach_the_task(scope):
    options = {"countdown": 60}
    intent = airlock.enqueue(send_email, 1, _name="hello", _origin="here", _dispatch_options=options)
    assert (intent.name, intent.origin, intent.dispatch_options) == ("hello", "here", options)
    assert (intent.args, intent.kwargs) == ((1,), {})


def test_enqueue_after_the_scope_is_refused():
    with airlock.scope():
        pass
    with pytest.raises(airlock.NoScopeError):
        airlock.enqueue(send_email)


def test_enqueue_into_an_ended_scope_is_refused_even_in_an_open_one(scope):
    with airlock.scope() as ended:
        still_inside = copy_context()
    with pytest.raises(airlock.ScopeStateError):
        still_inside.run(airlock.enqueue, send_email)
    assert scope.intents == ended.intents == []


@pytest.mark.parametrize("error", [airlock.NoScopeError, airlock.ScopeStateError, TypeError])
def test_a_refusal_shows_the_line_that_enqueues(error):
    def view():
        airlock.enqueue(42 if error is TypeError else send_email)

    context = copy_context()
    if error is not airlock.NoScopeError:
        scope = airlock.scope()
        context.run(scope.enter)
    if error is airlock.ScopeStateError:
        copy_context().run(scope.exit)
    with pytest.raises(error) as refusal:
        context.run(view)
    assert "view" in [entry.name for entry in refusal.traceback[-3:]]


@pytest.mark.parametrize("task", [42, None, {"task": "send_email"}, "shop.tasks.send_email"], ids=repr)
def test_a_task_that_nobody_could_carry_out_is_refused(scope, task):
    with pytest.raises(TypeError):
        airlock.enqueue(task)
    assert scope.intents == []


def test_an_executor_may_accept_other_tasks_than_callables():
    executor = TakesNames()
    with airlock.scope(executor=executor):
        airlock.enqueue("shop.tasks.send_email", 1)
        airlock.enqueue(send_email)
        with pytest.raises(TypeError, match="42"):
            airlock.enqueue(42)
    assert executor.carried_out == ["shop.tasks.send_email", send_email]
    assert executor.asked_about == ["shop.tasks.send_email", 42]


def test_any_executor_that_may_get_a_task_may_accept_it():
    class LetsAllThrough(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            return intents

    executor = TakesNames()
    with airlock.scope(executor=executor), airlock.scope(), airlock.scope():
        airlock.enqueue("first")
    with airlock.scope(_cls=LetsAllThrough), airlock.scope(executor=executor):
        airlock.enqueue("second")
    assert executor.carried_out == ["first", "second"]


class EnqueuesOnEnqueue(airlock.AllowAll):
    def on_enqueue(self, intent):
        airlock.enqueue(send_email)


class OpensScopeOnEnqueue(airlock.AllowAll):
    def on_enqueue(self, intent):
        with airlock.scope():
            airlock.enqueue(send_email)


class DetachesOnEnqueue(airlock.AllowAll):
    def on_enqueue(self, intent):
        with airlock.detached():
            airlock.enqueue(send_email)


class EnqueuesWhenAsked(airlock.AllowAll):
    def allows(self, intent):
        airlock.enqueue(send_email)


@pytest.mark.parametrize("policy", [EnqueuesOnEnqueue, OpensScopeOnEnqueue, DetachesOnEnqueue])
def test_a_policy_cannot_enqueue_when_it_observes(ran, policy):
    with airlock.scope() as scope:
        with airlock.policy(policy()), pytest.raises(airlock.PolicyEnqueueError):
            airlock.enqueue(ran.append, 1)
        assert scope.intents == []
        airlock.enqueue(ran.append, 2)
    assert ran == [2]


def test_a_policy_cannot_enqueue_when_it_is_asked(ran):
    with pytest.raises(airlock.PolicyEnqueueError), airlock.scope(EnqueuesWhenAsked()):
        airlock.enqueue(ran.append, 1)
    assert ran == []


def test_a_policy_cannot_enqueue_when_it_is_asked_in_between():
    scope = airlock.scope()
    scope.enter()
    with airlock.policy(EnqueuesWhenAsked()):
        intent = airlock.enqueue(send_email)
    with pytest.raises(airlock.PolicyEnqueueError):
        intent.passes_local_policies()
    assert scope.intents == [intent]
    scope.exit()
