"""Intents as tasks of Django 6, and of the backport of these."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

import airlock

#: Django's own, from 6.0 on, and the backport.
LIBRARIES = [name for name in ["django.tasks", "django_tasks"] if importlib.util.find_spec(name)]
if not LIBRARIES:
    pytest.skip("no Django 6, and no django-tasks", allow_module_level=True)

from airlock.integrations.executors.django_tasks import airlock_task, django_tasks_executor  # noqa: E402

ran = []


def notify(text, urgent=False):
    ran.append(text)


def notify_with_context(context, text): ...


@airlock_task
def order(number, fails=False):
    airlock.enqueue(ran.append, number)
    if fails:
        raise ConnectionError("not now")


@airlock_task
async def order_async(number, fails=False):
    airlock.enqueue(ran.append, number)
    if fails:
        raise ConnectionError("not now")


@pytest.fixture(params=LIBRARIES)
def library(request, settings):
    """Each of them, with a backend that keeps what is enqueued."""
    library = importlib.import_module(request.param)
    backend = f"{request.param}.backends.dummy.DummyBackend"
    settings.TASKS = {"default": {"BACKEND": backend, "QUEUES": ["default", "low"]}}
    ran.clear()
    library.task_backends["default"].clear()
    return library


@pytest.fixture
def enqueued(library):
    """A function that returns the results of all tasks that were enqueued."""
    return lambda: library.task_backends["default"].results


def test_intent_is_enqueued_when_the_scope_flushes(library, enqueued):
    with airlock.scope(executor=django_tasks_executor):
        airlock.enqueue(library.task(notify), "hello", urgent=True)
        assert enqueued() == []

    (result,) = enqueued()
    assert (result.task.func, result.args, result.kwargs) == (notify, ["hello"], {"urgent": True})


def test_discarded_intents_are_not_enqueued(library, enqueued):
    with pytest.raises(ValueError, match="declined"), airlock.scope(executor=django_tasks_executor):
        airlock.enqueue(library.task(notify), "hello")
        raise ValueError("declined")

    assert enqueued() == []


def test_options_are_those_of_using(library, enqueued):
    soon = timezone.now() + timedelta(minutes=1)
    with airlock.scope(executor=django_tasks_executor):
        options = {"priority": 7, "queue_name": "low", "run_after": soon}
        airlock.enqueue(library.task(notify), "hello", _dispatch_options=options)

    (result,) = enqueued()
    assert (result.task.priority, result.task.queue_name, result.task.run_after) == (7, "low", soon)


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((), {}, TypeError, "missing a required argument: 'text'"),
        (("hello",), {"priorty": 7}, TypeError, "priorty"),
        (("hello",), {"queue_name": "high"}, Exception, "Queue 'high' is not valid"),
        ((object(),), {}, TypeError, "Unsupported type"),
    ],
    ids=["arguments", "option", "queue", "not JSON"],
)
@pytest.mark.parametrize("function", [notify, notify_with_context])
def test_what_could_not_be_enqueued_raises_at_the_call(library, enqueued, function, args, options, error, message):
    task = library.task(takes_context=function is notify_with_context)(function)

    with airlock.scope(executor=django_tasks_executor), pytest.raises(error, match=message):
        airlock.enqueue(task, *args, _dispatch_options=options)

    assert enqueued() == []


def test_context_of_a_task_is_not_given_by_the_caller(library, enqueued):
    with airlock.scope(executor=django_tasks_executor):
        airlock.enqueue(library.task(takes_context=True)(notify_with_context), "hello")

    assert [result.args for result in enqueued()] == [["hello"]]


def test_other_callables_are_called_in_place(library):
    with airlock.scope(executor=django_tasks_executor):
        airlock.enqueue(ran.append, 1)

    assert ran == [1]


def test_policies_know_a_task_by_its_import_path(library, enqueued):
    with airlock.scope(airlock.BlockTasks({f"{__name__}.notify"}), executor=django_tasks_executor):
        airlock.enqueue(library.task(notify), "hello")

    assert enqueued() == []


@pytest.mark.parametrize("function", [order, order_async])
def test_only_a_run_that_succeeds_has_effects(library, function):
    airlock.configure(executor=lambda intent: intent.task(*intent.args))
    task = library.task(function)

    with pytest.raises(ConnectionError):
        task.call(1, fails=True)
    task.call(2)

    assert ran == [2]


def test_boundary_above_the_task_is_refused(library):
    with pytest.raises(TypeError, match="Put @airlock_task below @task"):
        airlock_task(library.task(notify))


def test_import_without_any_tasks_says_what_to_install(monkeypatch):
    for name in ["django.tasks", "django_tasks", "django_tasks.base"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "airlock.integrations.executors.django_tasks")

    with pytest.raises(ImportError, match="pip install django-tasks"):
        importlib.import_module("airlock.integrations.executors.django_tasks")


def test_worker_process_has_the_effects_of_runs_that_succeed(tmp_path):
    pytest.importorskip("django_tasks_db")
    environment = {
        **os.environ,
        "AIRLOCK_TEST_TASKS": str(tmp_path / "tasks.sqlite3"),
        "DJANGO_SETTINGS_MODULE": "tasks_settings",
    }

    def python(*arguments):
        command = [sys.executable, "-m", *arguments]
        project = Path(__file__).parent / "tasks_project"
        done = subprocess.run(command, cwd=project, env=environment, check=True, capture_output=True, text=True)
        return [line for line in done.stdout.splitlines() if line.startswith("notify ")]

    assert python("tasks_enqueue") == []
    assert python("django", "db_worker", "--batch") == [
        "notify order 2",
        "notify order 4",
        "notify order 5, attempt 1",
    ]


def test_what_is_no_task_runs_in_place_and_so_does_the_immediate_backend(library, settings):
    task = library.task(notify)
    assert not django_tasks_executor.runs_in_place(airlock.Intent(task))
    assert django_tasks_executor.runs_in_place(airlock.Intent(notify))

    name = library.__name__
    settings.TASKS = {
        "default": {"BACKEND": f"{name}.backends.dummy.DummyBackend"},
        "now": {"BACKEND": f"{name}.backends.immediate.ImmediateBackend"},
    }
    assert django_tasks_executor.runs_in_place(airlock.Intent(task, dispatch_options={"backend": "now"}))
