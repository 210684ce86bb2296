"""A task with a scope around each run."""

import contextlib
import functools
import itertools
import linecache
import sys
import threading
from typing import Any, NamedTuple

import pytest
from celery import Task, chord, group, shared_task, uuid
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from kombu.exceptions import EncodeError

import airlock
from airlock.integrations.celery import AirlockTask
from airlock.integrations.executors.celery import celery_executor


class Outcome(NamedTuple):
    """What a run returned or raised."""

    value: Any = None
    error: BaseException | None = None


class Run:
    """Runs a task, in one of the ways there are."""

    def __init__(self, request):
        self.way = request.param
        #: That of the latest run, if the way gives it one.
        self.task_id = None
        # Only a worker is to be prepared as a worker.
        self._work_off = request.getfixturevalue("work_off") if self.way == "in a worker" else list

    def __call__(self, task, *args):
        try:
            if self.way == "directly":
                return Outcome(task(*args))
            self.task_id = uuid()
            start = task.apply if self.way == "applied" else task.apply_async
            result = start(args, task_id=self.task_id)
            self._work_off()
        except BaseException as error:
            return Outcome(error=error)
        return Outcome(result.result) if result.state == "SUCCESS" else Outcome(error=result.result)


@pytest.fixture(params=["directly", "applied", "in a worker"])
def run(request):
    """Each of the ways to run a task in turn."""
    return Run(request)


@pytest.fixture(params=["applied", "in a worker"])
def run_attempts(request):
    """Each of the ways in which Celery tries again."""
    return Run(request)


@pytest.fixture
def task(app):
    """A decorator that makes an `AirlockTask`."""
    return functools.partial(app.task, base=AirlockTask)


@pytest.fixture
def part(task, notify):
    """A task with one effect, and nothing else."""

    @task(name="shop.part")
    def part(told):
        airlock.enqueue(notify, told)
        return told

    return part


# Success and failure


def test_effects_are_held_until_the_body_returns(task, run, notify, notified):
    during = []

    @task
    def order():
        airlock.enqueue(notify, "first")
        during.extend(notified())
        airlock.enqueue(notify, "second")
        during.extend(notified())
        return "done"

    assert run(order) == Outcome("done")
    assert during == []
    assert notified() == ["first", "second"]


@pytest.mark.parametrize("error", [ValueError, Ignore, Reject, SoftTimeLimitExceeded, KeyboardInterrupt, SystemExit])
def test_a_body_that_raises_has_no_effects(task, run, notify, notified, error):
    raised = error("no")

    @task
    def order():
        airlock.enqueue(notify, "order")
        raise raised

    outcome = run(order)

    if run.way == "directly":
        assert outcome.error is raised
        assert not hasattr(raised, "__notes__")
    assert notified() == []
    assert airlock.get_current_scope() is None


def test_an_effect_that_cannot_be_dispatched_fails_the_run(task, run, notify, notified):
    @task
    def order():
        airlock.enqueue(notify, "sent")
        airlock.enqueue(notify, object(), _origin="orders.py:7")
        airlock.enqueue(notify, "after")

    error = run(order).error

    assert type(error).__name__ == "EncodeError"
    if run.way != "in a worker":  # results are told without the notes
        assert "orders.py:7" in "".join(error.__notes__)
    assert notified() == ["sent"]


# Attempts


def raising(task, notify):
    airlock.enqueue(notify, task.request.retries)
    if task.request.retries < 2:
        raise task.retry(countdown=0)


def not_throwing(task, notify):
    airlock.enqueue(notify, task.request.retries)
    if task.request.retries < 2:
        task.retry(countdown=0, throw=False)
        airlock.enqueue(notify, "went on")


def swallowing(task, notify):
    try:
        raising(task, notify)
    except Retry:
        airlock.enqueue(notify, "went on")


def failing(task, notify):
    airlock.enqueue(notify, task.request.retries)
    if task.request.retries < 2:
        raise ValueError("not yet")


AUTORETRY = {"autoretry_for": (ValueError,), "default_retry_delay": 0}


@pytest.mark.parametrize("by_class", [False, True], ids=["function", "class"])
@pytest.mark.parametrize("body", [raising, not_throwing, swallowing, failing])
def test_only_the_attempt_that_succeeds_has_effects(app, task, work_off, notify, notified, body, by_class):
    def run(self):
        body(self, notify)

    if by_class:  # which Celery binds otherwise than a decorated function
        order = app.register_task(type("Order", (AirlockTask,), {"name": "order", "run": run, **AUTORETRY})())
    else:
        order = task(bind=True, **AUTORETRY)(run)
    order.delay()

    assert len(work_off()) == 3
    assert notified() == [2]


@pytest.mark.parametrize("body", [raising, failing])
def test_only_the_eager_attempt_that_succeeds_has_effects(task, notify, notified, body):
    @task(bind=True, **AUTORETRY)
    def order(self):
        body(self, notify)

    assert order.apply().state == "SUCCESS"
    assert notified() == [2]


def test_a_task_that_gives_up_has_no_effects(task, run_attempts, notify, notified):
    @task(max_retries=1, **AUTORETRY)
    def order():
        airlock.enqueue(notify, "order")
        raise ValueError("never")

    run_attempts(order)

    assert notified() == []


def test_an_eager_run_that_goes_on_after_a_retry_is_an_attempt_if_celery_makes_another(task, notify, notified):
    # Which it does if it gets to see the `Retry`, for nothing is published.
    @task(bind=True)
    def order(self, returns):
        airlock.enqueue(notify, (returns, self.request.retries))
        if self.request.retries == 2:
            return "done"
        retry = self.retry(throw=False)
        return retry if returns else "went on"

    assert order.apply((True,)).get() == "done"
    assert order.apply((False,)).get() == "went on"
    assert notified() == [[True, 2], [False, 0]]


@pytest.mark.parametrize("exc", [None, ValueError("no")], ids=["Retry", "an exception"])
def test_what_a_run_called_directly_makes_of_its_retry_counts(task, notify, notified, exc):
    # Nobody will try it again: to Celery, `retry` is just something that raises there.
    @task(bind=True)
    def order(self, swallows):
        airlock.enqueue(notify, swallows)
        with contextlib.suppress(*[Retry, ValueError] if swallows else []):
            self.retry(exc=exc)

    for call in (order, order.run):
        call(True)
        with pytest.raises((Retry, ValueError)):
            call(False)

    assert notified() == [True, True]


def test_a_retry_is_that_of_the_task_which_asked_for_it(task, run, notify, notified):
    # Celery asks for an automatic one outside of the body, where the run of the task around it is the current one.
    @task(bind=True, **AUTORETRY)
    def inner(self):
        failing(self, notify)

    @task
    def outer():
        airlock.enqueue(notify, "outer")
        inner.apply()

    assert run(outer).error is None
    assert notified() == ["outer", 2]


def test_a_retry_that_cannot_be_published_is_none(task, work_off, notify, notified):
    @task(bind=True)
    def order(self, swallows):
        airlock.enqueue(notify, swallows)
        with contextlib.suppress(*[Reject] if swallows else []):
            self.retry(args=(object(),))

    order.delay(True)
    order.delay(False)
    work_off()

    assert notified() == [True]


# Replaced

REPLACEMENTS = {
    "task": (lambda part: part("replacement"), "replacement", ["replacement"]),
    "chain": (lambda part: part("first") | part("second"), "second", ["first", "second"]),
    "group": (lambda part: group(part("one"), part("other")), ["one", "other"], ["one", "other"]),
    "chord": (lambda part: chord([part("one"), part("other")], part("body")), "body", ["one", "other", "body"]),
}


@pytest.mark.parametrize("replacement", REPLACEMENTS)
def test_replacing_a_run_discards_its_effects_only(app, run_attempts, part, notify, notified, replacement):
    make, result, effects = REPLACEMENTS[replacement]
    asked = []

    class Watching(AirlockTask):
        def should_flush(self, error):
            asked.append(repr(error))
            return super().should_flush(error)

    @app.task(base=Watching, bind=True)
    def order(self):
        airlock.enqueue(notify, "order")
        return self.replace(make(part.si))

    outcome = run_attempts(order)

    if run_attempts.way == "applied":
        assert outcome == Outcome(result)
    assert notified() == effects
    assert asked == ["Ignore('Replaced by new task')"]


def test_a_replacement_in_place_is_captured_by_the_scope_around_the_replaced_run(task, part, notify, notified):
    @task(bind=True)
    def order(self):
        airlock.enqueue(notify, "order")
        with airlock.scope():
            return self.replace(part.si("replacement"))

    @task
    def outer():
        assert order.apply().get() == "replacement"
        assert notified() == []
        airlock.enqueue(notify, "outer")

    with airlock.scope(executor=celery_executor):
        outer()
        assert notified() == []
    assert notified() == ["replacement", "outer"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_goes_on_after_it_was_replaced_has_no_effects(task, run_attempts, notify, notified, fails):
    @task
    def replacement():
        airlock.enqueue(notify, "replacement")
        if fails:
            raise LookupError("replacement")

    @task(bind=True)
    def order(self):
        airlock.enqueue(notify, "order")
        with contextlib.suppress(Ignore, LookupError):
            self.replace(replacement.si())
        airlock.enqueue(notify, "went on")

    run_attempts(order)

    assert notified() == ([] if fails else ["replacement"])


def test_a_run_whose_replacement_cannot_be_published_has_not_been_replaced(task, work_off, part, notify, notified):
    @task(bind=True)
    def order(self):
        airlock.enqueue(notify, "order")
        with pytest.raises(EncodeError):
            self.replace(part.si(object()))

    order.delay()
    work_off()

    assert notified() == ["order"]


# Runs within runs, and beside each other


def test_a_run_in_a_scope_is_captured(part, notified):
    with pytest.raises(ValueError, match="no"), airlock.scope() as outer:
        part("called")
        part.apply(("applied",))
        part.run("run")
        captured = outer.captured_intents
        raise ValueError("no")

    assert [intent.args for intent in captured] == [("called",), ("applied",), ("run",)]
    assert notified() == []


@pytest.mark.parametrize("call", ["another", "itself", "its own run"])
def test_a_run_answers_for_the_runs_inside_it(task, run, notify, notified, call):
    def body(self, fails, *inner_fails):
        airlock.enqueue(notify, "inner, fails" if fails else "inner" if not inner_fails else "outer")
        for inner in inner_fails:
            with pytest.raises(LookupError) if inner else contextlib.nullcontext():
                {"another": another, "itself": self, "its own run": self.run}[call](inner)
        if fails:
            raise LookupError("no")

    order, another = task(bind=True, name="order")(body), task(bind=True, name="another")(body)

    run(order, True, False, True)
    assert notified() == []

    run(order, False, False, True)
    assert notified() == ["outer", "inner"]


@pytest.mark.parametrize("ask", ["retry", "retry, not throwing", "replace"])
def test_a_run_whose_own_run_is_tried_again_or_replaced_has_no_effects(task, work_off, part, notify, notified, ask):
    @task(bind=True)
    def order(self, is_outer=True):
        airlock.enqueue(notify, (self.request.retries, is_outer))
        if self.request.retries:
            return
        if is_outer:
            with contextlib.suppress(Retry, Ignore):
                self.run(False)
            airlock.enqueue(notify, "went on")
        elif ask == "replace":
            self.replace(part.si("replacement"))
        else:
            self.retry((True,), countdown=0, throw=ask == "retry")

    order.delay()
    work_off()

    assert notified() == (["replacement"] if ask == "replace" else [[1, True]])


def test_a_class_that_extends_the_run_of_another_has_one_scope(app, run, notify, notified):
    asked = []

    class Order(AirlockTask):
        name = "shop.order"

        def get_policy(self):
            asked.append("get_policy")

        def should_flush(self, error):
            asked.append(repr(error))
            return super().should_flush(error)

        def run(self, number):
            airlock.enqueue(notify, number)
            raise LookupError("sold out")

    class Patient(Order):
        name = "shop.patient_order"

        def run(self, number):
            with pytest.raises(LookupError):
                super().run(number)
            return number

    app.register_task(Order())

    assert run(app.register_task(Patient()), 7) == Outcome(7)
    assert notified() == [7]
    assert asked == ["get_policy", "None"]


@pytest.mark.parametrize("call", ["apply", "run"])
def test_runs_at_the_same_time_have_scopes_of_their_own(task, notify, notified, call):
    # A bare `run` has no request of its own: that of the task is shared by all such calls.
    together = threading.Barrier(2, timeout=10)

    @task
    def order(number):
        together.wait()
        airlock.enqueue(notify, number)
        together.wait()
        if number == 1:
            raise ValueError("no")

    def start(number):
        with contextlib.suppress(ValueError):
            order.apply((number,)) if call == "apply" else order.run(number)

    threads = [threading.Thread(target=start, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert notified() == [2]


# A run leaves nothing behind


@pytest.mark.parametrize("depth", [0, 1], ids=["alone", "nested"])
def test_what_a_body_leaves_open_does_not_touch_later_runs(task, run, part, notify, notified, depth):
    @task(bind=True)
    def forgetful(self, depth):
        if depth:
            self.run(depth - 1)
            airlock.enqueue(notify, "nested")
        airlock.scope(airlock.DropAll()).enter()
        airlock.policy(airlock.DropAll()).__enter__()
        airlock.scope().enter()

    run(forgetful, depth)
    assert airlock.get_current_scope() is None
    run(part, "next")

    assert notified() == ["nested", "next"][1 - depth :]


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

    def outcome_of(self, task, *args):
        tracing = sys.gettrace()
        sys.settrace(self)
        try:
            return Outcome(task.run(*args))
        except BaseException as error:
            return Outcome(error=error)
        finally:
            sys.settrace(tracing)


class Logging(airlock.Scope):
    """As Django's."""

    dispatch_errors = "log"


@pytest.mark.parametrize("error", [SoftTimeLimitExceeded, KeyboardInterrupt])
@pytest.mark.parametrize("scope_cls", [airlock.Scope, Logging])
@pytest.mark.parametrize("where", ["alone", "failing", "in another run"])
@pytest.mark.parametrize("amount", [1, 3])
def test_an_interruption_at_any_line_fails_a_run_or_is_too_late(
    task, notify, notified, amount, where, scope_cls, error
):
    airlock.configure(scope_cls=scope_cls)
    effects = list(range(amount))

    @task
    def order(fails):
        for number in effects:
            airlock.enqueue(notify, number)
        if fails:
            raise LookupError("no")
        return "done"

    @task
    def outer(strike):
        here = airlock.get_current_scope()
        outcome = strike.outcome_of(order, False)
        assert airlock.get_current_scope() is here, strike.line
        return outcome

    has_succeeded = set()
    for nth in itertools.count():
        strike = Strike(nth, error)
        if where == "in another run":
            outcome = outer.run(strike)
        else:
            outcome = strike.outcome_of(order, where == "failing")
        has_succeeded.add(outcome.error is None)
        assert airlock.get_current_scope() is None, strike.line
        assert notified() == ([] if outcome.error else effects), strike.line
        assert outcome.value == "done" or isinstance(outcome.error, (error, LookupError))
        assert (order.run(False), notified()) == ("done", effects), f"after {strike.line}"
        if not strike.line:
            break
    assert has_succeeded == ({False} if where == "failing" else {True, False})


def test_a_scope_that_cannot_be_entered_fails_the_run(task, run):
    class Closed(airlock.Scope):
        def enter(self):
            raise LookupError("closed")

    airlock.configure(scope_cls=Closed)
    ran = []

    @task
    def order():
        ran.append(True)

    assert repr(run(order).error) == "LookupError('closed')"
    assert ran == []
    assert airlock.get_current_scope() is None


# Hooks


def test_a_configured_class_makes_the_scopes(task, run, notify, notified):
    class Undaunted(airlock.Scope):
        def __init__(self, *args, mood, **kwargs):
            super().__init__(*args, **kwargs)
            self.mood = mood

        def should_flush(self, error):
            return isinstance(error, LookupError)

    airlock.configure(scope_cls=Undaunted, scope_kwargs={"mood": "fearless"})
    moods = []

    @task
    def order(error):
        moods.append(airlock.get_current_scope().mood)
        airlock.enqueue(notify, error)
        if error:
            raise {"lookup": LookupError, "value": ValueError}[error]

    for error in ("lookup", "value", None):
        run(order, error)

    assert notified() == ["lookup"]
    assert moods == ["fearless"] * 3


class Collecting(list):
    """An executor that is false as long as it has done nothing."""

    def __call__(self, intent):
        self.append(intent.args[0])


@pytest.mark.parametrize("chosen", ["nothing", "configured", "get_executor"])
def test_follow_ups_are_published_unless_another_executor_is_chosen(app, run, notify, notified, chosen):
    configured, own = Collecting(), Collecting()
    if chosen != "nothing":
        airlock.configure(executor=configured)

    class Choosing(AirlockTask):
        def get_executor(self):
            return own if chosen == "get_executor" else None

    @app.task(base=Choosing)
    def order():
        airlock.enqueue(notify, 1)

    run(order)

    expected = {"nothing": ([1], [], []), "configured": ([], [1], []), "get_executor": ([], [], [1])}
    assert (notified(), configured, own) == expected[chosen]


@pytest.mark.parametrize("own", [None, airlock.AllowAll()], ids=["configured", "get_policy"])
def test_a_policy_can_be_chosen(app, run, notify, notified, own):
    airlock.configure(policy=airlock.DropAll())

    class Choosing(AirlockTask):
        def get_policy(self):
            return own

    @app.task(base=Choosing)
    def order():
        airlock.enqueue(notify, 1)

    run(order)

    assert notified() == ([1] if own else [])


def test_should_flush_decides(app, run, notify, notified):
    class Contrary(AirlockTask):
        def should_flush(self, error):
            return error is not None

    @app.task(base=Contrary)
    def order(fails):
        airlock.enqueue(notify, fails)
        if fails:
            raise ValueError("no")
        return "done"

    assert run(order, False) == Outcome("done")
    assert notified() == []
    assert repr(run(order, True).error) == "ValueError('no')"
    assert notified() == [True]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("answer", [LookupError("cannot decide"), "yes"], ids=["an exception", "no bool"])
def test_should_flush_that_cannot_decide_fails_the_run(app, run, notify, notified, answer, fails):
    class Undecided(AirlockTask):
        def should_flush(self, error):
            if isinstance(answer, Exception):
                raise answer
            return answer

    @app.task(base=Undecided)
    def order():
        airlock.enqueue(notify, 1)
        if fails:
            raise ValueError("no")

    assert str(answer) in str(run(order).error)
    assert notified() == []
    assert airlock.get_current_scope() is None


def test_hooks_see_the_request_and_the_scope_of_the_run(app, run):
    seen = []

    class Watching(AirlockTask):
        def see(self, what):
            seen.append((what, *self.request.args, self.request.id, airlock.get_current_scope()))

        def get_policy(self):
            self.see("get_policy")

        def get_executor(self):
            self.see("get_executor")

        def should_flush(self, error):
            self.see("should_flush")
            return super().should_flush(error)

    scopes, ids = {}, {}

    @app.task(base=Watching, bind=True)
    def order(self, depth):
        scopes[depth], ids[depth] = airlock.get_current_scope(), self.request.id
        if depth:
            self(depth - 1)

    assert run(order, 1).error is None

    assert ids[1] == run.task_id
    assert len({*scopes.values(), None}) == 3
    assert seen == [
        ("get_policy", 1, ids[1], None),
        ("get_executor", 1, ids[1], None),
        ("get_policy", 0, ids[0], scopes[1]),
        ("get_executor", 0, ids[0], scopes[1]),
        ("should_flush", 0, ids[0], scopes[0]),
        ("should_flush", 1, ids[1], scopes[1]),
    ]


def test_handlers_of_the_run_come_after_its_scope(app, run_attempts, notify, notified):
    heard = []

    class Handling(AirlockTask):
        def on_success(self, *_):
            heard.append(("success", airlock.get_current_scope(), notified()))

        def on_failure(self, *_):
            heard.append(("failure", airlock.get_current_scope(), notified()))

    @app.task(base=Handling)
    def order(fails):
        airlock.enqueue(notify, "thanks")
        if fails:
            raise ValueError("no")

    run_attempts(order, False)
    run_attempts(order, True)

    assert heard == [("success", None, ["thanks"]), ("failure", None, [])]


class PlainCalling(Task):
    """A `__call__` as many projects have one."""

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs)


class AirlockCalling(PlainCalling, AirlockTask):
    """The same, on an `AirlockTask`."""


@pytest.mark.parametrize("bases", [(AirlockTask, Task), (AirlockCalling, PlainCalling)], ids=["", "own __call__"])
def test_the_request_is_what_it_is_without_airlock(app, run, bases):
    # Of a task that calls itself, or applies itself, or both; what Celery makes of that varies with its version.
    def requests_of(base):
        requests = []

        def note(task):
            request = task.request
            task_id = "own" if request.id == run.task_id else request.id
            is_current = app.current_task == task
            requests.append((task_id, list(request.args), request.called_directly, request.is_eager, is_current))

        @app.task(base=base, bind=True, name=base.__name__)
        def order(self, steps):
            note(self)
            if steps.startswith("call"):
                self(steps[4:])
            elif steps:
                self.apply((steps[5:],), task_id=f"inner-{steps}", throw=True)
            note(self)

        for steps in ("callcall", "applyapply", "callapplycall", "applycallapply"):
            assert run(order, steps).error is None
        return requests

    with_airlock, without = map(requests_of, bases)
    assert len(without) == 28
    assert with_airlock == without


# Ways to make tasks


def test_annotations_of_the_run_keep_its_scope(make_app):
    ran, sent = [], Collecting()
    airlock.configure(executor=sent)

    def noting(body):
        @functools.wraps(body)
        def noted(self, fails):
            ran.append(fails)
            return body(self, fails)

        return noted

    app = make_app({"task_annotations": {"shop.order": {"@run": noting}}})

    @app.task(base=AirlockTask, bind=True, name="shop.order")
    def order(self, fails):
        airlock.enqueue(print, fails)
        if fails:
            raise ValueError("no")

    for fails in (True, False):
        order.apply((fails,))

    assert ran == [True, False]
    assert sent == [False]


def test_the_run_of_a_class_is_the_function_that_was_written():
    def run(self):
        """Order."""

    order = type("Order", (AirlockTask,), {"name": "shop.order", "run": run})

    assert order.run is run
    assert order().run.__doc__ == "Order."


@pytest.fixture(params=[AirlockTask, "airlock.integrations.celery:AirlockTask"], ids=["class", "path"])
def airlock_app(request, make_app):
    """The current app, of which all tasks are an `AirlockTask`, Celery's own included."""
    app = make_app(task_cls=request.param)
    app.set_current()
    app.set_default()
    return app


def test_a_whole_app_can_have_it(airlock_app):
    scopes = []

    def order():
        scopes.append(airlock.get_current_scope())

    for task in (airlock_app.task(order, name="order"), shared_task(order, name="shared")):
        task()
        assert isinstance(task, AirlockTask)
        assert isinstance(scopes.pop(), airlock.Scope)
    assert isinstance(airlock_app.tasks["celery.chord_unlock"], AirlockTask)


class TestWholeApp:
    """In an app all of whose tasks are an `AirlockTask`, Celery's own do what they are for."""

    @pytest.fixture
    def app(self, airlock_app):
        return airlock_app

    @pytest.mark.parametrize(
        ("make", "expected", "effects"),
        [
            (lambda add, total: chord([add.s(1, 2), add.s(3, 4)], total.s()), 10, [3, 7, 10]),
            (lambda add, total: add.map([1, 2]), [1, 2], [1, 2]),
            (lambda add, total: add.starmap([(1, 2), (3, 4)]), [3, 7], [3, 7]),
            (lambda add, total: add.s(1, 1) | add.s(2) | group(add.s(0), add.s(1)) | total.s(), 9, [2, 4, 4, 5, 9]),
        ],
        ids=["chord", "map", "starmap", "chain with a group"],
    )
    def test_every_canvas_works(self, app, work_off, notify, notified, make, expected, effects):
        @app.task
        def add(x, y=0):
            airlock.enqueue(notify, x + y)
            return x + y

        @app.task
        def total(numbers):
            return add.run(sum(numbers))

        result = make(add, total).delay()
        work_off()

        assert result.get(timeout=5) == expected
        assert sorted(notified()) == effects


def test_in_an_eager_app_follow_ups_run_after_the_body_as_tasks_of_their_own(make_app):
    app = make_app({"task_always_eager": True})
    heard = []

    @app.task(bind=True)
    def notify(self):
        heard.append(("notify", self.request.id, self.request.called_directly))

    @app.task(base=AirlockTask)
    def order():
        heard.append(airlock.enqueue(notify).id)
        heard.append("end of the body")

    order.delay()

    assert heard == [heard[0], "end of the body", ("notify", heard[0], False)]
