"""How the journal learns what really ran: from the worker, before and after each run of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal.models import TaskRun

if TYPE_CHECKING:
    from celery import Task


def begin(task_id: str, task: Task, args: Any, kwargs: Any, **_: Any) -> None:
    name = task.name.rpartition(".")[2]
    arguments = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
    TaskRun.objects.create(task_id=task_id, text=f"{name}({arguments})", worker=task.request.hostname)


def end(task_id: str, state: str, **_: Any) -> None:
    TaskRun.objects.filter(task_id=task_id, state="").update(state=state)
