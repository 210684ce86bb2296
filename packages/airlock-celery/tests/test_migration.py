"""Old calls of `.delay()` and `.apply_async()` go through airlock, and say where they are."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, Task, chain, chord, group, signature
from celery.canvas import Signature, _chain, _chord, chunks, xmap
from celery.exceptions import Ignore
from celery.result import AsyncResult

import airlock
from airlock.integrations.celery import (
    AirlockTask,
    LegacyTaskShim,
    install_global_intercept,
    uninstall_global_intercept,
)
from airlock.integrations.executors.celery import celery_executor

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Waiting

Notified = "Callable[[], list[Any]]"

# The warning is for the tests that are about it.
pytestmark = pytest.mark.filterwarnings("ignore:.*in a scope, and is enqueued instead:DeprecationWarning")


@pytest.fixture(params=["shim", "intercept", "intercept for one app", "both"])
def base(request: pytest.FixtureRequest, app: Celery) -> type[Task]:
    """The base class of tasks whose old calls go through airlock: each way to get there in turn."""
    if request.param != "shim":
        install_global_intercept(app if request.param == "intercept for one app" else None)
    return Task if request.param.startswith("intercept") else LegacyTaskShim


@pytest.fixture
def add(app: Celery, base: type[Task]) -> Task:
    @app.task(base=base)
    def add(x: int, y: int = 0) -> int:
        return x + y

    return add


@pytest.fixture
def intercepted_add(app: Celery) -> Task:
    """A task of no particular class, while the intercept is installed."""
    install_global_intercept()

    @app.task
    def add(x: int = 0, y: int = 0) -> int:
        return x + y

    return add


CALLS: dict[str, Callable[[Task], AsyncResult]] = {
    "delay": lambda task: task.delay(1, y=2),
    "apply_async": lambda task: task.apply_async((1,), {"y": 2}),
    "apply_async by name": lambda task: task.apply_async(kwargs={"y": 2}, args=[1]),
    "signature.delay": lambda task: task.s(1).delay(y=2),
    "signature.apply_async": lambda task: task.s(1).apply_async(kwargs={"y": 2}),
    "immutable signature": lambda task: task.si(1, y=2).delay(),
    "map": lambda task: next(iter(map(functools.partial(task.delay, y=2), [1]))),
}


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> Callable[[Task], AsyncResult]:
    """Each way to call a task in turn."""
    return CALLS[request.param]


# In a scope, and elsewhere


def test_a_call_in_a_scope_is_enqueued(waiting: Waiting, add: Task, call: Callable[[Task], AsyncResult]) -> None:
    with airlock.scope(executor=celery_executor) as scope:
        result = call(add)
        assert waiting.take() == []
        (intent,) = scope.intents

    (message,) = waiting.take()
    assert message.headers["task"] == add.name
    assert message.payload[:2] == [[1], {"y": 2}]
    assert isinstance(result, AsyncResult)
    assert result.id == intent.id == message.headers["id"]


def test_a_call_in_a_scope_that_fails_has_no_effect(
    waiting: Waiting, add: Task, call: Callable[[Task], AsyncResult]
) -> None:
    with pytest.raises(ValueError, match="no"), airlock.scope(executor=celery_executor):
        call(add)
        raise ValueError("no")

    assert waiting.take() == []


def test_a_call_outside_of_any_scope_is_what_it_was(
    waiting: Waiting, add: Task, call: Callable[[Task], AsyncResult]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = call(add)

    (message,) = waiting.take()
    assert message.payload[:2] == [[1], {"y": 2}]
    assert message.headers["id"] == result.id


def test_a_call_in_a_scope_that_has_ended_is_what_it_was(waiting: Waiting, add: Task) -> None:
    with airlock.scope(executor=celery_executor):
        later = contextvars.copy_context()

    later.run(add.delay, 1)

    assert waiting.calls() == [("add", [1])]


def test_calls_and_enqueue_keep_their_order(waiting: Waiting, add: Task) -> None:
    with airlock.scope(executor=celery_executor):
        add.delay(1)
        airlock.enqueue(add, 2)
        add.delay(3)

    assert waiting.calls() == [("add", [1]), ("add", [2]), ("add", [3])]


def test_policies_judge_a_call(waiting: Waiting, add: Task) -> None:
    with airlock.scope(airlock.BlockTasks({"add"}), executor=celery_executor):
        add.delay(1)
    assert waiting.take() == []

    with airlock.scope(airlock.AssertNoEffects(), executor=celery_executor), pytest.raises(airlock.PolicyViolation):
        add.delay(1)


def test_a_policy_cannot_call(waiting: Waiting, add: Task) -> None:
    class Meddling(airlock.AllowAll):
        def allows(self, intent: airlock.Intent) -> bool:
            add.delay(2)
            return True

    with pytest.raises(airlock.PolicyEnqueueError), airlock.scope(Meddling(), executor=celery_executor):
        airlock.enqueue(add, 1)

    assert waiting.take() == []


def test_wrong_arguments_fail_where_they_are_given(waiting: Waiting, add: Task) -> None:
    with airlock.scope(executor=celery_executor) as scope:
        with pytest.raises(TypeError, match="add"):
            add.delay(1, 2, 3)
        assert scope.intents == []


def test_arguments_of_a_task_without_typing_are_not_checked(app: Celery, waiting: Waiting, base: type[Task]) -> None:
    @app.task(base=base, typing=False)
    def lenient() -> None: ...

    with airlock.scope(executor=celery_executor):
        lenient.delay(1, 2, 3)

    assert waiting.calls() == [("lenient", [1, 2, 3])]


def test_a_task_of_a_class_can_be_called(app: Celery, waiting: Waiting, base: type[Task]) -> None:
    class Order(base):
        name = "shop.order"

        def run(self, number: int) -> None: ...

    order = app.register_task(Order())

    with airlock.scope(executor=celery_executor):
        order.delay(1)
        assert waiting.take() == []

    assert waiting.calls() == [("order", [1])]


def test_without_a_celery_executor_the_task_is_called_in_place(app: Celery, waiting: Waiting, base: type[Task]) -> None:
    called = []

    @app.task(base=base)
    def note(x: int) -> None:
        called.append(x)

    with airlock.scope():
        note.delay(1)
        assert called == []

    assert called == [1]
    assert waiting.take() == []


# Options


def test_options_are_kept(waiting: Waiting, add: Task) -> None:
    with airlock.scope(executor=celery_executor) as scope:
        result = add.apply_async((1,), None, "my-id", priority=3, queue="emails", link=add.s(5), countdown=60)
        (intent,) = scope.intents

    assert intent.dispatch_options == {
        "task_id": "my-id",
        "priority": 3,
        "queue": "emails",
        "link": add.s(5),
        "countdown": 60,
    }
    (message,) = waiting.take("emails")
    assert result.id == message.headers["id"] == "my-id"
    assert message.headers["eta"] is not None
    assert message.properties["priority"] == 3
    assert [link["args"] for link in message.payload[2]["callbacks"]] == [[5]]


def test_an_option_that_is_none_overrides_the_task_as_before(app: Celery, waiting: Waiting, base: type[Task]) -> None:
    @app.task(base=base, expires=60)
    def urgent() -> None: ...

    urgent.apply_async(expires=None)
    with airlock.scope(executor=celery_executor):
        urgent.apply_async(expires=None)
        urgent.apply_async()

    assert [message.headers["expires"] is None for message in waiting.take()] == [True, True, False]


def test_the_connection_of_the_moment_is_not_kept(app: Celery, waiting: Waiting, add: Task) -> None:
    with airlock.scope(executor=celery_executor) as scope:
        with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
            add.apply_async((1,), connection=connection)
            add.apply_async((2,), producer=producer)
        assert [dict(intent.dispatch_options) for intent in scope.intents] == [{}, {}]

    assert waiting.calls() == [("add", [1]), ("add", [2])]


def test_what_the_caller_does_to_a_signature_later_changes_nothing(waiting: Waiting, intercepted_add: Task) -> None:
    with airlock.scope(executor=celery_executor):
        single = intercepted_add.s(1)
        several = intercepted_add.s(2) | intercepted_add.s(3)
        single.delay()
        several.delay()
        single.args = (7,)
        several.tasks[0].args = (7,)

    assert waiting.calls() == [("add", [1]), ("add", [2])]


# The warning


#: Each in a line of its own, which is where the warning belongs.
CANVASES: dict[str, Callable[[Task], Any]] = {
    "partial": lambda task: functools.partial(task.delay, 1)(),
    "chain.delay": lambda task: (task.s(1) | task.s(1)).delay(),
    "chain()": lambda task: chain(task.s(1), task.s(1))(),
    "group()": lambda task: group(task.s(1), task.s(1))(),
    "chord()": lambda task: chord([task.s(1)])(task.s()),
    "chunks()": lambda task: task.chunks([(1,)], 1)(),
    "map": lambda task: task.map([1]).apply_async(),
}


def places(*callers: Any) -> list[tuple[str, int]]:
    """Where functions of one line are."""
    return [(caller.__code__.co_filename, caller.__code__.co_firstlineno) for caller in callers]


def places_of(caught: list[warnings.WarningMessage]) -> list[tuple[str, int]]:
    return [(warning.filename, warning.lineno) for warning in caught]


@pytest.mark.parametrize("style", [*CALLS, *CANVASES])
def test_the_warning_and_the_origin_are_at_the_line_of_the_caller(intercepted_add: Task, style: str) -> None:
    caller = {**CALLS, **CANVASES}[style]
    with warnings.catch_warnings(record=True) as caught, airlock.scope(executor=lambda intent: None) as scope:
        warnings.simplefilter("always")
        caller(intercepted_add)
        (intent,) = scope.intents

    assert places_of(caught) == places(caller)
    assert caught[0].category is DeprecationWarning
    named = "signature" if isinstance(intent.task, Signature) else "add"
    assert f"airlock.enqueue({named}, ...)" in str(caught[0].message)
    assert intent.origin == "{}:{}".format(*places(caller)[0])


def test_the_warning_is_at_the_line_of_the_caller_of_a_shim(add: Task, call: Callable[[Task], AsyncResult]) -> None:
    with warnings.catch_warnings(record=True) as caught, airlock.scope(executor=lambda intent: None):
        warnings.simplefilter("always")
        call(add)

    assert places_of(caught) == places(call)


def test_a_line_warns_once_by_default(add: Task) -> None:
    with warnings.catch_warnings(record=True) as caught, airlock.scope(executor=lambda intent: None) as scope:
        warnings.simplefilter("default")
        for number in range(3):
            add.delay(number)
        assert len(scope.intents) == 3

    assert len(caught) == 1


def test_warnings_can_be_filtered_by_the_module_of_the_caller(add: Task) -> None:
    with warnings.catch_warnings(), airlock.scope(executor=lambda intent: None):
        warnings.filterwarnings("error", module=__name__.replace(".", r"\."))
        with pytest.raises(DeprecationWarning):
            add.delay(1)


def test_a_warning_that_is_an_error_leaves_nothing_behind(add: Task) -> None:
    with warnings.catch_warnings(), airlock.scope(executor=celery_executor) as scope:
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning):
            add.delay(1)
        assert scope.intents == []


# Wrappers and overrides


@pytest.fixture(params=["with functools.wraps", "without"])
def wrap(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """A wrapper around `Task.apply_async`, as instrumentations install it."""

    def wrapper_of(original: Any) -> Any:
        def instrumented(*args: Any, **kwargs: Any) -> Any:
            instrumented.calls += 1
            return original(*args, **kwargs)

        instrumented.calls = 0
        if request.param == "without":
            return instrumented
        return functools.wraps(original, updated=())(instrumented)

    return wrapper_of


def test_a_wrapper_that_was_there_before_runs_at_dispatch(
    app: Celery, waiting: Waiting, monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Any], Any]
) -> None:
    wrapper = wrap(Task.apply_async)
    monkeypatch.setattr(Task, "apply_async", wrapper)
    install_global_intercept()

    @app.task
    def add(x: int, y: int = 0) -> None: ...

    callers = [CALLS["delay"], CALLS["apply_async"]]
    with warnings.catch_warnings(record=True) as caught, airlock.scope(executor=celery_executor):
        warnings.simplefilter("always")
        for caller in callers:
            caller(add)
        assert wrapper.calls == 0

    assert wrapper.calls == 2
    assert [name for name, _ in waiting.calls()] == ["add", "add"]
    assert places_of(caught) == places(*callers)
    uninstall_global_intercept()
    assert Task.apply_async is wrapper


def test_a_wrapper_that_was_put_over_it_later_hides_neither_call_nor_caller(
    app: Celery, waiting: Waiting, monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Any], Any]
) -> None:
    install_global_intercept()
    wrapper = wrap(Task.apply_async)
    monkeypatch.setattr(Task, "apply_async", wrapper)

    @app.task
    def add(x: int, y: int = 0) -> None: ...

    with warnings.catch_warnings(record=True) as caught, airlock.scope(executor=celery_executor):
        warnings.simplefilter("always")
        CALLS["delay"](add)
        assert waiting.take() == []
    assert waiting.calls() == [("add", [1])]
    assert places_of(caught) == places(CALLS["delay"])

    with airlock.scope(executor=celery_executor):
        add.apply_async((2,))
        assert waiting.take() == []
    assert waiting.calls() == [("add", [2])]

    uninstall_global_intercept()
    assert Task.apply_async is wrapper
    with airlock.scope(executor=celery_executor):
        add.delay(3)
        assert waiting.calls() == [("add", [3])]


class AlreadyQueuedError(Exception):
    """As of a task that can only be queued once."""


def overriding(base: type[Task], calls: list[Any]) -> type[Task]:
    """A class of tasks with an `apply_async` that must run once for each call, as projects and extensions have it."""

    class Tenant(base):  # type: ignore[misc, valid-type]
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            if args in calls:
                raise AlreadyQueuedError
            calls.append(args)
            return super().apply_async(("tenant", *(args or ())), kwargs, **{**options, "priority": 4})

    return Tenant


@pytest.mark.parametrize(
    "call",
    [lambda task: task.delay(1), lambda task: task.apply_async((1,)), lambda task: task.s(1).delay()],
    ids=["delay", "apply_async", "signature"],
)
def test_an_override_of_apply_async_runs_once(
    app: Celery, waiting: Waiting, base: type[Task], call: Callable[[Task], AsyncResult]
) -> None:
    calls: list[Any] = []

    @app.task(base=overriding(base, calls))
    def order(*args: Any) -> None: ...

    with airlock.scope(executor=celery_executor) as scope:
        result = call(order)
        assert waiting.take() == []
        (intent,) = scope.intents
        assert intent.name == "order"
        assert intent.full_name == order.name
        assert order.name in repr(intent)

    (message,) = waiting.take()
    assert message.payload[0] == ["tenant", 1]
    assert message.properties["priority"] == 4
    assert message.headers["id"] == intent.id == result.id
    assert calls == [(1,)]


def test_an_override_of_apply_async_runs_at_dispatch_of_what_is_enqueued(
    app: Celery, waiting: Waiting, base: type[Task]
) -> None:
    calls: list[Any] = []

    @app.task(base=overriding(base, calls))
    def order(*args: Any) -> None: ...

    with airlock.scope(executor=celery_executor):
        airlock.enqueue(order, 1)
        assert calls == []

    assert waiting.calls() == [("order", ["tenant", 1])]


def test_what_an_override_gave_is_what_a_call_in_place_gets(app: Celery, base: type[Task]) -> None:
    received = []

    @app.task(base=overriding(base, []))
    def order(*args: Any) -> None:
        received.append(args)

    with airlock.scope():
        order.delay(1)

    assert received == [("tenant", 1)]


def test_wrong_arguments_from_an_override_fail_where_they_are_given(app: Celery, base: type[Task]) -> None:
    @app.task(base=overriding(base, []))
    def order(tenant: str) -> None: ...

    with airlock.scope(executor=celery_executor) as scope:
        with pytest.raises(TypeError, match="order"):
            order.delay(1)
        assert scope.intents == []


def test_what_an_override_calls_besides_is_enqueued_too(app: Celery, waiting: Waiting, base: type[Task]) -> None:
    class Audited(base):
        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            audit.delay(self.name)
            return super().apply_async(*args, **kwargs)

    @app.task(base=base)
    def audit(name: str) -> None: ...

    @app.task(base=Audited)
    def order() -> None: ...

    with airlock.scope(executor=celery_executor):
        order.delay()
        assert waiting.take() == []

    assert waiting.calls() == [("audit", [order.name]), ("order", [])]


# The global intercept


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (lambda add: (add.s(1) | add.s(2)).delay(), 3),
        (lambda add: chain(add.s(1), add.s(2))(), 3),
        (lambda add: chain(add.s(), add.s(2)).apply_async((1,)), 3),
        (lambda add: chord([add.s(1), add.s(2)])(add.app.tasks["total"].s()), 3),
        (lambda add: add.map([1, 2]).delay(), [1, 2]),
        (lambda add: add.starmap([(1, 2)]).apply_async(), [3]),
        (lambda add: (group(add.s(1), add.s(2)) | add.app.tasks["total"].s())(), 3),
    ],
    ids=["chain.delay", "chain()", "chain.apply_async", "chord()", "map", "starmap", "group | task"],
)
def test_every_canvas_is_enqueued_and_runs(
    app: Celery,
    waiting: Waiting,
    intercepted_add: Task,
    work_off: Callable[[], list[str]],
    call: Callable[[Task], AsyncResult],
    result: object,
) -> None:
    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    with airlock.scope(executor=celery_executor) as scope:
        promised = call(intercepted_add)
        assert waiting.take() == []
        (intent,) = scope.intents

    assert promised.id == intent.id
    work_off()
    assert promised.get(timeout=5) == result


@pytest.mark.parametrize(
    "call",
    [
        lambda add: group(add.s(1), add.s(2)).delay(),
        lambda add: group(add.s(), add.s())(1),
        lambda add: group(add.s(number) for number in (1, 2)).apply_async(),
        lambda add: add.chunks([(1,), (2,)], 1).delay(),
        lambda add: add.chunks([(1,), (2,)], 1)(),
    ],
    ids=["group.delay", "group()", "group of a generator", "chunks.delay", "chunks()"],
)
def test_every_group_is_enqueued_and_runs(
    waiting: Waiting, intercepted_add: Task, work_off: Callable[[], list[str]], call: Callable[[Task], AsyncResult]
) -> None:
    with airlock.scope(executor=celery_executor) as scope:
        call(intercepted_add)
        assert waiting.take() == []
        assert len(scope.intents) == 1

    assert work_off() == ["SUCCESS"] * 2


@pytest.mark.parametrize("kind", ["map", "starmap", "chunks"])
def test_maps_and_chunks_are_sent_as_they_are_without_airlock(app: Celery, waiting: Waiting, kind: str) -> None:
    @app.task
    def add(x: int, y: int = 0) -> None: ...

    app.conf.task_routes = {add.name: "sums"}

    def call() -> None:
        pairs = ((number, number) for number in range(4))
        make = {
            "map": lambda: add.map(pairs),
            "starmap": lambda: add.starmap(pairs),
            "chunks": lambda: add.chunks(pairs, 2),
        }
        make[kind]().apply_async(priority=3)

    def sent() -> list[tuple[Any, ...]]:
        return [
            (queue, message.headers["task"], message.payload[1], message.properties["priority"])
            for queue in ("sums", None)
            for message in waiting.take(queue)
        ]

    call()
    expected = sent()
    install_global_intercept()
    with airlock.scope(executor=celery_executor):
        call()
        assert sent() == []

    assert len(expected) == (2 if kind == "chunks" else 1)
    assert sent() == expected


def test_a_signature_of_an_unregistered_name_is_enqueued(app: Celery, waiting: Waiting) -> None:
    install_global_intercept(app)

    with airlock.scope(executor=celery_executor):
        signature("elsewhere.ship", args=(1,)).delay()
        assert waiting.take() == []

    assert waiting.calls() == [("ship", [1])]


def test_an_eager_app_runs_a_call_at_the_end_of_the_scope(make_app: Callable[..., Celery]) -> None:
    app = make_app({"task_always_eager": True})
    ran = []

    @app.task(bind=True)
    def note(self: Task, x: int) -> None:
        ran.append((x, self.request.id))

    install_global_intercept()
    with airlock.scope(executor=celery_executor):
        result = note.delay(1)
        assert ran == []

    assert ran == [(1, result.id)]


def test_only_the_tasks_of_the_given_app_are_touched(
    app: Celery, make_app: Callable[..., Celery], waiting: Waiting
) -> None:
    other = make_app()

    @other.task
    def elsewhere() -> None:
        scopes.append(airlock.get_current_scope())

    @app.task
    def here() -> None:
        scopes.append(airlock.get_current_scope())

    scopes: list[Any] = []
    install_global_intercept(app)
    with airlock.scope(executor=celery_executor):
        elsewhere.delay()
        elsewhere.s().delay()
        (elsewhere.s() | elsewhere.s()).delay()
        assert len(waiting.take(other.conf.task_default_queue)) == 3
        here.delay()
        assert waiting.take() == []

    elsewhere.apply()
    here.apply()
    assert scopes[0] is None
    assert isinstance(scopes[1], airlock.Scope)


def test_installing_again_replaces_what_was_installed(
    app: Celery, make_app: Callable[..., Celery], waiting: Waiting
) -> None:
    @app.task
    def add(x: int) -> None: ...

    install_global_intercept(make_app())
    install_global_intercept(app, wrap_task_execution=False)
    with airlock.scope(executor=celery_executor) as scope:
        add.delay(1)
        assert len(scope.intents) == 1
    assert waiting.calls() == [("add", [1])]

    install_global_intercept(make_app())
    with airlock.scope(executor=celery_executor):
        add.delay(2)
        assert waiting.calls() == [("add", [2])]


def everything_of(*objects: Any) -> list[dict[str, Any]]:
    return [dict(vars(each)) for each in objects]


@pytest.mark.parametrize("one_app", [False, True])
def test_uninstalling_restores_everything(app: Celery, one_app: bool) -> None:
    class Own(Task):
        name = "own"
        autoretry_for = (ValueError,)

        def run(self) -> None: ...

    @app.task
    def plain() -> None: ...

    @app.task(autoretry_for=(ValueError,))
    def again() -> None: ...

    own = app.register_task(Own())
    app.finalize()
    touched: list[Any] = [Task, Signature, _chain, _chord, group, chunks, chain, xmap, xmap.__mro__[1]]
    for task in (plain, again, own):
        instance = app.tasks[task.name]
        touched += [instance, type(instance)]
    before = everything_of(*touched)

    install_global_intercept(app if one_app else None)
    assert everything_of(*touched) != before
    uninstall_global_intercept()

    assert everything_of(*touched) == before


@pytest.mark.parametrize("later", [False, True], ids=["registered before", "registered while installed"])
def test_after_uninstalling_tasks_run_without_a_scope(app: Celery, later: bool) -> None:
    scopes = []

    def register() -> Task:
        @app.task(autoretry_for=(ValueError,))
        def order() -> None:
            scopes.append(airlock.get_current_scope())

        app.finalize()
        return order

    order = None if later else register()
    install_global_intercept()
    order = order or register()
    order()
    uninstall_global_intercept()
    order()

    assert isinstance(scopes[0], airlock.Scope)
    assert scopes[1] is None


def test_uninstalling_what_is_not_installed_does_nothing() -> None:
    before = everything_of(Task, Signature)

    uninstall_global_intercept()

    assert everything_of(Task, Signature) == before


# Scopes around the runs of tasks


class Plain(Task):
    """A task of a class of its own."""

    name = "plain"
    default_retry_delay = 0
    body: Any

    def run(self, *args: Any) -> Any:
        return self.body(*args)


class PlainWithAutoretry(Plain):
    """The same with automatic retries, which `register_task` adds before it binds the task."""

    name = "plain_with_autoretry"
    autoretry_for = (LookupError,)
    max_retries = 1


def plain_function(app: Celery, body: Any) -> Task:
    @app.task(name="plain", default_retry_delay=0)
    def plain(*args: Any) -> Any:
        return body(*args)

    return plain


def autoretrying_function(app: Celery, body: Any) -> Task:
    @app.task(name="plain", autoretry_for=(LookupError,), max_retries=1, default_retry_delay=0)
    def plain(*args: Any) -> Any:
        return body(*args)

    return plain


def plain_class(app: Celery, body: Any, cls: type[Plain] = Plain) -> Task:
    task = cls()
    task.body = body
    return app.register_task(task)


MAKE = {
    "function": plain_function,
    "function with autoretry": autoretrying_function,
    "class": plain_class,
    "class with autoretry": functools.partial(plain_class, cls=PlainWithAutoretry),
}


@pytest.fixture(params=["registered before", "registered while installed"])
def later(request: pytest.FixtureRequest) -> bool:
    return request.param == "registered while installed"


@pytest.fixture(params=MAKE)
def intercepted(request: pytest.FixtureRequest, app: Celery, later: bool) -> Callable[[Any], Task]:
    """A function that makes a plain task of a body, while the intercept is installed, or just before."""
    body_of: list[Any] = []
    task = None if later else MAKE[request.param](app, lambda *args: body_of[0](*args))
    app.finalize()
    install_global_intercept()
    task = task or MAKE[request.param](app, lambda *args: body_of[0](*args))

    def make(body: Any) -> Task:
        body_of.append(body)
        return task

    return make


@pytest.mark.parametrize("run", ["call", "apply", "worker"])
def test_what_the_run_of_a_plain_task_calls_waits_for_its_success(
    intercepted: Callable[[Any], Task],
    work_off: Callable[[], list[str]],
    notify: Task,
    notified: Notified,
    run: str,
) -> None:
    during = []

    def body(fails: bool) -> None:
        notify.delay("first")
        airlock.enqueue(notify, "second")
        during.extend(notified())
        if fails:
            raise ValueError("no")

    task = intercepted(body)

    def run_once(fails: bool) -> None:
        if run == "call" and fails:
            with pytest.raises(ValueError, match="no"):
                task(fails)
        elif run == "call":
            task(fails)
        elif run == "apply":
            task.apply((fails,))
        else:
            task.apply_async((fails,))
            assert work_off() == ["FAILURE" if fails else "SUCCESS"]

    run_once(fails=False)
    assert during == []
    assert notified() == ["first", "second"]

    run_once(fails=True)
    assert during == []
    assert notified() == []


def test_only_the_attempt_of_a_plain_task_that_succeeds_has_effects(
    app: Celery, later: bool, work_off: Callable[[], list[str]], notify: Task, notified: Notified
) -> None:
    def register() -> dict[str, Task]:
        @app.task(bind=True)
        def raising(self: Task) -> None:
            notify.delay(self.request.retries)
            if self.request.retries < 2:
                raise self.retry(countdown=0)

        @app.task(bind=True)
        def not_throwing(self: Task) -> None:
            notify.delay(self.request.retries)
            if self.request.retries < 2:
                self.retry(countdown=0, throw=False)

        @app.task(bind=True, autoretry_for=(ValueError,), default_retry_delay=0)
        def failing(self: Task) -> None:
            notify.delay(self.request.retries)
            if self.request.retries < 2:
                raise ValueError("not yet")

        app.finalize()
        return {"raising": raising, "not_throwing": not_throwing, "failing": failing}

    tasks = {} if later else register()
    install_global_intercept()
    tasks = tasks or register()

    for task in tasks.values():
        task.delay()
        assert len(work_off()) == 3
        assert notified() == [2]


@pytest.mark.parametrize("run", ["apply", "worker"])
def test_a_plain_task_that_was_replaced_has_no_effects(
    app: Celery, later: bool, work_off: Callable[[], list[str]], notify: Task, notified: Notified, run: str
) -> None:
    def register() -> Task:
        @app.task
        def replacement() -> None:
            notify.delay("replacement")

        @app.task(bind=True)
        def order(self: Task) -> None:
            notify.delay("order")
            with contextlib.suppress(Ignore):
                self.replace(replacement.s())
            notify.delay("went on")

        return order

    order = None if later else register()
    install_global_intercept()
    order = order or register()

    if run == "apply":
        order.apply()
    else:
        order.delay()
        work_off()

    assert notified() == ["replacement"]


def test_a_retry_of_a_task_of_another_app_is_what_it_was(
    app: Celery, make_app: Callable[..., Celery], work_off: Callable[[], list[str]], notify: Task, notified: Notified
) -> None:
    install_global_intercept(make_app())

    @app.task(bind=True)
    def order(self: Task) -> None:
        if not self.request.retries:
            self.retry(countdown=0, throw=False)
        notify.delay(self.request.retries)

    order.delay()

    assert work_off() == ["SUCCESS"] * 2
    assert notified() == [0, 1]


def test_a_replacement_of_a_task_of_another_app_is_what_it_was(
    app: Celery, make_app: Callable[..., Celery], work_off: Callable[[], list[str]], notify: Task, notified: Notified
) -> None:
    install_global_intercept(make_app())

    @app.task(bind=True)
    def order(self: Task) -> None:
        notify.delay("order")
        self.replace(notify.s("replacement"))

    order.delay()

    assert work_off() == ["PENDING"]
    assert notified() == ["order", "replacement"]


def test_a_class_can_be_bound_as_before(app: Celery) -> None:
    install_global_intercept()

    class Order(Task):
        name = "shop.order"

    assert Order.bind(app) is app
    assert Order.app is app


def test_follow_ups_of_a_plain_task_go_where_the_configuration_says(
    intercepted: Callable[[Any], Task], notify: Task, notified: Notified
) -> None:
    received = []
    airlock.configure(executor=received.append, policy=airlock.BlockTasks({"blocked"}))

    def body() -> None:
        notify.delay(1)
        airlock.enqueue(print, _name="blocked")

    intercepted(body).apply()

    assert [intent.args for intent in received] == [(1,)]
    assert notified() == []


def test_an_effect_that_cannot_be_dispatched_fails_a_plain_task(
    app: Celery, intercepted: Callable[[Any], Task], notify: Task, notified: Notified
) -> None:
    def body() -> None:
        airlock.enqueue(notify, "sent")
        airlock.enqueue(notify, object())

    result = intercepted(body).apply()

    assert type(result.result).__name__ == "EncodeError"
    assert notified() == ["sent"]


def test_an_airlock_task_has_one_scope_with_its_own_hooks(app: Celery, notify: Task, notified: Notified) -> None:
    install_global_intercept()
    asked = []

    class Asking(AirlockTask):
        def should_flush(self, error: BaseException | None) -> bool:
            asked.append(airlock.get_current_scope())
            return False

    @app.task(base=Asking)
    def order() -> None:
        notify.delay("order")

    order.apply()

    assert len(asked) == 1
    assert notified() == []


def test_runs_can_be_left_alone(app: Celery, waiting: Waiting, notify: Task, notified: Notified) -> None:
    scopes = []

    def register(name: str) -> Task:
        @app.task(name=name)
        def order() -> None:
            scopes.append(airlock.get_current_scope())
            notify.delay("order")
            scopes.append(notified())
            raise ValueError("no")

        app.finalize()
        return order

    before = register("before")
    install_global_intercept(wrap_task_execution=False)
    while_installed = register("while installed")

    for order in (before, while_installed):
        order.apply()

    assert scopes == [None, ["order"]] * 2


def test_handlers_of_a_failed_run_can_send(
    app: Celery, work_off: Callable[[], list[str]], notify: Task, notified: Notified
) -> None:
    install_global_intercept()

    class Telling(Task):
        def on_failure(self, *_: Any) -> None:
            notify.delay("on_failure")

        def on_retry(self, *_: Any) -> None:
            notify.delay("on_retry")

    @app.task
    def errback(request: Any, error: Exception, traceback: Any) -> None:
        notify.delay("errback")

    @app.task(base=Telling, autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0)
    def order() -> None:
        notify.delay("order")
        raise ValueError("no")

    order.apply_async(link_error=errback.s())
    work_off()

    assert sorted(notified()) == ["errback", "on_failure", "on_retry"]
