"""An interruption, such as a soft time limit, may come between any two lines of a run: no effect is lost or doubled."""

import itertools
import linecache
import sys
from contextvars import copy_context

import pytest
from celery.exceptions import SoftTimeLimitExceeded

import airlock
from airlock.integrations.celery import AirlockTask


class Strike:
    """Raises an error at the nth line that is run in Airlock, as a signal would between two lines."""

    def __init__(self, nth, error):
        self._left = nth
        self._error = error
        self._latest = 0
        #: Which line it was.
        self.line = ""

    def __call__(self, frame, event, arg):
        if not frame.f_globals.get("__name__", "").startswith("airlock"):
            return None
        # Signals come between two steps of the interpreter. A `try:` is none, nor is going back from the last line of a
        # block to its `with`, whose end CPython runs before it looks for signals.
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        is_end_of_with = line.startswith("with ") and frame.f_lineno < self._latest
        is_step = event == "line" and line != "try:" and not is_end_of_with
        self._latest = frame.f_lineno if event == "line" else 0
        if is_step and not self.line:
            self._left -= 1
            if self._left < 0:
                self.line = f"{frame.f_code.co_name}: {line}"
                raise self._error
        return self

    def outcome_of(self, task):
        """What a run has returned, or the error."""
        tracing = sys.gettrace()
        sys.settrace(self)
        try:
            return task.run()
        except BaseException as error:
            return error
        finally:
            sys.settrace(tracing)


class Logging(airlock.Scope):
    """As Django's."""

    dispatch_errors = "log"


@pytest.mark.parametrize("error", [SoftTimeLimitExceeded, KeyboardInterrupt])
@pytest.mark.parametrize("scope_cls", [airlock.Scope, Logging])
@pytest.mark.parametrize("where", ["alone", "in another run", "in what outlived a scope of it"])
@pytest.mark.parametrize("amount", [1, 3])
def test_an_interruption_at_any_line_fails_a_run_or_is_too_late(app, notify, notified, amount, where, scope_cls, error):
    airlock.configure(scope_cls=scope_cls)
    effects = list(range(amount))

    @app.task(base=AirlockTask)
    def order():
        for number in effects:
            airlock.enqueue(notify, number)
        return "done"

    @app.task(base=AirlockTask)
    def outer(strike):
        here, inside = airlock.get_current_scope(), copy_context()
        if where == "in what outlived a scope of it":
            with airlock.scope() as here:
                inside = copy_context()
        outcome = inside.run(strike.outcome_of, order)
        assert inside.run(airlock.get_current_scope) is here, strike.line
        return outcome

    outcomes = []
    for nth in itertools.count():
        strike = Strike(nth, error)
        outcomes.append(strike.outcome_of(order) if where == "alone" else outer.run(strike))
        assert outcomes[-1] == "done" or isinstance(outcomes[-1], error), strike.line
        assert notified() == (effects if outcomes[-1] == "done" else []), strike.line
        assert airlock.get_current_scope() is None, strike.line
        assert (order.run(), notified()) == ("done", effects), f"after {strike.line}"
        if not strike.line:
            break
    assert outcomes.count("done") > 1, "one came too late"


@pytest.mark.parametrize("error", [SoftTimeLimitExceeded, KeyboardInterrupt])
def test_an_interruption_at_any_line_of_a_failing_run_leaves_nothing_behind(app, notify, notified, error):
    @app.task(base=AirlockTask)
    def order(fails=True):
        airlock.enqueue(notify, "failed" if fails else "next")
        if fails:
            raise LookupError("no")

    for nth in itertools.count():
        strike = Strike(nth, error)
        assert isinstance(strike.outcome_of(order), (error, LookupError))
        assert airlock.get_current_scope() is None, strike.line
        order.run(False)
        assert notified() == ["next"], strike.line
        if not strike.line:
            break


def test_an_interrupted_serializer_interrupts_the_run(app, notify, notified):
    # Kombu turns whatever a serializer raises into an `EncodeError`.
    class Slow(str):
        def __reduce__(self):
            raise SoftTimeLimitExceeded

    airlock.configure(scope_cls=Logging)
    notify.serializer = "pickle"

    @app.task(base=AirlockTask)
    def order():
        airlock.enqueue(notify, Slow())

    with pytest.raises(SoftTimeLimitExceeded):
        order.run()
    assert notified() == []
