"""What Airlock's errors are, and that each says what happened, to which task, and what to do next."""

from contextvars import copy_context

import pytest

import airlock


def send_email():
    pass


SEND_EMAIL = f"{__name__}.send_email"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (airlock.UsageError, airlock.AirlockError),
        (airlock.NoScopeError, airlock.UsageError),
        (airlock.PolicyEnqueueError, airlock.UsageError),
        (airlock.ScopeStateError, airlock.AirlockError),
        (airlock.PolicyViolation, airlock.AirlockError),
        (airlock.DispatchError, airlock.AirlockError),
        (airlock.AirlockError, Exception),
    ],
    ids=lambda error: error.__name__,
)
def test_errors_can_be_caught_by_kind(error, kind):
    assert issubclass(error, kind)


def enqueue_outside_any_scope():
    airlock.enqueue(send_email)


def enqueue_in_a_closed_scope():
    with airlock.scope():
        still_inside = copy_context()
    still_inside.run(airlock.enqueue, send_email)


def enqueue_in_a_policy():
    class Meddles(airlock.AllowAll):
        def on_enqueue(self, intent):
            airlock.enqueue(send_email)

    with airlock.scope(Meddles()):
        airlock.enqueue(print)


def open_a_scope_in_a_policy():
    class Meddles(airlock.AllowAll):
        def allows(self, intent):
            airlock.scope().enter()

    with airlock.scope(Meddles()):
        airlock.enqueue(print)


def enqueue_what_cannot_be_called():
    with airlock.scope():
        airlock.enqueue(["send_email"])


def enqueue_a_name_without_celery():
    with airlock.scope():
        airlock.enqueue("shop.tasks.send_email")


def enqueue_with_options_that_are_no_mapping():
    with airlock.scope():
        airlock.enqueue(send_email, _dispatch_options=60)


def enter_twice():
    with airlock.scope() as scope, scope:
        pass


def leave_without_entering():
    airlock.scope().exit()


def flush_too_early():
    with airlock.scope() as scope:
        scope.flush()


def discard_before_entering():
    airlock.scope().discard()


def flush_twice():
    with airlock.scope() as scope:
        pass
    scope.flush()


def end_after_the_enclosing_scope():
    def take_part():
        outer, inner = airlock.scope(), airlock.scope()
        outer.enter()
        inner.enter()
        airlock.enqueue(send_email)
        outer.exit()
        inner.exit()
        inner.flush()

    copy_context().run(take_part)


def let_something_else_through():
    class Forgetful(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            pass

    with airlock.scope(_cls=Forgetful), airlock.scope():
        airlock.enqueue(send_email)


def use_a_local_policy_in_itself():
    policy = airlock.policy(airlock.DropAll())
    with policy, policy:
        pass


def violate_assert_no_effects():
    with airlock.scope(airlock.AssertNoEffects()):
        airlock.enqueue(send_email)


def violate_block_tasks():
    with airlock.scope(airlock.BlockTasks({"send_email"}, raise_on_enqueue=True)):
        airlock.enqueue(send_email)


def give_a_policy_class():
    airlock.scope(airlock.DropAll)


def give_no_policy():
    airlock.policy("drop all")


def give_no_executor():
    airlock.scope(executor="celery")


def give_names_as_one_string():
    airlock.BlockTasks("send_email")


def decorate_no_function():
    airlock.scoped()(42)


def dispatch_a_coroutine_function():
    async def send_async():
        pass

    with airlock.scope():
        airlock.enqueue(send_async)


@pytest.mark.parametrize(
    ("mistake", "error", "content"),
    [
        (
            enqueue_outside_any_scope,
            airlock.NoScopeError,
            [SEND_EMAIL, "outside of any scope", "with airlock.scope():"],
        ),
        (enqueue_in_a_closed_scope, airlock.ScopeStateError, [SEND_EMAIL, "has ended", "a scope of its own"]),
        (
            enqueue_in_a_policy,
            airlock.PolicyEnqueueError,
            [SEND_EMAIL, "inside a policy", "where the judged intent was"],
        ),
        (open_a_scope_in_a_policy, airlock.PolicyEnqueueError, ["A scope", "inside a policy"]),
        (enqueue_what_cannot_be_called, TypeError, ["['send_email']", "list", "not called yet"]),
        (enqueue_a_name_without_celery, TypeError, ["'shop.tasks.send_email'", "Celery executor"]),
        (enqueue_with_options_that_are_no_mapping, TypeError, ["Dispatch options", "mapping", "60"]),
        (enter_twice, airlock.ScopeStateError, ["<Scope active, 0 intents>", "make another one"]),
        (leave_without_entering, airlock.ScopeStateError, ["<Scope not entered, 0 intents>", "Enter a scope once"]),
        (flush_too_early, airlock.ScopeStateError, ["<Scope active, 0 intents>", "enter() and exit() first"]),
        (discard_before_entering, airlock.ScopeStateError, ["not entered", "enter() and exit() first"]),
        (flush_twice, airlock.ScopeStateError, ["<Scope flushed, 0 intents>", "once"]),
        (
            end_after_the_enclosing_scope,
            airlock.ScopeStateError,
            ["<Scope flushed, 1 intents>", "end nested scopes first", "undispatched_intents"],
        ),
        (let_something_else_through, airlock.UsageError, ["Forgetful.before_descendant_flushes", "return a list of those"]),
        (use_a_local_policy_in_itself, airlock.UsageError, ["DropAll()", "make another one"]),
        (violate_assert_no_effects, airlock.PolicyViolation, ["send_email", "AssertNoEffects()", "Move the call out"]),
        (
            violate_block_tasks,
            airlock.PolicyViolation,
            ["send_email", "BlockTasks(['send_email']", "Enqueue it outside of this policy"],
        ),
        (give_a_policy_class, TypeError, ["DropAll is a class", "write DropAll(...)"]),
        (give_no_policy, TypeError, ["'drop all'", "on_enqueue(intent)", "allows(intent)"]),
        (give_no_executor, TypeError, ["'celery'", "a callable that takes one intent"]),
        (give_names_as_one_string, TypeError, ["BlockTasks", "write ['send_email']"]),
        (decorate_no_function, TypeError, ["scoped()", "functions", "42"]),
        (dispatch_a_coroutine_function, airlock.DispatchError, ["send_async", "Enqueue a plain function"]),
    ],
    ids=lambda it: it.__name__ if callable(it) and not isinstance(it, type) else "",
)
def test_the_message_says_what_happened_and_what_to_do_next(mistake, error, content):
    with pytest.raises(error) as raised:
        mistake()

    message = str(raised.value)
    assert [part for part in content if part not in message] == []
    assert "{" not in message, "something was not filled in"
