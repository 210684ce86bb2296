"""That each error says what happened, to which task, and what to do next; and what `import airlock` offers."""

import inspect
from contextvars import copy_context

import pytest

import airlock
import airlock.ext


def send_email():
    pass


async def send_async():
    pass


SEND_EMAIL = f"{__name__}.send_email"


def inside(scope, *actions):
    """Do something in a scope, in a context of its own. What the first action returns is given to the second."""

    def run():
        with scope:
            for action in actions:
                action()

    return lambda: copy_context().run(run)


def policy(**methods):
    return type("Meddles", (airlock.AllowAll,), methods)()


def enqueue():
    airlock.enqueue(send_email)


def enqueue_late():
    with airlock.scope():
        still_inside = copy_context()
    still_inside.run(enqueue)


def flush_twice():
    with airlock.scope() as scope:
        pass
    scope.flush()


def end_after_the_enclosing_scope():
    outer, inner, context = airlock.scope(), airlock.scope(), copy_context()
    for step in (outer.enter, inner.enter, enqueue):
        context.run(step)
    for step in (outer.exit, inner.exit, inner.flush):
        step()


class Forgetful(airlock.Scope):
    def before_descendant_flushes(self, exiting_scope, intents):
        pass


def use_a_local_policy_in_itself():
    local = airlock.policy(airlock.DropAll())
    with local, local:
        pass


def flush_too_early():
    with airlock.scope() as scope:
        scope.flush()


def enter_twice():
    with airlock.scope() as scope, scope:
        pass


VIOLATED = airlock.BlockTasks({"send_email"}, raise_on_enqueue=True)
USAGE, STATE, VIOLATION = airlock.UsageError, airlock.ScopeStateError, airlock.PolicyViolation


@pytest.mark.parametrize(
    ("mistake", "error", "content"),
    [
        (enqueue, airlock.NoScopeError, [SEND_EMAIL, "outside of any scope", "with airlock.scope():"]),
        (enqueue_late, STATE, [SEND_EMAIL, "has ended", "a scope of its own"]),
        (
            inside(airlock.scope(policy(on_enqueue=lambda self, intent: enqueue())), lambda: airlock.enqueue(print)),
            airlock.PolicyEnqueueError,
            [SEND_EMAIL, "inside a policy", "where the judged intent was"],
        ),
        (
            inside(airlock.scope(policy(allows=lambda self, intent: airlock.scope().enter())), enqueue),
            airlock.PolicyEnqueueError,
            ["A scope", "inside a policy"],
        ),
        (inside(airlock.scope(), lambda: airlock.enqueue(["x"])), TypeError, ["['x']", "list", "not called yet"]),
        (inside(airlock.scope(), lambda: airlock.enqueue("a.b")), TypeError, ["'a.b'", "Celery executor"]),
        (
            inside(airlock.scope(), lambda: airlock.enqueue(send_email, _dispatch_options=60)),
            TypeError,
            ["Dispatch options", "mapping", "60"],
        ),
        (enter_twice, STATE, ["<Scope active, 0 intents>", "make another one"]),
        (lambda: airlock.scope().exit(), STATE, ["<Scope not entered, 0 intents>", "Enter a scope once"]),
        (flush_too_early, STATE, ["<Scope active, 0 intents>", "enter() and exit() first"]),
        (lambda: airlock.scope().discard(), STATE, ["not entered", "enter() and exit() first"]),
        (flush_twice, STATE, ["<Scope flushed, 0 intents>", "once"]),
        (end_after_the_enclosing_scope, STATE, ["<Scope flushed, 1 intents>", "end nested scopes first"]),
        (
            inside(Forgetful(), inside(airlock.scope(), enqueue)),
            USAGE,
            ["Forgetful.before_descendant_flushes", "return a list of those"],
        ),
        (use_a_local_policy_in_itself, USAGE, ["DropAll()", "make another one"]),
        (
            inside(airlock.scope(airlock.AssertNoEffects()), enqueue),
            VIOLATION,
            ["send_email", "AssertNoEffects()", "Move the call out"],
        ),
        (
            inside(airlock.scope(VIOLATED), enqueue),
            VIOLATION,
            ["send_email", "BlockTasks(['send_email']", "Enqueue it outside of this policy"],
        ),
        (lambda: airlock.scope(airlock.DropAll), TypeError, ["DropAll is a class", "write DropAll(...)"]),
        (lambda: airlock.policy("drop all"), TypeError, ["'drop all'", "on_enqueue(intent)", "allows(intent)"]),
        (lambda: airlock.scope(executor="celery"), TypeError, ["'celery'", "a callable that takes one intent"]),
        (lambda: airlock.BlockTasks("send_email"), TypeError, ["BlockTasks", "write ['send_email']"]),
        (lambda: airlock.AllowTasks("send_email"), TypeError, ["AllowTasks", "write ['send_email']"]),
        (lambda: airlock.scoped()(42), TypeError, ["scoped()", "functions", "42"]),
        (
            inside(airlock.scope(), lambda: airlock.enqueue(send_async)),
            airlock.DispatchError,
            ["send_async", "Enqueue a plain function"],
        ),
    ],
    ids=lambda it: it[0] if isinstance(it, list) else "",
)
def test_the_message_says_what_happened_and_what_to_do_next(mistake, error, content):
    with pytest.raises(error) as raised:
        mistake()
    message = str(raised.value)
    assert [part for part in content if part not in message] == []
    assert "{" not in message, "something was not filled in"


@pytest.mark.parametrize(
    ("kind", "errors"),
    [
        (airlock.AirlockError, {USAGE, STATE, VIOLATION, airlock.DispatchError}),
        (airlock.UsageError, {airlock.NoScopeError, airlock.PolicyEnqueueError}),
    ],
    ids=lambda it: getattr(it, "__name__", ""),
)
def test_errors_can_be_caught_by_kind(kind, errors):
    assert all(issubclass(error, kind) for error in errors)


PUBLIC = """
configure detached enqueue get_configuration get_current_scope policy reset_configuration scope scoped
Configuration Executor Intent OutcomeUnknown Policy Scope
AllowAll AllowTasks AssertNoEffects BlockTasks DropAll LogOnFlush
AirlockError DispatchError NoScopeError PolicyEnqueueError PolicyViolation ScopeStateError UsageError
"""
FOR_INTEGRATIONS = """
Fate FateSource SuspendedContext Transaction dispatch_one is_judging outside register_carrier register_fates
register_interruption fates_of open_fates refresh_fates replace_executors run_in_context set_defaults suspend
when_no_scope Event change_context is_heard label_of shown subscribe tell Carrier Kind Listener Outcome State
"""


def test_all_public_names_are_exported_and_no_others():
    assert sorted(airlock.__all__) == sorted(PUBLIC.split())
    assert sorted(airlock.ext.__all__) == sorted(FOR_INTEGRATIONS.split())


@pytest.mark.parametrize("name", [*PUBLIC.split(), *FOR_INTEGRATIONS.split()[:-5]])
def test_every_public_name_and_what_it_offers_is_documented(name):
    public = getattr(airlock, name, None) or getattr(airlock.ext, name)
    offers = [
        getattr(public, attribute)
        for attribute, value in vars(public).items()
        if not attribute.startswith("_") and (callable(value) or isinstance(value, property))
    ]
    assert [it for it in (public, *offers) if not inspect.getdoc(it)] == []
