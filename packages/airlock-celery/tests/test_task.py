"""A task with a scope around each run."""

import contextlib
import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Task, chord, group, shared_task, uuid
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from kombu.exceptions import EncodeError

import airlock
from airlock.integrations.celery import AirlockTask
from airlock.integrations.executors.celery import celery_executor


class Run:
    """Runs a task, in one of the ways there are."""

    def __init__(self, request):
        self.way = request.param
        #: The id of the latest run, if there is one.
        self.task_id = None
        # Only a worker is to be prepared as a worker.
        self._work_off = request.getfixturevalue("work_off") if self.way == "in a worker" else list

    def __call__(self, task, *args):
        """What the run returned or raised."""
        try:
            if self.way == "directly":
                return task(*args)
            self.task_id = uuid()
            result = (task.apply if self.way == "applied" else task.apply_async)(args, task_id=self.task_id)
            self._work_off()
        except BaseException as error:
            return error
        return result.result


@pytest.fixture(params=["directly", "applied", "in a worker"])
def run(request):
    """Each of the ways to run a task in turn."""
    return Run(request)


@pytest.fixture(params=["applied", "in a worker"])
def run_attempts(request):
    """Each of the ways in which Celery tries again."""
    return Run(request)


@pytest.fixture
def app(request, make_app):
    """The current app. Its parameter is the class of all its tasks."""
    app = make_app(**{"task_cls": request.param} if hasattr(request, "param") else {})
    app.set_current()
    app.set_default()
    return app


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
    @task
    def order():
        airlock.enqueue(notify, "first")
        airlock.enqueue(notify, "second")
        return notified()

    assert run(order) == []
    assert notified() == ["first", "second"]


@pytest.mark.parametrize("error", [ValueError, Ignore, Reject, SoftTimeLimitExceeded, KeyboardInterrupt, SystemExit])
def test_a_body_that_raises_has_no_effects(task, run, notify, notified, error):
    raised = error("no")

    @task
    def order():
        airlock.enqueue(notify, "order")
        raise raised

    result = run(order)

    assert result is raised or run.way != "directly"
    assert not hasattr(raised, "__notes__")
    assert notified() == []
    assert airlock.get_current_scope() is None


def test_an_effect_that_cannot_be_dispatched_fails_the_run(task, run, notify, notified):
    @task
    def order():
        airlock.enqueue(notify, "sent")
        airlock.enqueue(notify, object())
        airlock.enqueue(notify, "after")

    assert type(run(order)).__name__ == "EncodeError"
    assert notified() == ["sent"]


# Attempts and replacements


def raising(self, tell):
    tell(self.request.retries)
    if self.request.retries < 2:
        raise self.retry(countdown=0)


def returning(self, tell):
    tell(self.request.retries)
    return self.retry(countdown=0, throw=False) if self.request.retries < 2 else None


def going_on(self, tell):
    returning(self, tell)
    tell("went on")


def swallowing(self, tell):
    with contextlib.suppress(Retry):
        raising(self, tell)


def failing(self, tell):
    tell(self.request.retries)
    if self.request.retries < 2:
        raise ValueError("not yet")


AUTORETRY = {"autoretry_for": (ValueError,), "default_retry_delay": 0}


@pytest.mark.parametrize("by_class", [False, True], ids=["function", "class"])
@pytest.mark.parametrize(
    ("body", "effects"),
    [
        (raising, {"directly": [], "applied": [2], "in a worker": [2]}),
        (returning, {"directly": [], "applied": [2], "in a worker": [2]}),
        # Nothing is published in place. So Celery makes another attempt if it gets to see the `Retry`.
        (going_on, {"directly": [], "applied": [0, "went on"], "in a worker": [2, "went on"]}),
        (swallowing, {"directly": [0], "applied": [0], "in a worker": [2]}),
        (failing, {"directly": [], "applied": [2], "in a worker": [2]}),
    ],
)
def test_only_the_attempt_that_succeeds_has_effects(app, task, run, notify, notified, body, effects, by_class):
    def attempt(self):
        return body(self, functools.partial(airlock.enqueue, notify))

    if by_class:  # which Celery binds otherwise than a decorated function
        order = app.register_task(type("Order", (AirlockTask,), {"name": "order", "run": attempt, **AUTORETRY})())
    else:
        order = task(bind=True, **AUTORETRY)(attempt)
    run(order)

    assert notified() == effects[run.way]


def test_a_retry_is_that_of_the_task_which_asked_for_it(task, run, notify, notified):
    # Celery asks for an automatic one outside of the body, where the run of the task around it is the current one.
    @task(bind=True, **AUTORETRY)
    def inner(self):
        failing(self, functools.partial(airlock.enqueue, notify))

    @task
    def outer():
        airlock.enqueue(notify, "outer")
        inner.apply()

    assert run(outer) is None
    assert notified() == ["outer", 2]


REPLACEMENTS = {
    "task": (lambda part: part("replacement"), "replacement", ["replacement"]),
    "chain": (lambda part: part("first") | part("second"), "second", ["first", "second"]),
    "group": (lambda part: group(part("one"), part("other")), ["one", "other"], ["one", "other"]),
    "chord": (lambda part: chord([part("one"), part("other")], part("body")), "body", ["one", "other", "body"]),
}


@pytest.mark.parametrize("goes_on", [False, True], ids=["", "goes on"])
@pytest.mark.parametrize("replacement", REPLACEMENTS)
def test_replacing_a_run_discards_its_effects_only(app, run_attempts, part, notify, notified, replacement, goes_on):
    make, result, effects = REPLACEMENTS[replacement]
    asked = []

    class Watching(AirlockTask):
        def should_flush(self, error):
            asked.append(repr(error))
            return super().should_flush(error)

    @app.task(base=Watching, bind=True)
    def order(self):
        airlock.enqueue(notify, "order")
        try:
            return self.replace(make(part.si))
        except Ignore:
            if not goes_on:
                raise
            return airlock.enqueue(notify, "went on").name

    assert run_attempts(order) == result or run_attempts.way == "in a worker"
    assert notified() == effects
    assert asked == ["Ignore('Replaced by new task')"]


def test_a_replacement_in_place_is_captured_by_the_scope_around_the_replaced_run(task, part, notify, notified):
    @task(bind=True)
    def order(self):
        airlock.enqueue(notify, "order")
        with airlock.scope():
            return self.replace(part.si("replacement"))

    with airlock.scope(executor=celery_executor):
        assert order.apply().get() == "replacement"
        assert notified() == []
    assert notified() == ["replacement"]


@pytest.mark.parametrize("call", ["retry", "replace"])
def test_a_run_that_cannot_publish_another_one_is_on_its_own(task, work_off, part, notify, notified, call):
    @task(bind=True)
    def order(self):
        airlock.enqueue(notify, "order")
        with pytest.raises((Reject, EncodeError)):
            self.retry(args=(object(),)) if call == "retry" else self.replace(part.si(object()))

    order.delay()
    work_off()

    assert notified() == ["order"]


# Runs within, beside and after each other


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
            asked.append(error)
            return error is None

        def run(self):
            airlock.enqueue(notify, "order")
            raise LookupError("sold out")

    class Patient(Order):
        name = "shop.patient_order"

        def run(self):
            with pytest.raises(LookupError):
                super().run()

    app.register_task(Order())
    run(app.register_task(Patient()))
    assert notified() == ["order"]
    assert asked == ["get_policy", None]


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

    with ThreadPoolExecutor() as pool:
        list(pool.map(start, (1, 2)))

    assert notified() == [2]


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


# Hooks


def test_a_configured_class_makes_the_scopes(part, run, notified):
    class Deciding(airlock.Scope):
        def __init__(self, *, flushes):
            super().__init__()
            self.flushes = flushes

        def should_flush(self, error):
            return self.flushes

    for flushes in (True, False):
        airlock.configure(scope_cls=Deciding, scope_kwargs={"flushes": flushes}, executor=celery_executor)
        run(part, flushes)

    assert notified() == [True]


@pytest.mark.parametrize("is_chosen", [False, True], ids=["configured", "chosen by hooks"])
def test_executor_and_policy_can_be_chosen(app, run, notify, is_chosen):
    configured, own = [], []
    airlock.configure(executor=configured.append, policy=airlock.BlockTasks({"first"}))

    class Choosing(AirlockTask):
        def get_executor(self):
            return own.append if is_chosen else None

        def get_policy(self):
            return airlock.BlockTasks({"second"}) if is_chosen else None

    @app.task(base=Choosing)
    def order():
        airlock.enqueue(notify, _name="first")
        airlock.enqueue(notify, _name="second")

    run(order)

    assert [intent.name for intent in configured] == ([] if is_chosen else ["second"])
    assert [intent.name for intent in own] == (["first"] if is_chosen else [])


@pytest.mark.parametrize("fails", [False, True])
def test_should_flush_decides(app, run, notify, notified, fails):
    class Contrary(AirlockTask):
        def should_flush(self, error):
            return error is not None

    @app.task(base=Contrary)
    def order():
        airlock.enqueue(notify, "order")
        return 1 / (not fails)

    assert isinstance(run(order), ZeroDivisionError) == fails
    assert notified() == (["order"] if fails else [])


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
        airlock.enqueue(notify, "order")
        return 1 / (not fails)

    assert str(answer) in str(run(order))
    assert notified() == []
    assert airlock.get_current_scope() is None


def test_hooks_see_the_request_and_the_scope_of_the_run(app, run):
    seen = []

    class Watching(AirlockTask):
        def see(self, what):
            seen.append((what, *self.request.args, airlock.get_current_scope()))

        def get_policy(self):
            self.see("policy")

        def get_executor(self):
            self.see("executor")

        def around_run(self, run):
            self.see("around")
            return super().around_run(run)

        def should_flush(self, error):
            self.see("end")
            return super().should_flush(error)

    @app.task(base=Watching, bind=True)
    def order(self, depth):
        self.see("body")
        if depth:
            self(depth - 1)

    run(order, 1)

    outer, inner = (scope for what, *_, scope in seen if what == "body")
    scopes = [None, None, outer, outer, outer, outer, inner, inner, inner, outer]
    steps = ["policy", "executor", "around", "body", "policy", "executor", "around", "body", "end", "end"]
    assert seen == list(zip(steps, [1, 1, 1, 1, 0, 0, 0, 0, 0, 1], scopes, strict=True))
    assert outer is not inner


@pytest.fixture
def around(app):
    """Makes a task, of a class of its own: what its `around_run` is, and its body."""

    def around(around_run, body, **options):
        around_cls = type("Around", (AirlockTask,), {"around_run": around_run, "abstract": True})
        return app.task(base=around_cls, name="shop.around", bind=True, **options)(body)

    return around


def test_around_run_ends_before_effects_go_out(around, run, notify, notified):
    seen = []

    def around_run(self, run):
        airlock.enqueue(notify, "before")
        result = run()
        airlock.enqueue(notify, "after")
        seen.extend(notified())
        return f"around {result}"

    def order(self):
        airlock.enqueue(notify, "in the run")
        return "the run"

    assert run(around(around_run, order)) == "around the run"
    assert seen == []
    assert notified() == ["before", "in the run", "after"]


def test_around_run_that_fails_fails_the_run(around, run, notify, notified):
    def around_run(self, run):
        run()
        raise LookupError("no commit")

    def order(self):
        airlock.enqueue(notify, "in the run")

    assert str(run(around(around_run, order))) == "no commit"
    assert notified() == []


def test_around_run_need_not_run(around, run):
    ran = []

    def order(self):
        ran.append("order")

    assert run(around(lambda self, run: "nothing to be done", order)) == "nothing to be done"
    assert ran == []


def test_around_run_sees_what_the_run_raises(around, run):
    seen = []

    def around_run(self, run):
        with contextlib.suppress(LookupError):
            try:
                return run()
            except Exception as error:
                seen.append(repr(error))
                raise

    def order(self):
        raise LookupError("no")

    assert run(around(around_run, order)) is None
    assert seen == ["LookupError('no')"]


@pytest.mark.parametrize(
    ("leave", "kind"),
    [
        (lambda self: None, type(None)),
        (lambda self: self.retry(countdown=0, throw=False), Retry),
        (lambda self: self.replace(self.app.signature("shop.part", args=("x",))), Ignore),
    ],
    ids=["ends", "goes on after its retry", "goes on after its replacement"],
)
def test_around_run_knows_whether_another_run_does_the_work(app, around, part, work_off, leave, kind):
    seen = []

    def around_run(self, run):
        assert self.handed_on is None
        result = run()
        seen.append(type(self.handed_on))
        return result

    def order(self):
        if not self.request.retries:
            with contextlib.suppress(Ignore):
                leave(self)

    task = around(around_run, order)
    assert task.handed_on is None
    task.delay()
    work_off()

    assert seen[0] is kind
    assert set(seen[1:]) <= {type(None)}


def test_handlers_of_the_run_come_after_its_scope(app, run_attempts, notify, notified):
    heard = []

    class Handling(AirlockTask):
        def after_return(self, status, *_):
            heard.append((status, airlock.get_current_scope(), notified()))

    @app.task(base=Handling)
    def order(fails):
        airlock.enqueue(notify, "thanks")
        return 1 / (not fails)

    run_attempts(order, False)
    run_attempts(order, True)

    assert heard == [("SUCCESS", None, ["thanks"]), ("FAILURE", None, [])]


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
            requests.append(
                (task_id, *request.args, request.called_directly, request.is_eager, app.current_task == task)
            )

        @app.task(base=base, bind=True, name=f"{base.__name__}.order")
        def order(self, steps):
            note(self)
            if steps.startswith("call"):
                self(steps[4:])
            elif steps:
                self.apply((steps[5:],), task_id=f"inner-{steps}", throw=True)
            note(self)

        for steps in ("callcall", "applyapply", "callapplycall", "applycallapply"):
            run(order, steps)
        return requests

    with_airlock, without = map(requests_of, bases)
    assert len(without) == 28
    assert with_airlock == without


# Ways to make tasks


def test_annotations_of_the_run_keep_its_scope(make_app):
    ran, sent = [], []
    airlock.configure(executor=sent.append)

    def noting(body):
        return lambda self, fails: (ran.append(fails), body(self, fails))

    app = make_app({"task_annotations": {"shop.order": {"@run": noting}}})

    @app.task(base=AirlockTask, bind=True, name="shop.order")
    def order(self, fails):
        airlock.enqueue(print, fails)
        if fails:
            raise ValueError("no")

    for fails in (True, False):
        order.apply((fails,))

    assert ran == [True, False]
    assert [intent.args for intent in sent] == [(False,)]


whole_app = pytest.mark.parametrize("app", [AirlockTask, "airlock.integrations.celery:AirlockTask"], indirect=True)


@whole_app
def test_a_whole_app_can_have_it(app):
    def order():
        return airlock.get_current_scope()

    for task in (app.task(order, name="order"), shared_task(order, name="shared")):
        assert isinstance(task, AirlockTask)
        assert isinstance(task(), airlock.Scope)
    assert isinstance(app.tasks["celery.chord_unlock"], AirlockTask)


@whole_app
@pytest.mark.parametrize(
    ("make", "expected", "effects"),
    [
        (lambda add, total: chord([add.s(1, 2), add.s(3, 4)], total.s()), 10, [3, 7, 10]),
        (lambda add, total: add.map([1, 2]), [1, 2], [1, 2]),
        (lambda add, total: add.s(1, 1) | add.s(2) | group(add.s(0), add.s(1)) | total.s(), 9, [2, 4, 4, 5, 9]),
    ],
    ids=["chord", "map", "chain with a group"],
)
def test_celerys_own_tasks_can_have_it(app, work_off, notify, notified, make, expected, effects):
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
