"""Records what the worker really ran. Celery calls these two before and after each run of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal.models import TaskRun

if TYPE_CHECKING:
    from celery import Task


def begin(task_id: str, task: Task, **_: Any) -> None:
    TaskRun.objects.create(task_id=task_id, worker=task.request.hostname)


def end(task_id: str, state: str, **_: Any) -> None:
    TaskRun.objects.filter(task_id=task_id, state="").update(state=state)
