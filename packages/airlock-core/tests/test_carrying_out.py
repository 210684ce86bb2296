"""An effect takes place in the context it was asked for in, and in no scope."""

from contextlib import contextmanager
from contextvars import ContextVar

import pytest

import airlock
from airlock.ext import dispatch_one, is_judging, register_carrier, run_in_context

request_id = ContextVar("request_id", default=None)


@contextmanager
def request(number):
    token = request_id.set(number)
    yield
    request_id.reset(token)


class Batches:
    """Carries out several at a time, each in the context it was enqueued in."""

    def __call__(self, intent):
        intent.task(*intent.args)

    def dispatch_many(self, intents):
        for intent in intents:
            run_in_context(intent, self, intent)
        return [None] * len(intents)


class Carrier:
    """Brings along the tenant of a connection that all share, and notes what happens to it."""

    def __init__(self, notes, swallows=False):
        self.tenant = None
        self.notes = notes
        self.swallows = swallows

    def __call__(self):
        return self.as_tenant(self.tenant)

    @contextmanager
    def as_tenant(self, tenant):
        before, self.tenant = self.tenant, tenant
        self.notes.append(f"enters {tenant}")
        try:
            yield
        except ValueError as error:
            self.notes.append(f"sees {error}")
            if not self.swallows:
                raise
        finally:
            self.notes.append(f"leaves {tenant}")
            self.tenant = before


both_executors = pytest.mark.parametrize("executor", [None, Batches()], ids=["one by one", "many"])


@both_executors
def test_context_variables_are_those_of_the_enqueue_call(ran, executor):
    with airlock.scope(executor=executor):
        for number in (1, 2):
            with request(number):
                airlock.enqueue(lambda: ran.append(request_id.get()))
        airlock.enqueue(lambda: ran.append(request_id.get()))
    assert ran == [1, 2, None]


def test_what_an_effect_sets_is_seen_by_nobody_else(ran):
    def effect():
        ran.append(request_id.get())
        request_id.set("of an effect")

    with airlock.scope():
        airlock.enqueue(effect)
        airlock.enqueue(effect)
    assert ran == [None, None]
    assert request_id.get() is None


def test_captured_intents_keep_the_context_of_their_call(ran):
    with airlock.scope(), request(1), airlock.scope():
        airlock.enqueue(lambda: ran.append(request_id.get()))
    assert ran == [1]


@both_executors
def test_effects_are_carried_out_in_no_scope(ran, executor):
    def effect():
        ran.append(airlock.get_current_scope())
        with pytest.raises(airlock.NoScopeError):
            airlock.enqueue(ran.append, "lost")
        with airlock.scope():
            airlock.enqueue(ran.append, "follow-up")
        ran.append("end")

    class LetsAllThrough(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            return intents

    with airlock.scope(_cls=LetsAllThrough) as outer:
        with airlock.scope(executor=executor), airlock.policy(airlock.BlockTasks({"append"})):
            airlock.enqueue(effect)
            airlock.enqueue(int)
        assert airlock.get_current_scope() is outer
    assert ran == [None, "follow-up", "end"]


def test_dispatch_many_itself_is_called_in_no_scope(ran):
    class Looks(Batches):
        def dispatch_many(self, intents):
            ran.append(airlock.get_current_scope())
            return super().dispatch_many(intents)

    class LetsAllThrough(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            return intents

    with airlock.scope(_cls=LetsAllThrough), airlock.scope(executor=Looks()):
        airlock.enqueue(int)
        airlock.enqueue(int)
    assert ran == [None]


def test_the_captured_context_is_used_once(ran):
    with airlock.scope(executor=ran.append), request(1):
        intent = airlock.enqueue(int)
    with airlock.scope(), request(2):
        assert run_in_context(intent, request_id.get) == 2
        assert run_in_context(intent, airlock.get_current_scope) is None


def test_an_intent_made_by_hand_runs_where_it_is_dispatched(ran):
    intent = airlock.Intent(divmod, (7, 2))
    with airlock.scope(), request(1):
        assert dispatch_one(lambda intent: ran.append((intent, request_id.get())), intent) is None
        assert isinstance(dispatch_one(lambda intent: intent.task(1, 0), intent), ZeroDivisionError)
    assert ran == [(intent, 1)]


def test_code_can_tell_whether_a_policy_runs_it(ran):
    class Looks(airlock.AllowAll):
        def allows(self, intent):
            ran.append(is_judging())
            return True

    with airlock.scope(Looks()):
        airlock.enqueue(lambda: ran.append(is_judging()))
    assert ran == [True, False]


# Carriers


@both_executors
def test_carriers_bring_along_what_is_no_context_variable(ran, executor):
    carrier = Carrier([])
    airlock.configure(carriers=[carrier])
    with airlock.scope(executor=executor):
        for carrier.tenant in ("a", "b"):
            airlock.enqueue(lambda: ran.append(carrier.tenant))
        carrier.tenant = None
        assert carrier.notes == []
    assert ran == ["a", "b"]
    assert carrier.notes == ["enters a", "leaves a", "enters b", "leaves b"]


def test_carriers_are_entered_in_order_and_see_what_fails():
    notes = []
    first, second = Carrier(notes), Carrier(notes)
    airlock.configure(carriers=[first, second])
    first.tenant, second.tenant = "first", "second"
    with pytest.raises(ValueError, match="invalid literal"), airlock.scope():
        airlock.enqueue(int, "x")
    what = "sees invalid literal for int() with base 10: 'x'"
    assert notes == ["enters first", "enters second", what, "leaves second", what, "leaves first"]


def test_a_carrier_that_swallows_a_failure_hides_nothing():
    airlock.configure(carriers=[Carrier([], swallows=True)])
    with pytest.raises(airlock.UsageError, match="swallowed"), airlock.scope() as scope:
        airlock.enqueue(int, "x")
    assert scope.undispatched_intents == scope.intents


def test_what_a_carrier_fails_after_may_have_gone_out(ran):
    class FailsAtItsEnd:
        def __enter__(self):
            pass

        def __exit__(self, *error):
            raise LookupError("no tenant")

    airlock.configure(carriers=[FailsAtItsEnd])
    with pytest.raises(LookupError, match="no tenant"), airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)
    assert ran == [1]
    assert scope.unknown_intents == scope.undispatched_intents == scope.intents


def test_what_failed_is_dispatched_again_in_its_context(ran):
    carrier = Carrier([])
    airlock.configure(carriers=[carrier])
    is_down = True

    def effect():
        if is_down:
            raise ConnectionError
        ran.append((request_id.get(), carrier.tenant))

    with pytest.raises(ConnectionError), airlock.scope() as scope, request(1):
        carrier.tenant = "a"
        airlock.enqueue(effect)
        carrier.tenant = None
    is_down = False
    scope.dispatch_all(scope.undispatched_intents)
    assert ran == [(1, "a")]
    assert scope.dispatched_intents == scope.intents


def test_a_carrier_that_fails_at_the_call_leaves_no_intent(ran):
    def broken():
        raise LookupError("no tenant")

    airlock.configure(carriers=[broken])
    with airlock.scope() as scope:
        with pytest.raises(LookupError):
            airlock.enqueue(ran.append, 1)
        assert scope.intents == []


def test_carriers_are_those_of_the_scope_or_the_one_around_detached(ran):
    carrier = Carrier(ran)
    with airlock.scope() as scope:
        scope.carriers = [carrier]
        with airlock.detached():
            airlock.enqueue(int)
        with airlock.scope():
            airlock.enqueue(int)
    assert ran == ["enters None", "leaves None"]


#: What the carrier of an integration returns. Nothing, but for the test that looks at it.
brought = ContextVar("brought", default=None)
register_carrier(brought.get)


def test_carriers_of_integrations_come_before_those_of_the_application():
    notes = []
    airlock.configure(carriers=[Carrier(notes)])
    token = brought.set(Carrier(notes).as_tenant("of the integration"))
    with airlock.scope(), airlock.detached():
        airlock.enqueue(int)
    brought.reset(token)
    assert notes == ["enters of the integration", "enters None", "leaves None", "leaves of the integration"]


def test_carrier_with_nothing_to_bring_along_returns_none(ran):
    airlock.configure(carriers=[lambda: None])
    with airlock.scope():
        airlock.enqueue(ran.append, 1)
    assert ran == [1]


def test_what_is_no_carrier_is_not_registered():
    with pytest.raises(TypeError, match="42 is not callable"):
        register_carrier(42)


@pytest.mark.parametrize("nonsense", [[42], 42], ids=repr)
def test_what_is_no_carrier_is_refused(nonsense):
    with pytest.raises(TypeError):
        airlock.configure(carriers=nonsense)
    assert airlock.get_configuration().carriers == ()
