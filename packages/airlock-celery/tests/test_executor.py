"""The Celery executor publishes what a scope lets go."""

from __future__ import annotations

import importlib
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock, patch
from uuid import UUID

import pytest
from celery import Celery, Task, chain, chord, group
from celery.signals import before_task_publish
from kombu.exceptions import OperationalError

import airlock
from airlock.integrations.executors.celery import CeleryExecutor, celery_executor
from own_brokers import OwnRabbitMQ
from processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Waiting


request_id: ContextVar[str] = ContextVar("request_id", default="none")


@pytest.fixture
def add(app: Celery) -> Task:
    @app.task(name="sums.add")
    def add(x: int = 0, y: int = 0) -> int:
        return x + y

    return add


@pytest.fixture
def total(app: Celery) -> Task:
    @app.task(name="sums.total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    return total


def nothing() -> None: ...


def dispatch(*tasks: Any, **enqueue: Any) -> list[airlock.Intent]:
    with airlock.scope(executor=celery_executor):
        return [airlock.enqueue(task, **enqueue) for task in tasks]


# When


def test_intents_are_published_at_the_end_of_the_block_and_not_before(waiting: Waiting, add: Task) -> None:
    with airlock.scope(executor=celery_executor):
        airlock.enqueue(add, 1, y=2)
        airlock.enqueue(add, 3)
        assert waiting.take() == []

    assert [message.payload[:2] for message in waiting.take()] == [[[1], {"y": 2}], [[3], {}]]


# What it takes, and under which id


def test_the_id_of_a_task_is_that_of_its_intent(waiting: Waiting, add: Task) -> None:
    (intent,) = dispatch(add)

    (message,) = waiting.take()
    assert message.headers["id"] == intent.id == str(UUID(intent.id))


def test_a_name_that_is_registered_is_published_as_that_task(app: Celery, waiting: Waiting) -> None:
    @app.task(name="shop.ship", expires=60, serializer="pickle")
    def ship() -> None: ...

    (intent,) = dispatch("shop.ship")

    (message,) = waiting.take()
    assert (message.headers["task"], message.headers["id"]) == ("shop.ship", intent.id)
    assert message.headers["expires"] is not None
    assert message.content_type == "application/x-python-serialize"


def test_names_belong_to_the_current_app_or_to_the_given_one(
    app: Celery, make_app: Callable[..., Celery], waiting: Waiting
) -> None:
    other = make_app()

    with airlock.scope(executor=CeleryExecutor(other)):
        airlock.enqueue("sums.add", 1)
    assert waiting.take() == []
    assert waiting.calls(other.conf.task_default_queue) == [("add", [1])]

    dispatch("sums.add")
    assert len(waiting.take()) == 1


def test_a_chain_has_the_id_in_its_last_task(waiting: Waiting, add: Task, work_off: Callable[[], list[str]]) -> None:
    (intent,) = dispatch(add.s(1, 1) | add.s(2) | add.s(3))

    (message,) = waiting.take()
    assert message.payload[0] == [1, 1]
    later = message.payload[2]["chain"]
    assert later[0]["options"]["task_id"] == intent.id  # the steps are stored last to first

    (intent,) = dispatch(add.s(1, 1) | add.s(2) | add.s(3))
    assert work_off() == ["SUCCESS"] * 3
    assert add.AsyncResult(intent.id).get(timeout=5) == 7


def test_a_group_has_the_id_as_that_of_the_group(waiting: Waiting, add: Task) -> None:
    (intent,) = dispatch(group(add.s(1), add.s(2)))

    messages = waiting.take()
    assert [message.payload[0] for message in messages] == [[1], [2]]
    assert {message.headers["group"] for message in messages} == {intent.id}


def test_a_chord_has_the_id_in_its_body(add: Task, total: Task, work_off: Callable[[], list[str]]) -> None:
    (intent,) = dispatch(chord([add.s(1), add.s(2)], total.s()))

    work_off()

    assert total.AsyncResult(intent.id).get(timeout=5) == 3


@pytest.mark.parametrize(
    "canvas_of",
    [
        lambda add, now: group(add.si(now["order"], number) for number in range(2)),
        lambda add, now: group([group(add.si(now["order"], number) for number in range(2))]),
        lambda add, now: chord((add.si(now["order"], number) for number in range(2)), add.si(0, 0)),
        lambda add, now: add.starmap((now["order"], number) for number in range(2)),
        lambda add, now: add.s(0, 0).set(link=[group(add.si(now["order"], number) for number in range(2))]),
        lambda add, now: chain(add.s(0, 0), add.s(0)).set(
            link_error=[group(add.si(now["order"], number) for number in range(2))]
        ),
    ],
    ids=["group", "group in a group", "chord", "starmap", "link", "link of a chain"],
)
def test_what_a_generator_gives_is_that_of_the_enqueue_call(
    waiting: Waiting, add: Task, canvas_of: Callable[[Task, dict[str, int]], Any]
) -> None:
    now = {}
    with airlock.scope(executor=celery_executor):
        for now["order"] in (1, 2):
            airlock.enqueue(canvas_of(add, now))

    published = str([message.payload for message in waiting.take()])
    assert all(f"[{order}, {number}]" in published for order in (1, 2) for number in (0, 1)), published


@pytest.mark.parametrize(
    ("canvas", "result"),
    [
        (lambda add: add.map([1, 2]), [1, 2]),
        (lambda add: add.starmap([(1, 2), (3, 4)]), [3, 7]),
        (lambda add: add.chunks([(1, 2), (3, 4), (5, 6)], 3), None),
        (lambda add: chain(add.s(1)), 1),
        (lambda add: group([add.s(1)]) | add.s(2).set(immutable=True), 2),
    ],
    ids=["map", "starmap", "chunks", "chain of one", "chord by |"],
)
def test_every_kind_of_signature_runs(
    app: Celery, add: Task, work_off: Callable[[], list[str]], canvas: Callable[[Task], Any], result: object
) -> None:
    (intent,) = dispatch(canvas(add))

    states = work_off()

    assert states
    assert set(states) <= {"SUCCESS", "RETRY"}
    if result is not None:  # the results of chunks are those of a group, which stores none
        assert app.AsyncResult(intent.id).get(timeout=5) == result


def test_the_same_canvas_can_be_enqueued_twice(waiting: Waiting, add: Task) -> None:
    canvas = [add.s(0), add.s(1) | add.s(2), group(add.s(3), add.s(4))]
    before = [repr(each) for each in canvas]

    dispatch(*canvas, *canvas)

    ids = [message.headers["id"] for message in waiting.take()]
    assert len(ids) == len(set(ids)) == 8
    assert [repr(each) for each in canvas] == before


def test_any_other_callable_is_called_in_place(app: Celery, waiting: Waiting) -> None:
    called = []

    with airlock.scope(executor=celery_executor):
        airlock.enqueue(called.append, 1, _dispatch_options={"queue": "of no use here"})
        assert called == []

    assert called == [1]
    assert waiting.take() == []


# Dispatch options


def test_dispatch_options_go_to_apply_async_untouched(app: Celery) -> None:
    received = []

    class Recording(Task):
        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            received.append((args, kwargs))

    @app.task(base=Recording)
    def recorded(*args: int, **kwargs: int) -> None: ...

    marker = object()
    options = {"countdown": 60, "queue": "emails", "priority": 9, "link": [], "expires": None, "of_their_own": marker}
    with airlock.scope(executor=celery_executor):
        intent = airlock.enqueue(recorded, 1, x=2, _dispatch_options=options)

    assert received == [(((1,), {"x": 2}), {"task_id": intent.id, **options})]


# Eager apps


def test_an_eager_app_runs_the_task_at_the_end_of_the_block(make_app: Callable[..., Celery]) -> None:
    app = make_app({"task_always_eager": True, "broker_url": f"amqp://127.0.0.1:{free_port()}//"})
    ran = []

    @app.task(bind=True)
    def note(self: Task, x: int) -> None:
        ran.append((x, self.request.id, self.request.is_eager))

    with airlock.scope(executor=celery_executor):
        intent = airlock.enqueue(note, 1)
        assert ran == []

    assert ran == [(1, intent.id, True)]


# Bad input


@pytest.mark.parametrize("wrong", [42, None, object(), ["sums.add"]], ids=lambda wrong: type(wrong).__name__)
def test_what_is_neither_name_nor_callable_is_refused_at_the_call_site(wrong: Any) -> None:
    with airlock.scope(executor=celery_executor) as scope:
        with pytest.raises(TypeError) as raised:
            airlock.enqueue(wrong)
        assert scope.intents == []

    assert repr(wrong) in str(raised.value)


def test_a_name_is_refused_where_no_celery_executor_would_get_it() -> None:
    with airlock.scope(), pytest.raises(TypeError, match=r"'sums\.add'.* Celery executor"):
        airlock.enqueue("sums.add")


@pytest.mark.usefixtures("app")
def test_a_name_is_taken_where_an_enclosing_scope_has_the_celery_executor(waiting: Waiting) -> None:
    with airlock.scope(executor=celery_executor), airlock.scope():
        airlock.enqueue("sums.add", 1)

    assert waiting.calls() == [("add", [1])]


class Unheard:
    """Something no serializer has heard of."""


@pytest.mark.parametrize("by_name", [False, True], ids=["task", "name"])
def test_wrong_arguments_raise_at_the_enqueue_call(waiting: Waiting, add: Task, by_name: bool) -> None:
    with airlock.scope(executor=celery_executor) as scope:
        with pytest.raises(TypeError, match="add"):
            airlock.enqueue(add.name if by_name else add, 1, 2, 3)
        assert scope.intents == []

    assert waiting.take() == []


def test_arguments_of_a_task_without_typing_are_not_checked(app: Celery, waiting: Waiting) -> None:
    @app.task(typing=False)
    def untyped(x: int) -> None: ...

    with airlock.scope(executor=celery_executor):
        airlock.enqueue(untyped, *[1, 2])

    assert waiting.calls() == [("untyped", [1, 2])]


def test_an_override_may_take_arguments_that_the_task_does_not(app: Celery, waiting: Waiting) -> None:
    class Keyed(Task):
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            return super().apply_async(args[1:], kwargs, **options)

    @app.task(base=Keyed)
    def keyed(x: int) -> None: ...

    with airlock.scope(executor=celery_executor):
        airlock.enqueue(keyed, "key", 1)

    assert waiting.calls() == [("keyed", [1])]


# In which context


@pytest.mark.parametrize("count", [1, 2], ids=["one", "several"])
@pytest.mark.usefixtures("waiting")
def test_a_task_is_published_in_the_context_of_its_enqueue_call(add: Task, count: int) -> None:
    seen = []

    def note(**_: Any) -> None:
        seen.append((request_id.get(), airlock.get_current_scope()))

    before_task_publish.connect(note)
    try:
        with airlock.scope(executor=celery_executor):
            for number in range(count):
                token = request_id.set(f"request {number}")
                airlock.enqueue(add, number)
                request_id.reset(token)
    finally:
        before_task_publish.disconnect(note)

    assert seen == [(f"request {number}", None) for number in range(count)]


# A broker that is down


@pytest.fixture
def lost_app(make_app: Callable[..., Celery]) -> Celery:
    """An app whose broker does not answer."""
    return make_app({"broker_url": f"amqp://guest:secret@127.0.0.1:{free_port()}//"})


def test_a_broker_that_is_down_is_one_clear_error(lost_app: Celery) -> None:
    add = lost_app.task(name="sums.add")(nothing)

    with pytest.raises(OperationalError) as raised, airlock.scope(executor=celery_executor) as scope:
        intents = [airlock.enqueue(add, _origin="orders.py:7") for _ in range(3)]

    told = "\n".join(raised.value.__notes__)
    assert lost_app.conf.broker_url.rpartition("@")[2].strip("/") in told
    assert "secret" not in told
    assert f"add (id {intents[0].id}), enqueued at orders.py:7" in told
    assert scope.undispatched_intents == intents


@pytest.mark.parametrize("error", [None, OperationalError("lost"), ConnectionResetError("reset")])
def test_a_broker_that_cannot_be_reached_is_down(lost_app: Celery, error: Exception | None) -> None:
    why = CeleryExecutor(lost_app).why_down(airlock.Intent(nothing), error)

    assert why is not None
    assert why.startswith("amqp://guest:**@127.0.0.1:")
    assert "refused" in why


def test_it_is_the_broker_of_the_app_of_the_task_that_is_asked(lost_app: Celery, app: Celery) -> None:
    lost, add = (each.task(name="sums.add")(nothing) for each in (lost_app, app))

    assert celery_executor.why_down(airlock.Intent(lost.s() | lost.s()), None) is not None
    assert celery_executor.why_down(airlock.Intent(add), None) is None


def test_whatever_fails_for_another_reason_does_not_ask_the_broker(lost_app: Celery) -> None:
    assert CeleryExecutor(lost_app).why_down(airlock.Intent(nothing), ValueError("no")) is None


def silent(error: Exception) -> Exception:
    error.__cause__ = TimeoutError()
    return error


@pytest.mark.parametrize("name", ["redis_broker", "rabbitmq_broker"])
@pytest.mark.parametrize(
    "error",
    [
        None,
        OperationalError("too large"),
        FileNotFoundError("lock"),
        silent(ConnectionError("The lock server does not answer.")),
        silent(OperationalError("so large that it takes long")),
    ],
)
def test_a_broker_that_is_there_is_not_to_blame(
    request: pytest.FixtureRequest, make_app: Any, name: str, error: Exception | None
) -> None:
    broker = request.getfixturevalue(name)
    assert CeleryExecutor(make_app(broker.celery)).why_down(airlock.Intent(nothing), error) is None


def test_rabbitmq_that_blocks_publishers_is_down(tmp_path: Path, make_app: Any) -> None:
    server = OwnRabbitMQ(tmp_path, "vm_memory_high_watermark.absolute = 1\n")
    server.start()
    try:
        app = make_app({"broker_url": server.url, "broker_transport_options": {"read_timeout": 0.5}})
        assert CeleryExecutor(app).why_down(airlock.Intent(nothing), None) is not None
    finally:
        server.stop()


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("MISCONF Redis is configured to save RDB snapshots"),
        OperationalError("command not allowed when used memory > 'maxmemory'."),
    ],
)
def test_a_broker_that_refuses_everything_is_down(redis_broker: Any, make_app: Any, error: Exception) -> None:
    why = CeleryExecutor(make_app(redis_broker.celery)).why_down(airlock.Intent(nothing), error)

    assert why is not None
    assert why.endswith(f": {error}")


def test_what_is_no_task_runs_in_place_and_so_does_all_of_an_eager_app(make_app: Callable[..., Celery]) -> None:
    app = make_app({})
    eager_app = make_app({"task_always_eager": True})
    executor = CeleryExecutor(app)
    add, eager = app.task(name="sums.add")(nothing), eager_app.task(name="sums.eager")(nothing)

    in_place = [executor.runs_in_place(airlock.Intent(task)) for task in (nothing, eager, eager.s())]
    to_the_broker = [
        executor.runs_in_place(airlock.Intent(task)) for task in (add, add.s(), add.s() | add.s(), "sums.add")
    ]

    assert (in_place, to_the_broker) == ([True] * 3, [False] * 4)


def taking_a_number(number: int) -> None: ...


def test_an_override_is_called_though_the_broker_is_away(lost_app: Celery) -> None:
    kept = []

    class KeptTask(Task):
        def apply_async(self, args: Any = None, kwargs: Any = None, task_id: str | None = None) -> None:
            kept.append(args)

    add = lost_app.task(name="sums.add")(nothing)
    keep = lost_app.task(name="sums.keep", base=KeptTask)(taking_a_number)
    with airlock.scope(executor=celery_executor) as scope:
        scope.dispatch_errors = "log"
        for number in (1, 2):
            airlock.enqueue(add)
            airlock.enqueue(keep, number)

    assert kept == [(1,), (2,)]
    assert [intent.task for intent in scope.undispatched_intents] == [add, add]


@pytest.mark.parametrize(
    "method",
    ["celery.Celery.send_task", "celery.app.task.Task.apply_async", "kombu.messaging.Producer.publish"],
)
def test_a_method_that_was_replaced_is_called_though_the_broker_is_away(lost_app: Celery, method: str) -> None:
    add = lost_app.task(name="sums.add")(nothing)

    with patch(method, autospec=True) as replacement, airlock.scope(executor=celery_executor):
        airlock.enqueue(add)
        airlock.enqueue(add)

    assert replacement.call_count == 2


def test_what_has_an_apply_async_is_a_task() -> None:
    stand_in = Mock(name="mock of a task")

    class Wrapper:
        def __init__(self, task: Any) -> None:
            self.task = task

        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            return self.task.apply_async(*args, **kwargs)

    wrapped = Mock(name="wrapped task")
    with airlock.scope(executor=celery_executor):
        airlock.enqueue(stand_in, 1)
        airlock.enqueue(Wrapper(wrapped), 2)

    stand_in.assert_not_called()
    assert stand_in.apply_async.call_args.args == ((1,), {})
    assert wrapped.apply_async.call_args.args == ((2,), {})


def test_the_documented_retry_policy_is_taken_as_it_is(lost_app: Celery) -> None:
    lost_app.conf.task_publish_retry_policy = {
        "max_retries": 2,
        "interval_start": 0,
        "interval_step": 0,
        "interval_max": 0,
        "retry_errors": (TimeoutError,),
    }
    add = lost_app.task(name="sums.add")(nothing)

    with pytest.raises(OperationalError), airlock.scope(executor=celery_executor):
        airlock.enqueue(add)


# Who it is


def test_without_airlock_core_the_import_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "airlock.integrations.executors.celery"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "airlock.integrations.executors.sync", None)

    with pytest.raises(ImportError, match="airlock-core, and it is not there"):
        importlib.import_module(name)
