"""What Celery itself publishes is published: here, all of it happens in a scope that fails and would take it along."""

import contextlib
import warnings
from types import SimpleNamespace

import pytest
from celery import Task, chain, chord, group, signature
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import schedule
from celery.signals import before_task_publish

import airlock
from airlock.integrations.celery import LegacyTaskShim, install_global_intercept
from airlock.integrations.executors.celery import celery_executor


@pytest.fixture(params=["shim", "intercept", "intercept and shim, overridden"])
def task_cls(request):
    """The class of all tasks, Celery's own included: each way to route old calls through airlock in turn."""
    if "intercept" in request.param:
        install_global_intercept()
    base = LegacyTaskShim if "shim" in request.param else Task
    if "overridden" not in request.param:
        return base

    override = {"abstract": True, "apply_async": lambda *args, **options: base.apply_async(*args, **options)}
    return type("Overriding", (base,), override)


@pytest.fixture
def results(request, tmp_path):
    """Settings for the result back end: in memory, unless a test is parametrized otherwise."""
    match getattr(request, "param", "memory"):
        case "redis":
            broker = request.getfixturevalue("redis_broker").celery
            return {name: value for name, value in broker.items() if name.startswith("result_backend")}
        case "files":
            return {"result_backend": tmp_path.as_uri()}
    return {"result_backend": "cache+memory://"}


@pytest.fixture
def app(make_app, task_cls, results):
    app = make_app(results, task_cls=task_cls)
    app.set_current()
    app.set_default()
    return app


@pytest.fixture
def shop(app):
    """Tasks that take part in what Celery publishes; what some of them have seen is in `seen`."""
    seen = []

    @app.task
    def add(x=0, y=0):
        return x + y

    @app.task
    def total(numbers):
        return sum(numbers)

    @app.task
    def note(what):
        seen.append(what)

    @app.task
    def fail():
        raise ValueError("no")

    @app.task(bind=True)
    def replaced(self, replacement):
        self.replace(signature(replacement))

    return SimpleNamespace(add=add, total=total, note=note, fail=fail, replaced=replaced, seen=seen)


@contextlib.contextmanager
def failing_scope():
    """A scope that fails, and in which nothing was enqueued."""
    with pytest.raises(ZeroDivisionError), airlock.scope(executor=celery_executor) as scope:
        yield
        assert scope.intents == []
        raise ZeroDivisionError


@pytest.fixture
def work_off_in_failing_scope(work_off):
    return failing_scope()(work_off)


@pytest.fixture(params=["raise", "return", "throw=False", "autoretry"])
def retrying(request, app):
    """A task that needs three attempts, and returns their number: each way to ask for the next in turn."""

    @app.task(bind=True, autoretry_for=(LookupError,), default_retry_delay=0)
    def retrying(self):
        if self.request.retries < 2:
            if request.param == "autoretry":
                raise LookupError
            retry = self.retry((), {}, countdown=0, throw=request.param == "raise")
            if request.param == "return":
                return retry
        return self.request.retries

    return retrying


@pytest.fixture(params=["a root", "no root"])
def _naming(request):
    """Messages of other programs, and of Celery's older protocol, name no root."""

    def forget_root(headers, **_):
        headers["root_id"] = None

    if request.param == "no root":
        before_task_publish.connect(forget_root)
    yield
    before_task_publish.disconnect(forget_root)


@pytest.mark.usefixtures("_naming")
def test_retries(retrying, work_off_in_failing_scope):
    retrying.delay()

    assert len(work_off_in_failing_scope()) == 3


def test_what_a_callback_asks_for_in_place_is_its_own(app, shop):
    install_global_intercept()
    app.conf.task_always_eager = True

    @app.task(name="celery.mine")
    def failing():
        shop.note.delay("not to be")
        raise ValueError

    with warnings.catch_warnings(), airlock.scope(executor=celery_executor):
        warnings.simplefilter("ignore", DeprecationWarning)
        shop.add.apply(link=failing.si())
        with contextlib.suppress(ValueError):
            shop.add.apply(link=failing.si() | shop.add.si())
        failing.apply()
    assert shop.seen == []


@pytest.mark.parametrize(
    ("start", "result"),
    [
        (lambda shop: (shop.add.s(1) | shop.add.s(2) | shop.add.s(3)).delay(), 6),
        (lambda shop: chain(shop.add.s(1), group(shop.add.s(2), shop.add.s(3)), shop.total.s()).delay(), 7),
        (lambda shop: shop.replaced.delay(shop.add.s(1, 2)), 3),
        (lambda shop: shop.replaced.delay(chord([shop.add.s(1, 2), shop.add.s(3, 4)], shop.total.s())), 10),
    ],
    ids=["chain", "group in a chain", "replaced by a task", "replaced by a chord"],
)
def test_next_steps_and_replacements(shop, work_off_in_failing_scope, start, result):
    promised = start(shop)
    work_off_in_failing_scope()

    assert promised.get(timeout=5) == result


@pytest.mark.parametrize(
    ("task_cls", "results"),
    # A shim alone knows a chord that begins in a worker, and chords that a task of Celery's own joins.
    [("shim", "files"), ("intercept", "memory"), ("intercept", "files"), ("intercept", "redis")],
    indirect=True,
)
def test_chords(shop, work_off_in_failing_scope):
    first, second = (chord([shop.add.si(1), shop.add.si(2)], shop.total.s()) for _ in range(2))
    promised = [first.delay(), (shop.add.si() | second).delay()]
    work_off_in_failing_scope()

    assert [result.get(timeout=5) for result in promised] == [3, 3]


@pytest.mark.parametrize("results", ["redis"], indirect=True)
def test_additions_to_a_chord(app, shop, work_off_in_failing_scope):
    @app.task(bind=True)
    def grow(self):
        self.add_to_chord(shop.add.s(1, 2))
        return 10

    promised = (shop.add.si() | chord([grow.si()], shop.total.s())).delay()
    work_off_in_failing_scope()

    assert promised.get(timeout=5) == 13


def test_links(shop, work_off_in_failing_scope):
    shop.add.apply_async(link=[shop.note.si(1), group(shop.note.si(2), shop.note.si(3))])
    work_off_in_failing_scope()

    assert sorted(shop.seen) == [1, 2, 3]


def test_links_of_failures(shop, work_off_in_failing_scope):
    failing = chord([shop.fail.s()], shop.total.s().on_error(shop.note.s()))

    promised = [shop.fail.apply_async(link_error=shop.note.s()), failing.delay()]
    work_off_in_failing_scope()

    assert shop.seen == [result.id for result in promised]


def test_retries_of_an_eager_run(retrying):
    with failing_scope():
        assert retrying.apply().state in {"SUCCESS", "RETRY"}


def test_links_of_an_eager_run(shop, work_off):
    with failing_scope():
        shop.add.apply(link=[shop.note.si(1), group(shop.note.si(2), shop.note.si(3))])
        shop.fail.apply(link_error=shop.note.si("failed"))
    work_off()

    assert sorted(shop.seen, key=str) == [1, 2, 3, "failed"]


@pytest.mark.parametrize("task_cls", ["intercept"], indirect=True)  # a shim alone does not know beat
def test_what_beat_sends(app, waiting, shop):
    entry = ScheduleEntry(name="daily", task=shop.add.name, schedule=schedule(1, app=app), app=app)

    with failing_scope():
        Scheduler(app, lazy=True).apply_entry(entry)

    assert waiting.calls() == [("add", [])]


def test_what_airlock_dispatches(waiting, shop):
    add, total = shop.add, shop.total
    with failing_scope(), airlock.detached():
        for task in (add, add.name, add.s(), add.s() | add.s(2), group(add.s()), chord([add.s()], total.s())):
            airlock.enqueue(task)

    assert [name for name, _ in waiting.calls()] == ["add"] * 6
