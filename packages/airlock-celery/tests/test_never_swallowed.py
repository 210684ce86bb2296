"""What Celery itself publishes is published: in workers, in scopes that fail, and whoever wraps `apply_async`.

Everything here happens inside a scope that fails: whatever that takes for a call of user code is lost with it.
"""

from __future__ import annotations

import functools
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, Task, chain, chord, group
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import schedule
from celery.signals import before_task_publish

import airlock
from airlock.integrations.celery import LegacyTaskShim, install_global_intercept
from airlock.integrations.executors.celery import celery_executor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from celery.result import AsyncResult

    from conftest import Waiting


def wrapper_around(original: Any) -> Any:
    """As instrumentations (Sentry, for one) wrap `Task.apply_async`."""

    @functools.wraps(original)
    def instrumented(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    return instrumented


class ObjectAround:
    """A wrapper that is an object, and passes for what it wraps: as `wrapt.FunctionWrapper` does."""

    def __init__(self, wrapped: Any) -> None:
        self.__wrapped__ = wrapped

    def __get__(self, task: Any, task_cls: Any = None) -> Any:
        return self if task is None else functools.partial(self, task)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)


@pytest.fixture(
    params=[
        "shim",
        "shim, overridden",
        "intercept",
        "intercept, wrapped before",
        "intercept, wrapped after",
        "intercept, wrapped after by an object",
        "intercept, overridden",
        "intercept and shim, wrapped before, wrapped after, overridden",
    ]
)
def task_cls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Task]:
    """The class of all tasks, Celery's own included, with each way to route old calls through airlock in turn.

    And with what else there may be around `apply_async`, whoever was first.
    """
    if "wrapped before" in request.param:
        monkeypatch.setattr(Task, "apply_async", wrapper_around(Task.apply_async))
    if "intercept" in request.param:
        install_global_intercept()
    if "wrapped after" in request.param:
        wrapper = ObjectAround if "by an object" in request.param else wrapper_around
        monkeypatch.setattr(Task, "apply_async", wrapper(Task.apply_async))
    base = LegacyTaskShim if "shim" in request.param else Task
    if "overridden" not in request.param:
        return base

    class Overriding(base):
        abstract = True

        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            return super().apply_async(args, kwargs, **options)

        def retry(self, *args: Any, **kwargs: Any) -> Any:
            return super().retry(*args, **kwargs)

        def on_replace(self, sig: Any) -> Any:
            return super().on_replace(sig)

    return Overriding


@pytest.fixture
def result_backend() -> str:
    return "cache+memory://"


@pytest.fixture
def app(make_app: Callable[..., Celery], task_cls: type[Task], result_backend: str) -> Celery:
    app = make_app({"result_backend": result_backend}, task_cls=task_cls)
    app.set_current()
    app.set_default()
    return app


class NeverMindError(Exception):
    pass


@contextmanager
def failing_scope() -> Iterator[airlock.Scope]:
    """A scope that fails, and in which nothing was enqueued."""
    with pytest.raises(NeverMindError), airlock.scope(executor=celery_executor) as scope:
        yield scope
        assert [intent.name for intent in scope.intents] == []
        raise NeverMindError


@pytest.fixture
def work_off_in_a_failing_scope(work_off: Callable[[], list[str]]) -> Callable[[], list[str]]:
    def run_all() -> list[str]:
        with warnings.catch_warnings(), failing_scope():
            warnings.simplefilter("error", DeprecationWarning)
            return work_off()

    return run_all


@pytest.fixture
def add(app: Celery) -> Task:
    @app.task
    def add(x: int = 0, y: int = 0) -> int:
        return x + y

    return add


@pytest.fixture
def total(app: Celery) -> Task:
    @app.task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    return total


@pytest.mark.parametrize("how", ["raise", "return", "throw=False", "autoretry"])
def test_retries(app: Celery, work_off_in_a_failing_scope: Callable[[], list[str]], how: str) -> None:
    @app.task(bind=True, autoretry_for=(LookupError,), default_retry_delay=0)
    def order(self: Task) -> int:
        if self.request.retries < 2:
            if how == "autoretry":
                raise LookupError
            if how == "raise":
                raise self.retry(countdown=0)
            if how == "return":
                return self.retry((), {}, countdown=0)
            self.retry(countdown=0, throw=False)
        return self.request.retries

    result = order.delay()
    states = work_off_in_a_failing_scope()

    assert len(states) == 3
    if how != "throw=False":  # of which every attempt counts as a success
        assert result.get(timeout=5) == 2


@pytest.mark.parametrize(
    ("replacement", "result"),
    [
        (lambda add, total: add.s(1, 2), 3),
        (lambda add, total: add.s(1, 2) | add.s(3), 6),
        (lambda add, total: group(add.s(1, 2), add.s(3, 4)) | total.s(), 10),
    ],
    ids=["task", "chain", "chord"],
)
def test_replacements(
    app: Celery,
    add: Task,
    total: Task,
    work_off_in_a_failing_scope: Callable[[], list[str]],
    replacement: Callable[[Task, Task], Any],
    result: object,
) -> None:
    @app.task(bind=True)
    def order(self: Task) -> None:
        return self.replace(replacement(add, total))

    promised = order.delay()
    work_off_in_a_failing_scope()

    assert promised.get(timeout=5) == result


@pytest.mark.parametrize(
    ("start", "result"),
    [
        (lambda add, total: (add.s(1) | add.s(2) | add.s(3)).delay(), 6),
        (lambda add, total: chain(add.s(1), group(add.s(2) | add.s(1), add.s(3)), total.s(), add.s(1)).delay(), 9),
        (lambda add, total: add.map([1, 2]).delay(), [1, 2]),
    ],
    ids=["chain", "chord in a chain", "map"],
)
def test_next_steps_and_callbacks(
    add: Task,
    total: Task,
    work_off_in_a_failing_scope: Callable[[], list[str]],
    start: Callable[[Task, Task], AsyncResult],
    result: object,
) -> None:
    promised = start(add, total)
    work_off_in_a_failing_scope()

    assert promised.get(timeout=5) == result


class TestChordsWithoutNativeJoins:
    """With most result back ends, a task of Celery's own waits for the header of a chord."""

    @pytest.fixture
    def result_backend(self, tmp_path: Path) -> str:
        return tmp_path.as_uri()

    @pytest.mark.parametrize("how", ["replace", "next step"])
    def test_chords(
        self, app: Celery, add: Task, total: Task, work_off_in_a_failing_scope: Callable[[], list[str]], how: str
    ) -> None:
        @app.task(bind=True)
        def order(self: Task) -> None:
            return self.replace(chord([add.s(1, 2), add.s(3, 4)], total.s()))

        if how == "next step":
            promised = (add.si() | chord([add.si(1, 2), add.si(3, 4)], total.s())).delay()
        else:
            promised = order.delay()
        work_off_in_a_failing_scope()

        assert promised.get(timeout=5) == 10


@pytest.mark.parametrize("several", [False, True])
def test_links(add: Task, work_off_in_a_failing_scope: Callable[[], list[str]], several: bool) -> None:
    linked = [add.s(10).set(task_id="linked")]
    if several:
        linked += [add.s(20), group(add.s(30), add.s(40))]

    add.apply_async((1,), link=linked)
    states = work_off_in_a_failing_scope()

    assert states == ["SUCCESS"] * (5 if several else 2)


def test_links_of_failures(app: Celery, work_off_in_a_failing_scope: Callable[[], list[str]]) -> None:
    told = []

    @app.task
    def note(task_id: str) -> None:
        told.append(task_id)

    @app.task
    def order() -> None:
        raise ValueError("no")

    promised = order.apply_async(link_error=note.s())
    states = work_off_in_a_failing_scope()

    assert states[0] == "FAILURE"
    assert told == [promised.id]


def test_a_failure_in_a_chord_reaches_its_body(
    app: Celery, total: Task, work_off_in_a_failing_scope: Callable[[], list[str]]
) -> None:
    told = []

    @app.task
    def note(task_id: str) -> None:
        told.append(task_id)

    @app.task
    def order() -> None:
        raise ValueError("no")

    promised = chord([order.s()], total.s().on_error(note.s())).delay()
    work_off_in_a_failing_scope()

    assert told == [promised.id]


@pytest.mark.parametrize("registered", [True, False], ids=["registered task", "task of another process"])
def test_what_beat_sends(app: Celery, waiting: Waiting, add: Task, registered: bool) -> None:
    scheduler = Scheduler(app, lazy=True)
    entry = ScheduleEntry(
        name="every now and then",
        task=add.name if registered else "elsewhere.add",
        schedule=schedule(1, app=app),
        args=(1,),
        options={"priority": 3},
        app=app,
    )

    with failing_scope():
        scheduler.apply_async(entry)
        scheduler.apply_entry(entry)

    assert waiting.calls() == [("add", [1])] * 2


def test_what_airlock_dispatches(waiting: Waiting, add: Task, total: Task) -> None:
    intents = []
    with pytest.raises(NeverMindError), airlock.scope(executor=celery_executor) as scope:
        for task in (add, add.name, add.s(), add.s() | add.s(2), group(add.s()), chord([add.s()], total.s())):
            airlock.enqueue(task)
        intents = scope.intents
        raise NeverMindError

    with failing_scope():
        for intent in intents:
            celery_executor(intent)

    assert [name for name, _ in waiting.calls()] == ["add"] * 6


def test_what_is_dispatched_while_another_scope_is_open(waiting: Waiting, add: Task) -> None:
    class LettingThrough(airlock.Scope):
        def before_descendant_flushes(
            self, exiting_scope: airlock.Scope, intents: list[airlock.Intent]
        ) -> list[airlock.Intent]:
            return intents

    with pytest.raises(NeverMindError), airlock.scope(_cls=LettingThrough):
        with airlock.scope(executor=celery_executor):
            airlock.enqueue(add, 1)
        raise NeverMindError

    assert waiting.calls() == [("add", [1])]


def test_what_send_task_sends(app: Celery, waiting: Waiting, add: Task) -> None:
    with failing_scope():
        app.send_task(add.name, (1,))

    assert waiting.calls() == [("add", [1])]


def test_handlers_of_publishing_that_send_do_so_in_the_scope(waiting: Waiting, add: Task, total: Task) -> None:
    # The other way round: what a handler of the user's sends is the user's, although Celery has called the handler.
    sent = []

    def audit(sender: str, **_: Any) -> None:
        if sender == add.name and not sent:
            sent.append(total.delay([1]))

    before_task_publish.connect(audit)
    with warnings.catch_warnings(), airlock.scope(executor=celery_executor) as scope:
        warnings.simplefilter("ignore", DeprecationWarning)
        celery_executor(airlock.enqueue(add, 1))
        assert [intent.name for intent in scope.intents] == ["add", "total"]
    before_task_publish.disconnect(audit)

    assert [name for name, _ in waiting.calls()] == ["add", "add", "total"]
