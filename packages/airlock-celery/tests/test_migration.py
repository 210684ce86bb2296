"""Old calls of `.delay()` and `.apply_async()` go through airlock, and say where they are."""

import contextlib
import contextvars
import functools
import types
import warnings

import pytest
from celery import Task, chain, chord, group, signature
from celery.backends.base import Backend
from celery.beat import Scheduler
from celery.canvas import Signature, chunks, xmap
from celery.exceptions import Ignore
from celery.signals import before_task_publish

import airlock
from airlock.integrations.celery import LegacyTaskShim, install_global_intercept, uninstall_global_intercept
from airlock.integrations.executors.celery import celery_executor

# The warning is for the tests that are about it.
pytestmark = pytest.mark.filterwarnings("ignore:.*in a scope, and is enqueued instead:DeprecationWarning")


@pytest.fixture(params=["shim", "intercept", "both"])
def base(request):
    """The base class of tasks whose old calls go through airlock: each way to get there in turn."""
    if request.param != "shim":
        install_global_intercept()
    return Task if request.param == "intercept" else LegacyTaskShim


@pytest.fixture
def add(app, base):
    return app.task(addition, base=base, name="shop.add")


@pytest.fixture
def intercepted_add(app):
    """A task of no particular class, while the intercept is installed."""
    install_global_intercept()
    return app.task(addition, name="shop.add")


def addition(x=0, y=0):
    return x + y


def current_scope():
    return airlock.get_current_scope()


#: Each in a line of its own, which is where the warning belongs.
CALLS = {
    "delay": lambda task: task.delay(1, y=2),
    "apply_async": lambda task: task.apply_async((1,), {"y": 2}),
    "signature.delay": lambda task: task.s(1).delay(y=2),
    "partial": lambda task: functools.partial(task.delay, 1)(y=2),
}


@pytest.fixture(params=CALLS)
def call(request):
    """Each way to call a task in turn."""
    return CALLS[request.param]


# In a scope, and elsewhere


def test_a_call_in_a_scope_is_enqueued(waiting, add, call):
    with airlock.scope(executor=celery_executor):
        result = call(add)
        assert waiting.take() == []

    (message,) = waiting.take()
    assert message.headers["task"] == add.name
    assert message.payload[:2] == [[1], {"y": 2}]
    assert message.headers["id"] == result.id


def test_a_call_in_a_scope_that_fails_has_no_effect(waiting, add, call):
    with pytest.raises(ValueError, match="no"), airlock.scope(executor=celery_executor):
        call(add)
        raise ValueError("no")

    assert waiting.take() == []


def test_a_call_outside_of_any_scope_is_what_it_was(waiting, add, call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = call(add)

    assert [message.headers["id"] for message in waiting.take()] == [result.id]


def test_a_call_in_a_scope_that_has_ended_is_what_it_was(waiting, add):
    with airlock.scope(executor=celery_executor):
        later = contextvars.copy_context()

    later.run(add.delay, 1)

    assert waiting.calls() == [("add", [1])]


def test_a_policy_cannot_call(waiting, add):
    class Meddling(airlock.AllowAll):
        def allows(self, intent):
            add.delay(2)
            return True

    with pytest.raises(airlock.PolicyEnqueueError), airlock.scope(Meddling(), executor=celery_executor):
        airlock.enqueue(add, 1)

    assert waiting.take() == []


def test_wrong_arguments_fail_where_they_are_given(add):
    with airlock.scope(executor=celery_executor) as scope:
        with pytest.raises(TypeError, match="positional argument"):
            add.delay(1, 2, 3)
        assert scope.intents == []


def test_a_call_from_a_module_named_like_a_tool_is_enqueued(waiting, add):
    module = {**globals(), "__name__": "celery.contrib.mine"}
    call = types.FunctionType(CALLS["delay"].__code__, module)

    with airlock.scope(executor=celery_executor):
        call(add)
        assert waiting.take() == []

    assert waiting.calls() == [("add", [1])]


# Options


def test_an_id_of_its_own_is_that_of_the_task_and_the_result(waiting, add):
    with airlock.scope(executor=celery_executor):
        result = add.apply_async((1,), None, "my-id", queue="emails")

    assert [message.headers["id"] for message in waiting.take("emails")] == [result.id] == ["my-id"]


def test_the_connection_of_the_moment_is_not_kept(app, add):
    with airlock.scope(airlock.DropAll()) as scope, app.connection_for_write() as connection:
        add.apply_async((1,), connection=connection)
        add.apply_async((2,), producer=app.amqp.Producer(connection))
        assert [dict(intent.dispatch_options) for intent in scope.intents] == [{}, {}]


def test_what_the_caller_does_to_a_signature_later_changes_nothing(waiting, intercepted_add):
    with airlock.scope(executor=celery_executor):
        single = intercepted_add.s(1)
        several = intercepted_add.s(2) | intercepted_add.s(3)
        single.delay()
        several.delay()
        single.args = (7,)
        several.tasks[0].args = (7,)

    assert waiting.calls() == [("add", [1]), ("add", [2])]


# The warning and the origin


#: In a line of its own each, too.
CANVASES = {
    "chain.delay": lambda task: (task.s(1) | task.s(1)).delay(),
    "group()": lambda task: group(task.s(1), task.s(1))(),
    "chord()": lambda task: chord([task.s(1), task.s(1)])(task.si()),
    "chunks()": lambda task: task.chunks([(1,)], 1)(),
    "map": lambda task: task.map([1]).apply_async(),
}


def reported(call, task):
    """Where the warning and the origin of a call say that it is."""
    with warnings.catch_warnings(record=True) as caught, airlock.scope(executor=lambda intent: None) as scope:
        warnings.simplefilter("ignore")  # such as of a socket that a test before has left open
        warnings.simplefilter("always", DeprecationWarning)
        call(task)
        origins = [intent.origin for intent in scope.intents]
    return [f"{warning.filename}:{warning.lineno}" for warning in caught] + origins


def line_of(call):
    """Where a function of one line is: for the warning, and for the origin."""
    return [f"{call.__code__.co_filename}:{call.__code__.co_firstlineno}"] * 2


@pytest.mark.parametrize("call", [*CALLS.values(), *CANVASES.values()], ids=[*CALLS, *CANVASES])
def test_warning_and_origin_are_at_the_line_of_the_caller(intercepted_add, call):
    assert reported(call, intercepted_add) == line_of(call)


def wrapper_around(wrapped):
    """As the SDK of Sentry wraps `Task.apply_async`."""
    return functools.wraps(wrapped)(lambda *args, **kwargs: wrapped(*args, **kwargs))


class ObjectAround:
    """A wrapper that is an object, as `wrapt.FunctionWrapper` is."""

    def __init__(self, wrapped):
        self.__wrapped__ = wrapped

    def __get__(self, task, task_cls=None):
        return self if task is None else functools.partial(self, task)

    def __call__(self, *args, **kwargs):
        return self.__wrapped__(*args, **kwargs)


@pytest.mark.parametrize(("outer", "inner"), [(wrapper_around, ObjectAround), (ObjectAround, wrapper_around)])
@pytest.mark.parametrize("wrapped", ["before", "later"])
def test_wrappers_do_not_hide_the_line_of_the_caller(app, monkeypatch, wrapped, outer, inner, call):
    if wrapped == "later":
        install_global_intercept()
    monkeypatch.setattr(Task, "apply_async", outer(inner(Task.apply_async)))
    if wrapped == "before":
        install_global_intercept()

    assert reported(call, app.task(addition)) == line_of(call)


@pytest.mark.parametrize("name", ["apply_async", "delay"])
def test_an_override_does_not_hide_the_line_of_the_caller(app, base, name, call):
    class Overriding(base):
        abstract = True

    class OverridingAgain(Overriding):
        abstract = True

    for cls in (Overriding, OverridingAgain):
        setattr(cls, name, lambda self, *args, cls=cls, **kwargs: getattr(super(cls, self), name)(*args, **kwargs))

    assert reported(call, app.task(addition, base=OverridingAgain)) == line_of(call)


@pytest.mark.parametrize(("style", "named"), [("delay", "add"), ("signature.delay", "signature")])
def test_the_warning_says_what_to_write(intercepted_add, style, named):
    advice = pytest.warns(DeprecationWarning, match=rf"write airlock\.enqueue\({named}, \.\.\.\)")
    with airlock.scope(executor=lambda intent: None), advice:
        CALLS[style](intercepted_add)


def test_a_line_warns_once_by_default(add):
    with warnings.catch_warnings(record=True) as caught, airlock.scope(executor=lambda intent: None):
        warnings.simplefilter("default")
        for number in range(3):
            add.delay(number)

    assert len(caught) == 1


def test_a_warning_that_is_an_error_leaves_nothing_behind(add):
    with warnings.catch_warnings(), airlock.scope(executor=celery_executor) as scope:
        warnings.filterwarnings("error", module=__name__.replace(".", r"\."))  # that of the caller
        with pytest.raises(DeprecationWarning):
            add.delay(1)
        assert scope.intents == []


# Overrides of apply_async


def taking_locks(base):
    """A class of tasks that take a lock for each message, as those of celery-singleton do."""

    class Locking(base):
        abstract = True

        def apply_async(self, args=None, kwargs=None, **options):
            self.locks.append((args, kwargs, options))
            return super().apply_async(args, kwargs, **options)

    return Locking


Locking = taking_locks(Task)
LockingFirst = type("LockingFirst", (Locking, LegacyTaskShim), {"abstract": True})
ShimFirst = type("ShimFirst", (LegacyTaskShim, Locking), {"abstract": True})

#: Ways to route the calls of such tasks through airlock, as their class and when the intercept is installed.
LOCKING = {
    "intercept, then task": (Locking, "before"),
    "task, then intercept": (Locking, "after"),
    "shim, overridden": (taking_locks(LegacyTaskShim), None),
    "locking first": (LockingFirst, None),
    "shim first": (ShimFirst, None),
    "intercept and shim": (LockingFirst, "before"),
}


@pytest.fixture(params=LOCKING)
def locking(request, app):
    """A task that takes a lock when it is sent: each of `LOCKING` in turn."""
    base, installed = LOCKING[request.param]
    if installed == "before":
        install_global_intercept()
    task = app.task(addition, base=base, locks=[])
    app.finalize()
    if installed == "after":
        install_global_intercept()
    return task


def test_an_override_runs_once_and_at_dispatch(waiting, locking, call):
    with airlock.scope(executor=celery_executor):
        call(locking)
        assert locking.locks == []

    assert len(locking.locks) == len(waiting.take()) == 1


def test_an_override_gets_the_call_as_it_was(locking):
    with airlock.scope(executor=celery_executor):
        locking.apply_async((1,), {"y": 2}, priority=3, task_id="first", mine="passed on")
        locking.apply_async((3,), None, "second", link_error=None)

    assert locking.locks == [
        ((1,), {"y": 2}, {"priority": 3, "task_id": "first", "mine": "passed on"}),
        ((3,), {}, {"task_id": "second", "link_error": None}),
    ]


def test_an_override_may_take_arguments_that_the_task_does_not(locking):
    with airlock.scope(airlock.DropAll(), executor=celery_executor) as scope:
        locking.delay(1, tenant="for the override")
        assert len(scope.intents) == 1


def test_an_override_never_runs_for_what_is_dropped_or_discarded(locking):
    with airlock.scope(airlock.DropAll(), executor=celery_executor):
        locking.delay(1)
    with pytest.raises(ZeroDivisionError), airlock.scope(executor=celery_executor):
        locking.delay(1)
        raise ZeroDivisionError

    assert locking.locks == []


def test_each_of_two_overrides_runs_once_and_then_celery(app, waiting, base):
    order = app.task(addition, base=taking_locks(taking_locks(base)), locks=[], name="shop.order")

    with airlock.scope(executor=celery_executor):
        order.delay(1)
        assert order.locks == []

    assert [args for args, _, _ in order.locks] == [(1,), (1,)]
    assert waiting.calls() == [("order", [1])]


def test_what_a_handler_of_publishing_sends_goes_out_at_once(waiting, add):
    sent = []

    def audit(body, **_):
        if body[0] == (1,):
            add.delay(2)
            sent.extend(waiting.calls())

    before_task_publish.connect(audit)
    with airlock.scope(executor=celery_executor):
        add.delay(1)
    before_task_publish.disconnect(audit)

    assert sent == [("add", [2])]


# The global intercept


@pytest.mark.parametrize("call", CANVASES.values(), ids=CANVASES)
def test_every_canvas_is_enqueued_as_one_and_runs(waiting, work_off, intercepted_add, call):
    with airlock.scope(executor=celery_executor) as scope:
        promised = call(intercepted_add)
        assert waiting.take() == []
        assert [intent.id for intent in scope.intents] == [promised.id]

    assert set(work_off()) == {"SUCCESS"}


@pytest.mark.parametrize("kind", ["map", "chunks"])
def test_maps_and_chunks_are_sent_as_they_are_without_airlock(app, waiting, kind):
    def sent():
        with airlock.scope(executor=celery_executor):
            getattr(app.tasks["shop.add"], kind)([(1, 1), (2, 2)], *[1][: kind == "chunks"]).apply_async(priority=3)
        return [(message.headers["task"], message.payload[1]) for message in waiting.take("sums") + waiting.take()]

    app.task(addition, name="shop.add")
    app.conf.task_routes = {"shop.add": "sums"}
    expected = sent()
    install_global_intercept()

    assert sent() == expected != []


def test_a_signature_of_an_unregistered_name_is_enqueued(app, waiting):
    install_global_intercept(app)

    with airlock.scope(executor=celery_executor):
        signature("elsewhere.ship", args=(1,)).delay()
        assert waiting.take() == []

    assert waiting.calls() == [("ship", [1])]


def test_calls_of_another_app_are_what_they_were(app, make_app, waiting):
    add = app.task(addition)
    install_global_intercept(make_app())

    with airlock.scope(executor=celery_executor):
        add.delay()
        add.s().delay()
        (add.s() | add.si()).delay()
        assert len(waiting.take()) == 3


def test_runs_of_another_app_are_what_they_were(app, make_app):
    install_global_intercept(make_app())

    assert app.task(current_scope)() is None


def test_installing_again_replaces_what_was_installed(app, make_app, waiting):
    install_global_intercept()
    install_global_intercept(make_app())

    with airlock.scope(executor=celery_executor):
        app.task(addition).delay(1)
        assert len(waiting.take()) == 1


def test_uninstalling_restores_everything(app):
    tasks = [
        app.task(addition, name="shop.plain"),
        app.task(addition, name="shop.again", autoretry_for=(ValueError,)),
        app.register_task(type("Own", (Locking,), {"name": "shop.own", "run": addition})()),
    ]
    app.finalize()
    touched = [Backend, Scheduler, Signature, chunks, group, xmap, *type(chain()).__mro__, *type(chord([])).__mro__]
    for task in tasks:
        touched += [app.tasks[task.name], *type(app.tasks[task.name]).__mro__]

    def state():
        return [dict(vars(each)) for each in touched if hasattr(each, "__dict__")]

    before = state()
    install_global_intercept()
    assert state() != before
    uninstall_global_intercept()

    assert state() == before


def test_uninstalling_leaves_a_wrapper_on_top(waiting, monkeypatch, intercepted_add):
    monkeypatch.setattr(Task, "apply_async", wrapper := wrapper_around(Task.apply_async))

    uninstall_global_intercept()

    assert Task.apply_async is wrapper
    with airlock.scope(executor=celery_executor):
        intercepted_add.delay(1)
        assert waiting.calls() == [("add", [1])]


# Scopes around the runs of tasks


@pytest.fixture(params=["registered before", "registered later"])
def register(request, app):
    """A function that makes a plain task of a body, before or while the intercept is installed."""

    def register(body):
        if request.param == "registered later":
            install_global_intercept()
        task = app.task(body, name="shop.order", autoretry_for=(LookupError,))
        app.finalize()
        install_global_intercept()
        return task

    return register


@pytest.mark.parametrize("how", ["raise", "throw=False", "autoretry"])
def test_only_the_attempt_of_a_plain_task_that_succeeds_has_effects(register, work_off, notify, notified, how):
    def body():
        notify.delay(task.request.retries)
        if task.request.retries < 2:
            if how == "autoretry":
                raise LookupError
            task.retry(countdown=0, throw=how == "raise")

    task = register(body)
    task.delay()

    assert len(work_off()) == 3
    assert notified() == [2]


def test_a_plain_task_that_was_replaced_has_no_effects(app, register, work_off, notify, notified):
    def body():
        notify.delay("order")
        with contextlib.suppress(Ignore):
            task.replace(notify.si("replacement"))
        notify.delay("went on")

    task = register(body)
    task.delay()
    work_off()

    assert notified() == ["replacement"]


def test_after_uninstalling_plain_tasks_run_without_a_scope(register):
    order = register(current_scope)
    uninstall_global_intercept()

    assert order() is None


def test_runs_can_be_left_alone(app):
    install_global_intercept(wrap_task_execution=False)

    assert app.task(current_scope)() is None


def test_what_an_errback_calls_waits_for_its_success(app, work_off, notify, notified):
    install_global_intercept()

    @app.task
    def errback(request, error, traceback):  # which Celery calls in the run that failed
        notify.delay("failed")
        raise error

    @app.task
    def order():
        raise ValueError("no")

    order.apply_async(link_error=errback.s())
    work_off()

    assert notified() == []
