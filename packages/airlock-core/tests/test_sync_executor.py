"""The executor that carries intents out in place."""

import importlib
import sys
import types
import warnings

import pytest

import airlock
from airlock.integrations.executors.sync import SyncExecutor, sync_executor


async def send_async():
    raise AssertionError("nobody awaits it")


def send_in_steps():
    raise AssertionError("nobody takes a step")
    yield


async def send_in_async_steps():
    raise AssertionError("nobody takes a step")
    yield


def test_it_calls_the_task_with_its_arguments_and_returns_what_that_returns():
    def task(*args, **kwargs):
        return args, kwargs

    with airlock.scope(airlock.DropAll()):
        intent = airlock.enqueue(task, 1, key="value", _dispatch_options={"queue": "emails"})

    assert sync_executor(intent) == ((1,), {"key": "value"})


def test_what_the_task_raises_propagates():
    with pytest.raises(ZeroDivisionError), airlock.scope(executor=sync_executor):
        airlock.enqueue(divmod, 1, 0)


def test_it_is_the_default(ran):
    with airlock.scope():
        airlock.enqueue(ran.append, 1)

    assert ran == [1]


@pytest.mark.parametrize("task", [send_async, send_in_steps, send_in_async_steps], ids=lambda task: task.__name__)
def test_a_task_that_only_returns_something_to_run_is_refused_instead_of_forgotten(ran, task):
    scope = airlock.scope(executor=sync_executor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "was never awaited"
        with pytest.raises(airlock.DispatchError, match=task.__name__), scope:
            intent = airlock.enqueue(task)
            airlock.enqueue(ran.append, 1)

    assert ran == []
    assert scope.undispatched_intents[0] is intent


def test_it_takes_no_names():
    with airlock.scope(executor=sync_executor), pytest.raises(TypeError):
        airlock.enqueue("shop.tasks.send_email")


def test_it_describes_itself():
    assert repr(sync_executor) == "sync_executor"
    assert isinstance(sync_executor, SyncExecutor)


def test_it_says_so_when_airlock_is_another_project(monkeypatch):
    other = types.ModuleType("airlock")
    other.__path__ = airlock.__path__
    monkeypatch.setitem(sys.modules, "airlock", other)
    monkeypatch.delitem(sys.modules, "airlock.integrations.executors.sync")

    with pytest.raises(ImportError, match="Uninstall that project"):
        importlib.import_module("airlock.integrations.executors.sync")
