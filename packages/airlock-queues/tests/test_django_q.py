"""Intents as tasks of Django-Q2."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

import django
import pytest
import redis
from django.core.management import call_command

import airlock
from processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType


@pytest.fixture(scope="session")
def project(postgresql_database: dict[str, Any], address: str) -> Iterator[None]:
    """A Django project, with its tables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_SETTINGS_MODULE", "django_q_settings")
        patch.setenv("AIRLOCK_TEST_DATABASE", json.dumps(postgresql_database))
        django.setup()
        call_command("migrate", verbosity=0)
        yield
        from django.db import connections

        connections.close_all()


@pytest.fixture
def jobs(client: redis.Redis, project: None) -> ModuleType:
    return importlib.import_module("django_q_jobs")


@pytest.fixture
def django_q_executor(jobs: ModuleType) -> Any:
    from airlock.integrations.executors.django_q import django_q_executor

    return django_q_executor


@pytest.fixture
def run_all(work: Callable[..., None]) -> Callable[[], None]:
    """A function that starts a worker."""
    return lambda: work("-m", "django", "qcluster", ready="running")


@pytest.fixture
def waiting(project: None) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """A function that returns what waits in the queue."""
    from django_q.models import OrmQ

    OrmQ.objects.all().delete()
    yield lambda: [entry.task for entry in OrmQ.objects.order_by("id")]
    OrmQ.objects.all().delete()


def test_intent_becomes_a_task_with_its_id(
    jobs: ModuleType, django_q_executor: Any, waiting: Any, run_all: Callable[[], None], told: Any
) -> None:
    from django_q.tasks import result

    run_all()

    with airlock.scope(executor=django_q_executor):
        intent = airlock.enqueue(pow, 2, 3)
        airlock.enqueue(jobs.last)
        assert waiting() == []

    told()
    assert result(intent.id.replace("-", ""), wait=60_000) == 8


def test_only_the_attempt_that_succeeds_has_effects(
    jobs: ModuleType, django_q_executor: Any, waiting: Any, run_all: Callable[[], None], told: Any
) -> None:
    run_all()

    with airlock.scope(executor=django_q_executor):
        airlock.enqueue(jobs.order, 1, attempts=9)  # and there are no more than three
        airlock.enqueue(jobs.order, 2, attempts=3)

    assert told() == [["notify", "order 2, attempt 3"]]


def test_follow_ups_go_through_the_configured_executor(jobs: ModuleType) -> None:
    followed: list[airlock.Intent] = []
    airlock.configure(executor=followed.append)

    jobs.order(1, attempts=1)

    assert [intent.name for intent in followed] == ["notify", "last"]


def test_discarded_intents_reach_no_queue(jobs: ModuleType, django_q_executor: Any, waiting: Any) -> None:
    with pytest.raises(ValueError, match="declined"), airlock.scope(executor=django_q_executor):
        airlock.enqueue(jobs.notify, "hello")
        raise ValueError("declined")

    assert waiting() == []


def test_options_are_those_of_django_q2(jobs: ModuleType, django_q_executor: Any, waiting: Any) -> None:
    with airlock.scope(executor=django_q_executor):
        options = {"task_name": "greeting", "group": "greetings", "timeout": 7}
        airlock.enqueue(jobs.notify, "hello", urgent=True, _dispatch_options=options)

    (task,) = waiting()
    assert (task["name"], task["group"], task["timeout"]) == ("greeting", "greetings", 7)
    assert (task["args"], task["kwargs"]) == (("hello",), {"urgent": True})


def test_dotted_path_becomes_a_task(django_q_executor: Any, waiting: Any) -> None:
    with airlock.scope(executor=django_q_executor):
        airlock.enqueue("elsewhere.notify", 1)

    assert [task["func"] for task in waiting()] == ["elsewhere.notify"]


@pytest.mark.parametrize(
    ("args", "kwargs", "options", "error", "message"),
    [
        ((), {}, {}, TypeError, "missing a required argument: 'text'"),
        (("hello",), {}, {"tiemout": 7}, TypeError, "Django-Q2 has no option tiemout"),
        (("hello",), {"group": 7}, {}, TypeError, "Django-Q2 would take the argument group for itself"),
        ((lambda: None,), {}, {}, Exception, "pickle"),
    ],
    ids=["arguments", "option", "argument named as an option", "not to be pickled"],
)
def test_what_no_worker_could_run_raises_at_the_call(
    jobs: ModuleType,
    django_q_executor: Any,
    waiting: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with airlock.scope(executor=django_q_executor), pytest.raises(error, match=message):
        airlock.enqueue(jobs.notify, *args, _dispatch_options=options, **kwargs)

    assert waiting() == []


def of_the_script() -> None: ...


of_the_script.__module__ = "__main__"  # as in the file that Python was started with


def local() -> Callable[[], None]:
    def function() -> None: ...

    return function


@pytest.mark.parametrize("function", [lambda: None, local(), of_the_script], ids=["lambda", "local", "of the script"])
def test_function_that_no_worker_could_import_raises_at_the_call(
    django_q_executor: Any, waiting: Any, function: Callable[[], None]
) -> None:
    with airlock.scope(executor=django_q_executor), pytest.raises(TypeError, match="at the top level of a module"):
        airlock.enqueue(function)

    assert waiting() == []


def test_task_run_in_place_gives_its_id_to_no_other(jobs: ModuleType, django_q_executor: Any, waiting: Any) -> None:
    from django_q.tasks import async_task

    other: list[str] = []
    path = f"{__name__}.queue_another"
    globals()["queue_another"] = lambda: other.append(async_task(jobs.notify, "hello"))
    with airlock.scope(executor=django_q_executor):
        intent = airlock.enqueue(path, _dispatch_options={"sync": True})

    (task,) = waiting()
    assert other == [task["id"]]
    assert task["id"] != intent.id.replace("-", "")


def test_what_others_queue_has_an_id_of_its_own(jobs: ModuleType, django_q_executor: Any, waiting: Any) -> None:
    from django_q.tasks import async_task

    with airlock.scope(executor=django_q_executor):
        intent = airlock.enqueue(jobs.notify, "hello")
    other = async_task(jobs.notify, "hello")

    assert [task["id"] for task in waiting()] == [intent.id.replace("-", ""), other]
    assert other != intent.id.replace("-", "")


def test_policies_know_a_task_by_its_import_path(jobs: ModuleType, django_q_executor: Any, waiting: Any) -> None:
    with airlock.scope(airlock.BlockTasks({"django_q_jobs.order"}), executor=django_q_executor):
        airlock.enqueue(jobs.order, 1, 1)
        airlock.enqueue(jobs.last)

    assert [task["func"] for task in waiting()] == [jobs.last]


@pytest.mark.parametrize("broker", ["orm", "redis"])
def test_broker_that_is_away_is_down(
    jobs: ModuleType, django_q_executor: Any, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import connection
    from django_q.brokers.redis_broker import Redis
    from django_q.conf import Conf

    intent = airlock.Intent(jobs.notify, ("hello",))
    if broker == "orm":
        monkeypatch.setitem(connection.settings_dict, "PORT", free_port())
        connection.close()
    else:
        monkeypatch.setattr(Conf, "REDIS", f"redis://127.0.0.1:{free_port()}/0")
        intent = airlock.Intent(jobs.notify, ("hello",), dispatch_options={"broker": Redis()})
    assert django_q_executor.why_down(intent, None)


def test_broker_that_is_there_is_not_to_blame(jobs: ModuleType, django_q_executor: Any) -> None:
    assert django_q_executor.why_down(airlock.Intent(jobs.notify), redis.ConnectionError("Broken pipe")) is None


def test_only_what_is_synchronous_runs_in_place(
    jobs: ModuleType, django_q_executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django_q.conf import Conf

    now = airlock.Intent(jobs.notify, dispatch_options={"sync": True})
    later = airlock.Intent(jobs.notify)
    assert [django_q_executor.runs_in_place(intent) for intent in (now, later)] == [True, False]
    monkeypatch.setattr(Conf, "SYNC", True)
    assert django_q_executor.runs_in_place(later)
