"""Carry intents out in place: for scripts, tests, and effects that need no queue."""

from __future__ import annotations

from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING

import airlock.integrations

# Other projects have a module `airlock`, too. One, `airlock-py`, has `airlock.integrations.django` as well, and imports
# this module there, as our integrations do: so here they are told apart. Its `sync.py` does not replace this module,
# because Python prefers a package. We have no `airlock/integrations/__init__.py`: if there is one, it is theirs.
if getattr(airlock, "__distribution__", None) != "airlock-core" or getattr(airlock.integrations, "__file__", None):
    raise ImportError(
        "Another project, `airlock` or `airlock-py`, has replaced modules of Airlock. Uninstall that project, then run "
        "pip install --force-reinstall airlock-core (and airlock-celery, airlock-django if you use them)"
    )

from airlock._errors import DispatchError

if TYPE_CHECKING:
    from airlock._intent import Intent

__all__ = ["SyncExecutor", "sync_executor"]


class SyncExecutor:
    """Calls the intent's task with its arguments, here and now.

    Dispatch options are for executors that queue; there is nothing here that they could apply to.

    Raises:
        DispatchError: if the task turns out to be a coroutine or generator function, which no call runs; or if only
            a queue can run it: the name of a task, or a chain, a group or a chord of Celery's.
        Exception: whatever the task raises.
    """

    def __call__(self, intent: Intent, /) -> object:
        if (kind := _what_only_a_queue_runs(intent.task)) is not None:
            raise DispatchError(
                f"{intent.name} is {kind}, which only a queue can run, and the sync executor only calls functions. Use "
                "the executor of that queue."
            )
        result = intent.task(*intent.args, **intent.kwargs)
        if isinstance(result, (CoroutineType, GeneratorType, AsyncGeneratorType)):
            # Left alone, it would do nothing, and nobody would know.
            if isinstance(result, CoroutineType):
                result.close()
            raise DispatchError(
                f"{intent.name} returned a {type(result).__name__}, and the sync executor only calls functions. "
                "Enqueue a plain function, or use an executor that runs what this one returns."
            )
        return result

    def runs_in_place(self, intent: Intent, /) -> bool:
        """Whatever it is."""
        return True

    def __repr__(self) -> str:
        return "sync_executor"


_CANVASES = {
    "celery.chain": "a chain",
    "celery.group": "a group",
    "celery.chord": "a chord",
    "celery.chunks": "a canvas of chunks",
}


def _what_only_a_queue_runs(task: object) -> str | None:
    if isinstance(task, str):
        return "the name of a task"
    # Those of Celery are dictionaries that can be called. But a call publishes them.
    return _CANVASES.get(task.get("task", "")) if isinstance(task, dict) else None


sync_executor = SyncExecutor()
