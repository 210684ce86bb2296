"""A task with a scope around each run."""

from __future__ import annotations

import contextlib
import functools
import itertools
import linecache
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from celery import Celery, Task, chord, group, uuid
from celery.exceptions import Ignore, Reject, Retry
from kombu.exceptions import EncodeError

import airlock
from airlock.integrations.celery import AirlockTask
from airlock.integrations.executors.celery import celery_executor

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Waiting


@dataclass
class Outcome:
    """What a run returned or raised."""

    value: Any = None
    error: BaseException | None = None


class Run:
    """Runs a task, in one of the ways there are."""

    def __init__(self, way: str, work_off: Callable[[], list[str]]) -> None:
        self.way = way
        #: That of the latest run, if the way gives it one.
        self.task_id: str | None = None
        self._work_off = work_off

    def __call__(self, task: Task, *args: Any, **kwargs: Any) -> Outcome:
        try:
            return getattr(self, f"_{self.way}")(task, args, kwargs)
        except BaseException as error:
            return Outcome(error=error)

    def _directly(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        return Outcome(task(*args, **kwargs))

    def _applied(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        self.task_id = uuid()
        return self._told_by(task.apply(args, kwargs, task_id=self.task_id))

    def _in_a_worker(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        self.task_id = uuid()
        result = task.apply_async(args, kwargs, task_id=self.task_id)
        self._work_off()
        return self._told_by(result)

    def _told_by(self, result: Any) -> Outcome:
        return Outcome(result.result) if result.state == "SUCCESS" else Outcome(error=result.result)


@pytest.fixture(params=["directly", "applied", "in_a_worker"])
def run(request: pytest.FixtureRequest) -> Run:
    """Each of the ways to run a task in turn."""
    return _run(request)


@pytest.fixture(params=["applied", "in_a_worker"])
def run_with_id(request: pytest.FixtureRequest) -> Run:
    """Each of the ways that give the run an id, and make attempts."""
    return _run(request)


def _run(request: pytest.FixtureRequest) -> Run:
    # Only a worker is to be prepared as a worker.
    return Run(request.param, request.getfixturevalue("work_off") if request.param == "in_a_worker" else list)


Notified = "Callable[[], list[Any]]"


# Success and failure


def test_effects_are_held_until_the_body_returns(app: Celery, run: Run, notify: Task, notified: Notified) -> None:
    during = []

    @app.task(base=AirlockTask)
    def order() -> str:
        airlock.enqueue(notify, "first")
        during.extend(notified())
        airlock.enqueue(notify, "second")
        during.extend(notified())
        return "done"

    outcome = run(order)

    assert outcome == Outcome("done")
    assert during == []
    assert notified() == ["first", "second"]


ERRORS = {
    "failure": ValueError,
    "Ignore": Ignore,
    "Reject": Reject,
    "soft time limit": SoftTimeLimitExceeded,
    "interrupt": KeyboardInterrupt,
    "exit": SystemExit,
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_body_that_raises_has_no_effects(
    app: Celery, run: Run, notify: Task, notified: Notified, error: type[BaseException]
) -> None:
    @app.task(base=AirlockTask)
    def order() -> None:
        airlock.enqueue(notify, "order")
        raise error

    run(order)

    assert notified() == []
    assert airlock.get_current_scope() is None


def test_a_body_that_raises_raises(app: Celery, notify: Task) -> None:
    error = ValueError("no")

    @app.task(base=AirlockTask)
    def order() -> None:
        raise error

    with pytest.raises(ValueError, match="no") as raised:
        order()

    assert raised.value is error
    assert not hasattr(error, "__notes__")


def task_by_class(body: Callable[[Task], None], errors: tuple[type[Exception], ...] = ()) -> Task:
    """A task that is a class of its own, which `register_task` binds differently from a decorated function.

    A new class each time, as the first of its tasks to be bound would prepare it for the others.
    """

    class ByClass(AirlockTask):
        name = "by_class"
        autoretry_for = errors
        default_retry_delay = 0

        def run(self) -> None:
            body(self)

    return ByClass()


def bodies_that_retry(notify: Task) -> dict[str, Callable[[Task], None]]:
    def raising(task: Task) -> None:
        airlock.enqueue(notify, task.request.retries)
        if task.request.retries < 2:
            raise task.retry(countdown=0)

    def not_throwing(task: Task) -> None:
        airlock.enqueue(notify, task.request.retries)
        if task.request.retries < 2:
            task.retry(countdown=0, throw=False)

    def swallowing(task: Task) -> None:
        airlock.enqueue(notify, task.request.retries)
        try:
            if task.request.retries < 2:
                raise task.retry(countdown=0)
        except Exception:
            airlock.enqueue(notify, "went on")

    def failing(task: Task) -> None:
        airlock.enqueue(notify, task.request.retries)
        if task.request.retries < 2:
            raise ValueError("not yet")

    return {"retry": raising, "throw=False": not_throwing, "swallowed": swallowing, "autoretry_for": failing}


@pytest.mark.parametrize("by_class", [False, True], ids=["function", "class"])
@pytest.mark.parametrize("how", ["retry", "throw=False", "swallowed", "autoretry_for"])
def test_only_the_attempt_that_succeeds_has_effects(
    app: Celery, work_off: Callable[[], list[str]], notify: Task, notified: Notified, how: str, by_class: bool
) -> None:
    body = bodies_that_retry(notify)[how]
    errors = (ValueError,) if how == "autoretry_for" else ()
    if by_class:
        task = app.register_task(task_by_class(body, errors))
    else:

        @app.task(base=AirlockTask, bind=True, autoretry_for=errors, default_retry_delay=0)
        def task(self: Task) -> None:
            body(self)

    task.delay()
    states = work_off()

    assert len(states) == 3
    assert states[-1] == "SUCCESS"
    assert notified() == [2]


@pytest.mark.parametrize("how", ["retry", "autoretry_for"])
def test_only_the_eager_attempt_that_succeeds_has_effects(
    app: Celery, notify: Task, notified: Notified, how: str
) -> None:
    body = bodies_that_retry(notify)[how]
    autoretry = {"autoretry_for": (ValueError,), "default_retry_delay": 0} if how == "autoretry_for" else {}

    @app.task(base=AirlockTask, bind=True, **autoretry)
    def order(self: Task) -> None:
        body(self)

    assert order.apply().state == "SUCCESS"

    assert notified() == [2]


def test_a_task_that_gives_up_has_no_effects(app: Celery, run_with_id: Run, notify: Task, notified: Notified) -> None:
    @app.task(base=AirlockTask, autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0)
    def order() -> None:
        airlock.enqueue(notify, "order")
        raise ValueError("never")

    run_with_id(order)

    assert notified() == []


def test_an_eager_run_that_goes_on_after_a_retry_is_an_attempt_if_celery_makes_another(
    app: Celery, notify: Task, notified: Notified
) -> None:
    # Which it does if it gets to see the `Retry`, for nothing is published.
    @app.task(base=AirlockTask, bind=True)
    def order(self: Task, returns: bool) -> Any:
        airlock.enqueue(notify, (returns, self.request.retries))
        if self.request.retries < 2:
            retry = self.retry(throw=False)
            return retry if returns else "went on"
        return "done"

    @app.task(base=AirlockTask, bind=True)
    def swallowing(self: Task) -> None:
        airlock.enqueue(notify, "swallowed")
        with pytest.raises(Retry):
            self.retry()

    assert order.apply((True,)).get() == "done"
    assert order.apply((False,)).get() == "went on"
    assert swallowing.apply().state == "SUCCESS"

    assert notified() == [[True, 2], [False, 0], "swallowed"]


@pytest.mark.parametrize("exc", [None, ValueError("no")], ids=["Retry", "an exception"])
def test_what_a_run_called_directly_makes_of_its_retry_counts(
    app: Celery, notify: Task, notified: Notified, exc: Exception | None
) -> None:
    # Nobody will try it again: to Celery, `retry` is just something that raises there.
    @app.task(base=AirlockTask, bind=True)
    def order(self: Task, swallows: bool) -> None:
        airlock.enqueue(notify, swallows)
        try:
            self.retry(exc=exc)
        except (Retry, ValueError):
            if not swallows:
                raise

    order(True)
    with pytest.raises((Retry, ValueError)):
        order(False)

    assert notified() == [True]


def test_a_retry_is_that_of_the_task_which_asked_for_it(
    app: Celery, run: Run, notify: Task, notified: Notified
) -> None:
    # Celery asks for an automatic one outside of the body, where the run of the task around it is the current one.
    @app.task(base=AirlockTask, bind=True, autoretry_for=(ValueError,), default_retry_delay=0)
    def inner(self: Task) -> None:
        airlock.enqueue(notify, f"inner {self.request.retries}")
        if self.request.retries < 2:
            raise ValueError("not yet")

    @app.task(base=AirlockTask)
    def outer() -> None:
        airlock.enqueue(notify, "outer")
        inner.apply()

    assert run(outer).error is None

    assert notified() == ["outer", "inner 2"]


def test_a_retry_that_cannot_be_published_is_none(
    app: Celery, work_off: Callable[[], list[str]], notify: Task, notified: Notified
) -> None:
    @app.task(base=AirlockTask, bind=True)
    def order(self: Task, swallows: bool) -> None:
        airlock.enqueue(notify, swallows)
        try:
            self.retry(args=(object(),))
        except Reject:
            if not swallows:
                raise

    order.delay(True)
    order.delay(False)
    work_off()

    assert notified() == [True]


# Replaced


@pytest.fixture
def part(app: Celery, notify: Task) -> Task:
    """A task with one effect, to be a part of a replacement."""

    @app.task(base=AirlockTask, name="shop.part")
    def part(told: str) -> str:
        airlock.enqueue(notify, told)
        return told

    return part


REPLACEMENTS: dict[str, tuple[Callable[[Any], Any], Any, list[str]]] = {
    "task": (lambda part: part("replacement"), "replacement", ["replacement"]),
    "chain": (lambda part: part("first") | part("second"), "second", ["first", "second"]),
    "group": (lambda part: group(part("one"), part("other")), ["one", "other"], ["one", "other"]),
    "chord": (lambda part: chord([part("one"), part("other")], part("body")), "body", ["one", "other", "body"]),
}


@pytest.mark.parametrize("replacement", REPLACEMENTS)
def test_replacing_a_task_discards_its_effects_and_keeps_those_of_its_replacement(
    app: Celery, run_with_id: Run, part: Task, notify: Task, notified: Notified, replacement: str
) -> None:
    make, result, effects = REPLACEMENTS[replacement]

    @app.task(base=AirlockTask, bind=True)
    def order(self: Task) -> Any:
        airlock.enqueue(notify, "order")
        return self.replace(make(part.si))

    outcome = run_with_id(order)

    if run_with_id.way == "applied":
        assert outcome == Outcome(result)
    assert notified() == effects


def test_a_replacement_in_place_is_captured_by_the_scope_around_the_run_that_it_replaces(
    app: Celery, part: Task, notify: Task, notified: Notified
) -> None:
    @app.task(base=AirlockTask, bind=True)
    def order(self: Task) -> Any:
        airlock.enqueue(notify, "order")
        with airlock.scope():
            return self.replace(part.si("replacement"))

    @app.task(base=AirlockTask)
    def outer() -> None:
        assert order.apply().get() == "replacement"
        assert notified() == []
        airlock.enqueue(notify, "outer")

    with airlock.scope(executor=celery_executor):
        outer()
        assert notified() == []
    assert notified() == ["replacement", "outer"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_goes_on_after_it_was_replaced_has_no_effects(
    app: Celery, run_with_id: Run, notify: Task, notified: Notified, fails: bool
) -> None:
    @app.task(base=AirlockTask)
    def replacement() -> None:
        airlock.enqueue(notify, "replacement")
        if fails:
            raise LookupError("replacement")

    @app.task(base=AirlockTask, bind=True)
    def order(self: Task) -> str:
        airlock.enqueue(notify, "order")
        with contextlib.suppress(Ignore, LookupError):
            self.replace(replacement.si())
        airlock.enqueue(notify, "went on")
        return "went on"

    run_with_id(order)

    assert notified() == ([] if fails else ["replacement"])


def test_a_run_whose_replacement_cannot_be_published_has_not_been_replaced(
    app: Celery, work_off: Callable[[], list[str]], part: Task, notify: Task, notified: Notified
) -> None:
    @app.task(base=AirlockTask, bind=True)
    def order(self: Task) -> None:
        airlock.enqueue(notify, "order")
        with pytest.raises(EncodeError):
            self.replace(part.si(object()))

    order.delay()
    work_off()

    assert notified() == ["order"]


def test_should_flush_is_asked_about_a_replacement_as_about_any_end(app: Celery, run_with_id: Run, part: Task) -> None:
    asked = []

    class Watching(AirlockTask):
        def should_flush(self, error: BaseException | None) -> bool:
            asked.append(repr(error))
            return super().should_flush(error)

    @app.task(base=Watching, bind=True)
    def order(self: Task) -> Any:
        return self.replace(part.si("replacement"))

    run_with_id(order)

    assert asked == ["Ignore('Replaced by new task')"]


def test_an_effect_that_cannot_be_dispatched_fails_the_task(
    app: Celery, run: Run, notify: Task, notified: Notified
) -> None:
    @app.task(base=AirlockTask)
    def order() -> None:
        airlock.enqueue(notify, "sent")
        airlock.enqueue(notify, object(), _origin="orders.py:7")
        airlock.enqueue(notify, "after")

    outcome = run(order)

    assert type(outcome.error).__name__ == "EncodeError"
    if run.way != "in_a_worker":  # results are told without the notes
        assert isinstance(outcome.error, EncodeError)
        assert "orders.py:7" in "".join(outcome.error.__notes__)
    assert notified() == ["sent"]


# Which scope


def test_every_run_has_a_scope_of_its_own(app: Celery, notify: Task, notified: Notified) -> None:
    together = threading.Barrier(2, timeout=10)
    scopes = []

    @app.task(base=AirlockTask)
    def order(number: int, fails: bool) -> None:
        scopes.append(airlock.get_current_scope())
        airlock.enqueue(notify, number)
        together.wait()
        if fails:
            raise ValueError("no")

    threads = [threading.Thread(target=order.apply, args=((number, number == 1),)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(scopes)) == 2
    assert notified() == [2]


def test_a_run_in_a_scope_is_captured(app: Celery, notify: Task, notified: Notified) -> None:
    @app.task(base=AirlockTask)
    def order(number: int) -> None:
        airlock.enqueue(notify, number)

    with pytest.raises(ValueError, match="no"), airlock.scope() as outer:
        order(1)
        order.apply((2,))
        captured = outer.captured_intents
        raise ValueError("no")

    assert [intent.args for intent in captured] == [(1,), (2,)]
    assert notified() == []


def test_a_task_that_calls_another_answers_for_its_effects(
    app: Celery, run: Run, notify: Task, notified: Notified
) -> None:
    @app.task(base=AirlockTask)
    def inner(fails: bool) -> None:
        airlock.enqueue(notify, f"inner, {fails=}")
        if fails:
            raise LookupError("inner")

    @app.task(base=AirlockTask)
    def outer(fails: bool) -> None:
        inner(False)
        with pytest.raises(LookupError):
            inner(True)
        if fails:
            raise ValueError("outer")

    run(outer, True)
    assert notified() == []

    run(outer, False)
    assert notified() == ["inner, fails=False"]


def test_a_configured_class_makes_the_scopes(app: Celery, run: Run, notify: Task, notified: Notified) -> None:
    class Undaunted(airlock.Scope):
        def __init__(self, *args: Any, mood: str, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.mood = mood

        def should_flush(self, error: BaseException | None) -> bool:
            return isinstance(error, LookupError)

    airlock.configure(scope_cls=Undaunted, scope_kwargs={"mood": "fearless"})
    moods = []

    @app.task(base=AirlockTask)
    def order(error: str | None) -> None:
        moods.append(airlock.get_current_scope().mood)
        airlock.enqueue(notify, error)
        if error:
            raise {"lookup": LookupError, "value": ValueError}[error]

    for error in ("lookup", "value", None):
        run(order, error)

    assert notified() == ["lookup"]
    assert moods == ["fearless"] * 3


def test_a_scope_that_cannot_be_entered_fails_the_run(app: Celery, run: Run) -> None:
    class Closed(airlock.Scope):
        def enter(self) -> None:
            raise LookupError("closed")

    airlock.configure(scope_cls=Closed)
    ran = []

    @app.task(base=AirlockTask)
    def order() -> None:
        ran.append(True)

    assert repr(run(order).error) == "LookupError('closed')"
    assert ran == []
    assert airlock.get_current_scope() is None


def test_what_a_run_leaves_open_does_not_touch_later_runs(
    app: Celery, run: Run, notify: Task, notified: Notified
) -> None:
    @app.task(base=AirlockTask)
    def forgetful() -> None:
        airlock.scope(airlock.DropAll()).enter()
        airlock.policy(airlock.DropAll()).__enter__()

    @app.task(base=AirlockTask)
    def order() -> None:
        airlock.enqueue(notify, "order")

    run(forgetful)
    run(order)

    assert airlock.get_current_scope() is None
    assert notified() == ["order"]


def test_the_bare_run_of_a_task_has_a_scope_too(app: Celery, notify: Task, notified: Notified) -> None:
    # As tests of projects call it. It has no request of its own: that of the task is shared by all such calls.
    @app.task(base=AirlockTask, bind=True)
    def order(self: Task, fails: bool) -> None:
        airlock.enqueue(notify, fails)
        if fails:
            raise self.retry()

    with pytest.raises(Retry):
        order.run(True)
    order.run(False)

    assert notified() == [False]


def test_bare_runs_at_the_same_time_have_scopes_of_their_own(app: Celery, notify: Task, notified: Notified) -> None:
    together = threading.Barrier(2, timeout=10)

    @app.task(base=AirlockTask)
    def order(number: int) -> None:
        together.wait()
        airlock.enqueue(notify, number)
        together.wait()

    notify.delay(0)  # two threads that declare a queue of the in-memory transport at once may lose a message in it
    threads = [threading.Thread(target=order.run, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(notified()) == [0, 1, 2]


class Strike:
    """Raises `SoftTimeLimitExceeded` at the nth line that is run in Airlock, as a signal would between two lines."""

    def __init__(self, nth: int) -> None:
        self._left = nth
        self._latest = 0
        self.struck = False

    def __call__(self, frame: Any, event: str, arg: Any) -> Any:
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
                raise SoftTimeLimitExceeded
        return self


def test_a_soft_time_limit_may_strike_anywhere(app: Celery, notify: Task, notified: Notified) -> None:
    # Between any two lines of Airlock: then either all of the effects go out or, if the flush was not reached, none;
    # and the next run in the same process is as good as any.
    @app.task(base=AirlockTask)
    def order() -> None:
        airlock.enqueue(notify, "order")

    outcomes = set()
    strike = Strike(0)
    for nth in itertools.count():
        strike = Strike(nth)
        tracing = sys.gettrace()
        sys.settrace(strike)
        try:
            order.run()
        except SoftTimeLimitExceeded:
            assert strike.struck
        finally:
            sys.settrace(tracing)
        outcomes.add((strike.struck, tuple(notified())))

        order.run()
        assert notified() == ["order"], f"after a strike at line {nth}"
        if not strike.struck:
            break

    assert outcomes >= {(True, ()), (False, ("order",))}


# Hooks


def test_follow_ups_are_published_and_not_called(app: Celery, run: Run, waiting: Waiting) -> None:
    called = []

    @app.task
    def follow_up(x: int) -> None:
        called.append(x)

    app.conf.task_routes = {follow_up.name: "follow-ups"}

    @app.task(base=AirlockTask)
    def order() -> None:
        airlock.enqueue(follow_up, 1)

    run(order)

    assert called == []
    assert waiting.calls("follow-ups") == [("follow_up", [1])]


class Collecting(list):  # type: ignore[type-arg]
    """An executor that is false as long as it has done nothing."""

    def __call__(self, intent: airlock.Intent) -> None:
        self.append(intent.args[0])


@pytest.mark.parametrize("explicit", [False, True], ids=["configured", "get_executor"])
def test_another_executor_can_be_chosen(
    app: Celery, run: Run, notify: Task, notified: Notified, explicit: bool
) -> None:
    configured, own = Collecting(), Collecting()
    airlock.configure(executor=configured)

    class Choosing(AirlockTask):
        def get_executor(self) -> airlock.Executor | None:
            return own if explicit else None

    @app.task(base=Choosing)
    def order() -> None:
        airlock.enqueue(notify, 1)

    run(order)

    assert (configured, own) == (([], [1]) if explicit else ([1], []))
    assert notified() == []


@pytest.mark.parametrize(
    ("own", "expected"),
    [(None, ["tell"]), (airlock.BlockTasks({"tell"}), ["notify"])],
    ids=["configured", "get_policy"],
)
def test_a_policy_can_be_chosen(
    app: Celery, run: Run, waiting: Waiting, own: airlock.Policy | None, expected: list[str]
) -> None:
    airlock.configure(policy=airlock.BlockTasks({"notify"}))

    class Choosing(AirlockTask):
        def get_policy(self) -> airlock.Policy | None:
            return own

    @app.task(base=Choosing)
    def order() -> None:
        airlock.enqueue("shop.notify", _dispatch_options={"queue": "effects"})
        airlock.enqueue("shop.tell", _dispatch_options={"queue": "effects"})

    run(order)

    assert [name for name, _ in waiting.calls("effects")] == expected


def test_should_flush_decides(app: Celery, run: Run, notify: Task, notified: Notified) -> None:
    asked = []

    class Contrary(AirlockTask):
        def should_flush(self, error: BaseException | None) -> bool:
            asked.append(type(error))
            return error is not None

    @app.task(base=Contrary)
    def order(fails: bool) -> str:
        airlock.enqueue(notify, fails)
        if fails:
            raise ValueError("no")
        return "done"

    assert run(order, False) == Outcome("done")
    assert notified() == []

    assert repr(run(order, True).error) == "ValueError('no')"
    assert notified() == [True]
    assert asked == [type(None), ValueError]


@pytest.mark.parametrize("fails", [False, True])
def test_should_flush_that_raises_discards(
    app: Celery, run: Run, notify: Task, notified: Notified, fails: bool
) -> None:
    class Undecided(AirlockTask):
        def should_flush(self, error: BaseException | None) -> bool:
            raise LookupError("cannot decide")

    @app.task(base=Undecided)
    def order() -> None:
        airlock.enqueue(notify, 1)
        if fails:
            raise ValueError("no")

    assert repr(run(order).error) == "LookupError('cannot decide')"
    assert notified() == []
    assert airlock.get_current_scope() is None


def test_should_flush_that_returns_no_bool_fails_the_run(app: Celery, notify: Task, notified: Notified) -> None:
    class Undecided(AirlockTask):
        def should_flush(self, error: BaseException | None) -> Any:
            return "yes"

    @app.task(base=Undecided)
    def order() -> None:
        airlock.enqueue(notify, 1)

    with pytest.raises(airlock.UsageError, match="'yes'"):
        order()

    assert notified() == []
    assert airlock.get_current_scope() is None


def test_hooks_see_the_request_and_the_scope_of_the_run(app: Celery, run: Run) -> None:
    seen = []

    class Watching(AirlockTask):
        def see(self, what: str) -> None:
            seen.append((what, list(self.request.args), self.request.id, airlock.get_current_scope()))

        def get_policy(self) -> None:
            self.see("get_policy")

        def get_executor(self) -> None:
            self.see("get_executor")

        def should_flush(self, error: BaseException | None) -> bool:
            self.see("should_flush")
            return super().should_flush(error)

    @app.task(base=Watching, bind=True)
    def order(self: Watching, depth: int) -> None:
        self.see("body")
        if depth:
            self(depth - 1)

    assert run(order, 1).error is None

    assert [(what, args) for what, args, *_ in seen] == [
        ("get_policy", [1]),
        ("get_executor", [1]),
        ("body", [1]),
        ("get_policy", [0]),
        ("get_executor", [0]),
        ("body", [0]),
        ("should_flush", [0]),
        ("should_flush", [1]),
    ]
    ids = [task_id for *_, task_id, _ in seen]
    assert ids[0:3] == [run.task_id] * 3
    assert ids[7] == run.task_id
    assert len(set(ids[3:7])) == 1
    scopes = [scope for *_, scope in seen]
    outer, inner = scopes[2], scopes[5]
    assert None not in (outer, inner)
    assert outer is not inner
    assert scopes == [None, None, outer, outer, outer, inner, inner, outer]


def test_handlers_of_the_run_come_after_its_scope(
    app: Celery, run_with_id: Run, notify: Task, notified: Notified
) -> None:
    heard = []

    class Handling(AirlockTask):
        def on_success(self, *_: Any) -> None:
            heard.append(("success", airlock.get_current_scope(), notified()))

        def on_failure(self, *_: Any) -> None:
            heard.append(("failure", airlock.get_current_scope(), notified()))
            notify.delay("sorry")

    @app.task(base=Handling)
    def order(fails: bool) -> None:
        airlock.enqueue(notify, "thanks")
        if fails:
            raise ValueError("no")

    run_with_id(order, False)
    run_with_id(order, True)

    assert heard == [("success", None, ["thanks"]), ("failure", None, [])]
    assert notified() == ["sorry"]


# The request of the run


@dataclass
class Request:
    """What the tests compare of `self.request`."""

    id: str | None
    args: list[Any]
    called_directly: bool
    is_eager: bool

    @classmethod
    def of(cls, task: Task) -> Request:
        request = task.request
        return cls(request.id, list(request.args), request.called_directly, request.is_eager)


@pytest.mark.parametrize(
    ("way", "called_directly", "is_eager"),
    [("directly", True, False), ("applied", False, True), ("in_a_worker", False, False)],
)
def test_the_request_is_that_of_the_run(
    request: pytest.FixtureRequest, app: Celery, way: str, called_directly: bool, is_eager: bool
) -> None:
    run = Run(way, request.getfixturevalue("work_off") if way == "in_a_worker" else list)
    requests = []

    @app.task(base=AirlockTask, bind=True)
    def order(self: Task, number: int) -> None:
        assert app.current_task == self
        requests.append(Request.of(self))

    for number in range(2):
        assert run(order, number).error is None
        assert requests.pop() == Request(run.task_id, [number], called_directly, is_eager)
    assert (order.request.id, order.request.args) == (None, None)


class PlainCalling(Task):
    """A `__call__` as many projects have one."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class AirlockCalling(AirlockTask):
    """The same, on an `AirlockTask`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


@pytest.mark.parametrize(
    ("with_airlock", "without"),
    [(AirlockTask, Task), (AirlockCalling, PlainCalling)],
    ids=["AirlockTask", "with a __call__ of its own"],
)
def test_the_request_is_what_it_is_without_airlock(
    app: Celery, run: Run, with_airlock: type[Task], without: type[Task]
) -> None:
    # Of a task that calls itself, or applies itself, or both; what Celery makes of that varies with its version.
    requests: dict[str, list[Request]] = {}

    def make(base: type[Task]) -> Task:
        @app.task(base=base, bind=True, name=base.__name__)
        def order(self: Task, steps: str) -> None:
            requests.setdefault(base.__name__, []).append(Request.of(self))
            if steps.startswith("call"):
                self(steps[4:])
            elif steps:
                self.apply((steps[5:],), task_id=f"inner-{steps}", throw=True)
            requests[base.__name__].append(Request.of(self))

        return order

    for base in (with_airlock, without):
        task = make(base)
        for steps in ("callcall", "applyapply", "callapplycall", "applycallapply"):
            assert run(task, steps).error is None
            for request in requests[base.__name__]:
                request.id = "own" if request.id == run.task_id else request.id

    assert len(requests[without.__name__]) == 28
    assert requests[with_airlock.__name__] == requests[without.__name__]


def test_attempts_are_counted(app: Celery, run_with_id: Run) -> None:
    requests = []

    @app.task(base=AirlockTask, bind=True, default_retry_delay=0)
    def order(self: Task) -> None:
        requests.append((self.request.id, self.request.retries))
        if self.request.retries < 2:
            raise self.retry()

    run_with_id(order)

    assert requests == [(run_with_id.task_id, attempt) for attempt in range(3)]


# Ways to make tasks


def test_a_class_can_be_the_task(app: Celery, run: Run, notify: Task, notified: Notified) -> None:
    class Order(AirlockTask):
        name = "shop.order"

        def run(self, number: int) -> int:
            airlock.enqueue(notify, number)
            return number

    task = app.register_task(Order())

    assert run(task, 7) == Outcome(7)
    assert notified() == [7]


def test_a_class_that_extends_the_run_of_another_task_has_one_scope(
    app: Celery, run: Run, notify: Task, notified: Notified
) -> None:
    asked = []

    class Order(AirlockTask):
        name = "shop.order"

        def should_flush(self, error: BaseException | None) -> bool:
            asked.append(error)
            return super().should_flush(error)

        def run(self) -> None:
            airlock.enqueue(notify, "order")
            raise LookupError("sold out")

    class Patient(Order):
        name = "shop.patient_order"

        def run(self) -> None:
            with pytest.raises(LookupError):
                super().run()

    app.register_task(Order())
    task = app.register_task(Patient())

    run(task)

    assert notified() == ["order"]
    assert asked == [None]


@pytest.mark.parametrize("way", ["directly", "applied"])
def test_annotations_of_the_run_keep_its_scope(make_app: Callable[..., Celery], way: str) -> None:
    ran = []
    sent: list[airlock.Intent] = []
    airlock.configure(executor=sent.append)

    def noting(body: Any) -> Any:
        @functools.wraps(body)
        def noted(*args: Any, **kwargs: Any) -> Any:
            ran.append(args[1:])
            return body(*args, **kwargs)

        return noted

    app = make_app({"task_annotations": {"shop.order": {"@run": noting}}})

    @app.task(base=AirlockTask, bind=True, name="shop.order")
    def order(self: Task, fails: bool) -> None:
        airlock.enqueue(print, fails)
        if fails:
            raise ValueError("no")

    run = Run(way, list)
    run(order, True)
    run(order, False)

    assert ran == [(True,), (False,)]
    assert [intent.args for intent in sent] == [(False,)]


def test_the_run_of_a_class_is_the_function_that_was_written(app: Celery) -> None:
    def run(self: Task, number: int) -> None:
        """Order."""

    order = type("Order", (AirlockTask,), {"name": "shop.order", "run": run})

    assert order.run is run
    assert order().run.__doc__ == "Order."


@pytest.mark.parametrize("task_cls", [AirlockTask, "airlock.integrations.celery:AirlockTask"], ids=["class", "path"])
def test_a_whole_app_can_have_it(
    make_app: Callable[..., Celery], work_off: Callable[[], list[str]], task_cls: Any
) -> None:
    app = make_app(task_cls=task_cls)
    seen = []

    @app.task
    def order() -> None:
        seen.append(airlock.get_current_scope())

    order()

    assert isinstance(order, AirlockTask)
    assert isinstance(app.tasks["celery.chord_unlock"], AirlockTask)
    assert isinstance(seen[0], airlock.Scope)


@pytest.fixture
def airlock_app(make_app: Callable[..., Celery]) -> Celery:
    """The current app, of which all tasks are an `AirlockTask`, Celery's own included."""
    app = make_app(task_cls=AirlockTask)
    app.set_current()
    app.set_default()
    return app


class TestWholeApp:
    """In an app all of whose tasks are an `AirlockTask`, Celery's own do what they are for."""

    @pytest.fixture
    def app(self, airlock_app: Celery) -> Celery:
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
    def test_every_canvas_works(
        self,
        app: Celery,
        work_off: Callable[[], list[str]],
        notify: Task,
        notified: Notified,
        make: Any,
        expected: object,
        effects: list[int],
    ) -> None:
        @app.task
        def add(x: int, y: int = 0) -> int:
            airlock.enqueue(notify, x + y)
            return x + y

        @app.task
        def total(numbers: list[int]) -> int:
            airlock.enqueue(notify, sum(numbers))
            return sum(numbers)

        result = make(add, total).delay()
        work_off()

        assert result.get(timeout=5) == expected
        assert sorted(notified()) == effects

    def test_a_group_can_replace_a_task(self, app: Celery, work_off: Callable[[], list[str]]) -> None:
        @app.task
        def add(x: int, y: int) -> int:
            return x + y

        @app.task(bind=True)
        def order(self: Task) -> None:
            self.replace(group(add.s(1, 2), add.s(3, 4)))

        result = order.delay()
        work_off()

        assert result.get(timeout=5) == [3, 7]


def test_in_an_eager_app_follow_ups_run_after_the_body_as_tasks_of_their_own(make_app: Callable[..., Celery]) -> None:
    app = make_app({"task_always_eager": True})
    heard = []

    @app.task(bind=True)
    def notify(self: Task) -> None:
        heard.append(("notify", self.request.id, self.request.called_directly))

    @app.task(base=AirlockTask)
    def order() -> None:
        heard.append(airlock.enqueue(notify).id)
        heard.append("end of the body")

    order.delay()

    assert heard == [heard[0], "end of the body", ("notify", heard[0], False)]
