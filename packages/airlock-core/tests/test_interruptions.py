"""An interruption, such as Ctrl-C, may come between any two lines of a flush, and the account is exact all the same."""

import linecache
import sys
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import count

import pytest

import airlock
from airlock.ext import dispatch_one, is_judging, register_interruption, run_in_context, subscribe

request_id = ContextVar("request_id", default=None)


class TimeLimitError(Exception):
    """Raised by a signal handler. Nothing else may raise it, for it stays registered."""


class HardTimeLimitError(TimeLimitError):
    pass


register_interruption(TimeLimitError)


class Logging(airlock.Scope):
    dispatch_errors = "log"


class Raising(airlock.Scope):
    dispatch_errors = "raise"


class Strike:
    """Raises an error at the nth line that is run in Airlock, as a signal would between two lines."""

    def __init__(self, nth, error):
        self._left = nth
        self._error = error
        self._latest = 0
        self.struck = False

    def __call__(self, frame, event, arg):
        if not frame.f_globals.get("__name__", "").startswith("airlock"):
            return None
        # Signals come between two steps of the interpreter. A `try:` is none, nor is going back from the last line of a
        # block to its `with`, whose end CPython runs before it looks for signals.
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        is_end_of_with = line.startswith("with ") and frame.f_lineno < self._latest
        is_step = event == "line" and line != "try:" and not is_end_of_with
        self._latest = frame.f_lineno if event == "line" else 0
        if is_step and not self.struck:
            self._left -= 1
            if self._left < 0:
                self.struck = True
                raise self._error
        return self

    @contextmanager
    def active(self):
        tracing = sys.gettrace()
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(tracing)


class OneByOne:
    """Appends the request id to the effects. Fails on some, before that."""

    def __init__(self, effects, failing=()):
        self.effects = effects
        self.failing = failing

    def __call__(self, intent):
        if intent.args[0] in self.failing:
            raise ValueError("broken")
        self.effects.append(request_id.get())


class TwoAtATime(OneByOne):
    def dispatch_many(self, intents):
        outcomes = []
        for intent in intents[:2]:
            try:
                run_in_context(intent, self, intent)
            except ValueError as error:
                outcomes.append(error)
            else:
                outcomes.append(None)
        return outcomes


@contextmanager
def as_current(tenants, number):
    tenants.append(number)
    try:
        yield
    finally:
        tenants.pop()


@pytest.fixture
def left_with_requests():
    """A function that returns a scope with an intent for each number, enqueued in a request of that number."""

    def left_with_requests(*numbers, **arguments):
        scope = airlock.scope(**arguments)
        scope.enter()
        for number in numbers:
            token = request_id.set(number)
            airlock.enqueue(abs, number)
            request_id.reset(token)
        scope.exit()
        return scope

    return left_with_requests


def numbers(intents):
    return [intent.args[0] for intent in intents]


interruptions = pytest.mark.parametrize("error", [KeyboardInterrupt, TimeLimitError, HardTimeLimitError])
scopes = pytest.mark.parametrize("scope_cls", [airlock.Scope, Logging, Raising])
carriers = pytest.mark.parametrize("carried", [False, True], ids=["no carrier", "a carrier"])


@pytest.mark.parametrize(
    ("make_executor", "amount"),
    [(lambda effects: effects.append, 1), (OneByOne, 3), (TwoAtATime, 2), (TwoAtATime, 5)],
    ids=["one", "one by one", "two", "two at a time"],
)
@carriers
@scopes
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeLimitError])
def test_an_interruption_at_any_line_leaves_an_exact_account(
    left_with_requests, error, scope_cls, carried, make_executor, amount
):
    if carried:
        tenants = []
        airlock.configure(carriers=[lambda: as_current(tenants, request_id.get())])

    def happened():
        return [effect.args[0] if isinstance(effect, airlock.Intent) else effect for effect in effects]

    everything = list(range(amount))
    for nth in count():
        effects = []
        scope = left_with_requests(*everything, _cls=scope_cls, executor=make_executor(effects))
        strike = Strike(nth, error)
        propagated = False
        with strike.active():
            try:
                scope.flush()
            except error:
                propagated = True
        assert propagated == strike.struck
        dispatched, unknown = set(numbers(scope.dispatched_intents)), set(numbers(scope.unknown_intents))
        assert dispatched <= set(happened()) <= dispatched | unknown, f"struck at line {nth}"
        assert not dispatched & unknown
        if make_executor is not TwoAtATime:
            assert dispatched == set(happened()), f"struck at line {nth}"
        assert set(numbers(scope.undispatched_intents)) == {*everything} - dispatched

        again = [intent for intent in scope.undispatched_intents if intent.args[0] not in happened()]
        scope.dispatch_all(again)
        assert happened() == everything, f"struck at line {nth}"
        assert {*numbers(scope.dispatched_intents)} == dispatched | {*numbers(again)}
        if not strike.struck:
            break
    assert nth > 10


@pytest.mark.parametrize("make_executor", [OneByOne, TwoAtATime], ids=["one by one", "two at a time"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeLimitError])
def test_an_interruption_among_failures_leaves_an_exact_account(left_with_requests, error, make_executor):
    for nth in count():
        effects = []
        scope = left_with_requests(0, 1, 2, 3, _cls=Logging, executor=make_executor(effects, failing={0, 3}))
        strike = Strike(nth, error)
        propagated = False
        with strike.active():
            try:
                scope.flush()
            except error:
                propagated = True
        assert propagated == strike.struck
        dispatched, unknown = set(numbers(scope.dispatched_intents)), set(numbers(scope.unknown_intents))
        assert dispatched <= set(effects) <= dispatched | unknown, f"struck at line {nth}"
        if not strike.struck:
            break
    assert unknown == set()


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeLimitError])
def test_an_interruption_at_any_line_hands_over_all_or_nothing(error):
    class LettingOneThrough(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            return [intent for intent in intents if intent.args[0] == 1]

    for nth in count():
        effects = []
        with airlock.scope(executor=effects.append) as outermost, LettingOneThrough() as parent:
            nested = airlock.scope()
            nested.enter()
            airlock.enqueue(abs, 1)
            airlock.enqueue(abs, 2)
            strike = Strike(nth, error)
            with suppress(error), strike.active():
                nested.exit()
                nested.flush()
            if nested.is_active:
                nested.exit()
            assert airlock.get_current_scope() is parent, f"struck at line {nth}"
            owed = numbers(nested.undispatched_intents)
            captured = numbers(parent.captured_intents), numbers(outermost.captured_intents)
            assert (owed, captured) in [([1, 2], ([], [])), ([], ([2], [1]))], f"struck at line {nth}"
        if not strike.struck:
            break
    assert owed == []


# One that comes while the executor is at work


@interruptions
@scopes
def test_an_interrupted_executor_ends_any_flush(left_with, caplog, error, scope_cls):
    def interrupted(intent):
        given.append(intent)
        if intent.args[0] == 2:
            raise error

    given = []
    scope = left_with(1, 2, 3, _cls=scope_cls, executor=interrupted)
    with pytest.raises(error) as raised:
        scope.flush()
    assert numbers(given) == [1, 2]
    assert numbers(scope.dispatched_intents) == [1]
    assert numbers(scope.undispatched_intents) == [2, 3]
    assert numbers(scope.unknown_intents) == [2]
    which, unknown = raised.value.__notes__
    assert "task_2" in which
    assert "unknown_intents" in unknown
    told = ["nobody can tell" in message for message in caplog.messages]
    assert told == ([] if scope_cls is airlock.Scope else [True])


@interruptions
@scopes
def test_an_interrupted_batch_ends_any_flush(left_with, error, scope_cls):
    class Interrupted(TwoAtATime):
        def dispatch_many(self, intents):
            if self.effects:
                raise error
            return super().dispatch_many(intents)

    effects = []
    scope = left_with(1, 2, 3, 4, 5, _cls=scope_cls, executor=Interrupted(effects))
    with pytest.raises(error):
        scope.flush()
    assert len(effects) == 2
    assert numbers(scope.dispatched_intents) == [1, 2]
    assert numbers(scope.unknown_intents) == numbers(scope.undispatched_intents) == [3, 4, 5]


@interruptions
@scopes
def test_an_interruption_that_a_batch_returns_ends_any_flush(left_with, error, scope_cls):
    class Interrupted(OneByOne):
        def dispatch_many(self, intents):
            return [None, error()]

    effects = []
    scope = left_with(1, 2, 3, 4, _cls=scope_cls, executor=Interrupted(effects))
    with pytest.raises(error):
        scope.flush()
    assert effects == []
    assert numbers(scope.undispatched_intents) == [2, 3, 4]
    assert scope.unknown_intents == [], "a batch that returns it says that the intent was not dispatched"


@interruptions
def test_an_interruption_is_handled_rather_than_earlier_failures(left_with, error):
    def execute(intent):
        raise ValueError("broken") if intent.args[0] == 1 else error

    scope = left_with(1, 2, 3, _cls=Raising, executor=execute)
    with pytest.raises(error):
        scope.flush()
    assert numbers(scope.unknown_intents) == [2]
    assert numbers(scope.undispatched_intents) == [1, 2, 3]


@interruptions
def test_nothing_is_unknown_before_the_executor_is_called(left_with, error):
    class InterruptedBefore(OneByOne):
        @property
        def dispatch_many(self):
            raise error

    effects = []
    scope = left_with(1, 2, executor=InterruptedBefore(effects))
    with pytest.raises(error):
        scope.flush()
    assert (effects, scope.unknown_intents) == ([], [])
    assert numbers(scope.undispatched_intents) == [1, 2]


@interruptions
def test_an_interrupted_dispatch_of_one_has_an_unknown_outcome(error):
    raised = error()

    def interrupted(intent):
        raise raised

    outcome = dispatch_one(interrupted, airlock.Intent(abs, (1,)))
    assert isinstance(outcome, airlock.OutcomeUnknown)
    assert outcome.error is raised


# Dispatching it again


class Interrupted(OneByOne):
    """Is interrupted the first time, right after the effect."""

    def __call__(self, intent):
        super().__call__(intent)
        if len(self.effects) == 1:
            raise TimeLimitError


class InterruptedBatch(Interrupted):
    def dispatch_many(self, intents):
        for intent in intents:
            run_in_context(intent, self, intent)
        return [None] * len(intents)


executors = pytest.mark.parametrize("executor_cls", [Interrupted, InterruptedBatch], ids=["one by one", "many"])


@executors
@carriers
def test_an_interrupted_intent_is_dispatched_again_in_its_context(left_with_requests, executor_cls, carried):
    tenants, entered = [], []
    if carried:
        airlock.configure(carriers=[lambda: as_current(tenants, request_id.get())])

    class Looking(executor_cls):
        def __call__(self, intent):
            entered.extend(tenants)
            super().__call__(intent)

    effects = []
    scope = left_with_requests(1, 2, executor=Looking(effects))
    with pytest.raises(TimeLimitError):
        scope.flush()
    assert 1 in numbers(scope.unknown_intents)
    scope.dispatch_all(scope.undispatched_intents)
    assert effects == [1, 1, 2]
    assert entered == ([1, 1, 2] if carried else [])


@executors
def test_what_was_dispatched_at_last_is_no_longer_unknown(left_with_requests, executor_cls):
    scope = left_with_requests(1, 2, executor=executor_cls([]))
    with pytest.raises(TimeLimitError):
        scope.flush()
    scope.dispatch_all(scope.undispatched_intents)
    assert numbers(scope.dispatched_intents) == [1, 2]
    assert scope.unknown_intents == scope.undispatched_intents == []


def test_what_fails_after_it_was_interrupted_stays_unknown(left_with_requests):
    executor = Interrupted([])
    scope = left_with_requests(1, executor=executor)
    with pytest.raises(TimeLimitError):
        scope.flush()
    executor.failing = {1}
    with pytest.raises(ValueError, match="broken"):
        scope.dispatch_all(scope.undispatched_intents)
    assert numbers(scope.unknown_intents) == [1], "the first time may have had its effect"


def test_an_intent_of_an_interrupted_scope_may_go_out_by_another(left_with_requests):
    effects = []
    interrupted = left_with_requests(1, executor=Interrupted(effects))
    with pytest.raises(TimeLimitError):
        interrupted.flush()
    other = airlock.scope(executor=OneByOne(effects))
    other.dispatch_all(interrupted.undispatched_intents)
    assert effects == [1, 1]
    assert numbers(other.dispatched_intents) == [1]


# One that comes while somebody is told


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeLimitError])
def test_an_interruption_at_any_line_leaves_the_code_where_it_was(error):
    unsubscribe = subscribe(lambda events: None)
    try:
        for nth in count():
            strike = Strike(nth, error)
            with airlock.scope(airlock.DropAll()) as scope:
                with suppress(error), strike.active():
                    airlock.enqueue(abs, 1)
                assert not is_judging(), f"struck at line {nth}"
                assert airlock.get_current_scope() is scope, f"struck at line {nth}"
            if not strike.struck:
                break
    finally:
        unsubscribe()
    assert nth > 10


@interruptions
def test_an_interrupted_listener_ends_the_call(error):
    def interrupted(events):
        raise error

    unsubscribe = subscribe(interrupted)
    try:
        with airlock.scope(executor=print) as scope:
            with pytest.raises(error):
                airlock.enqueue(abs, 1)
            unsubscribe()
        assert numbers(scope.dispatched_intents) == [1]
    finally:
        unsubscribe()
