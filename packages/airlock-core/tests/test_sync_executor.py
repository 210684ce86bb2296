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
    yield


async def send_in_async_steps():
    yield


def test_it_calls_the_task_and_returns_what_that_returns():
    intent = airlock.Intent(lambda *args, **kwargs: (args, kwargs), (1,), {"key": "value"})
    assert sync_executor(intent) == ((1,), {"key": "value"})
    with pytest.raises(ZeroDivisionError):
        sync_executor(airlock.Intent(divmod, (1, 0)))


@pytest.mark.parametrize("task", [send_async, send_in_steps, send_in_async_steps])
def test_a_task_that_only_returns_something_to_run_is_refused(task):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "was never awaited"
        with pytest.raises(airlock.DispatchError, match=task.__name__):
            sync_executor(airlock.Intent(task))


@pytest.mark.parametrize("kind", ["chain", "group", "chord", "chunks"])
def test_what_a_call_would_publish_is_refused(kind):
    """A stand-in for Celery's, which is a dictionary that can be called; airlock-celery has the test with Celery."""

    class Canvas(dict):
        def __call__(self):
            raise AssertionError("published")

    canvas = Canvas(task=f"celery.{kind}", args=(), kwargs={})
    with pytest.raises(airlock.DispatchError, match=f"is a .*{kind}, which only a queue can run"):
        sync_executor(airlock.Intent(canvas))


def test_the_name_of_a_task_is_refused():
    with pytest.raises(airlock.DispatchError, match="notify is the name of a task, which only a queue can run"):
        sync_executor(airlock.Intent("shop.tasks.notify", (1,)))


def test_it_describes_itself():
    assert repr(sync_executor) == "sync_executor"
    assert isinstance(sync_executor, SyncExecutor)
    assert isinstance(sync_executor, airlock.Executor)


def test_it_says_so_when_airlock_is_another_project(monkeypatch):
    other = types.ModuleType("airlock")
    other.__path__ = airlock.__path__
    monkeypatch.setitem(sys.modules, "airlock", other)
    monkeypatch.delitem(sys.modules, "airlock.integrations.executors.sync")

    with pytest.raises(ImportError, match="Uninstall that project"):
        importlib.import_module("airlock.integrations.executors.sync")
