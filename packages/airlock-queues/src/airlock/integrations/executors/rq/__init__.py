"""Carry intents out as jobs of RQ, and hold what a job enqueues until it succeeds."""

from __future__ import annotations

import inspect
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Any

# First of our modules, as it tells Airlock from other projects, and says so.
import airlock.integrations.executors.sync

# isort: split
from rq import Queue, Retry
from rq.job import Job
from rq.timeouts import JobTimeoutException

import airlock
from airlock import OutcomeUnknown
from airlock.ext import dispatch_one, register_interruption, run_in_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airlock import Intent
    from airlock.ext import Outcome

__all__ = ["AirlockJob", "RQExecutor"]

#: How many jobs go to Redis together, so that memory stays bounded.
MAX_JOBS = 1000

#: Options for which RQ asks Redis something first, so that the job cannot wait in a pipeline.
GO_ALONE = {"depends_on", "pipeline", "rate_limit", "unique"}

register_interruption(JobTimeoutException)


class RQExecutor:
    """Puts the intent's function on a queue; the id of the intent becomes the id of the job.

    It takes functions that a worker can import, and dotted paths of functions. Dispatch options are those of
    `Queue.enqueue`, and `queue`: the name of one of the queues.

    Args:
        *queues: where jobs go. The first one gets those that name no other.

    Raises:
        redis.RedisError: if Redis cannot be reached.
    """

    def __init__(self, *queues: Queue) -> None:
        self._default = queues[0].name
        self._queues = {queue.name: queue for queue in queues}

    def accepts(self, task: object) -> bool:
        """A dotted path, besides callables."""
        return isinstance(task, str)

    def check(self, intent: Intent, /) -> None:
        """Refuse what a worker could not run.

        Raises:
            TypeError: if no worker could import the function, if the arguments do not fit it, or if there is no such
                option.
            ValueError: if there is no such queue.
            Exception: whatever the serializer of the queue raises about the arguments: `pickle`, by default.
        """
        name = intent.dispatch_options.get("queue", self._default)
        if name not in self._queues:
            raise ValueError(f"There is no queue {name!r}: the executor has {', '.join(self._queues)}.")
        queue, options = self._queue_and_options(intent)
        inspect.signature(queue.enqueue_call).bind(**options)
        if callable(intent.task):
            _check_is_importable(intent.task)
            inspect.signature(intent.task).bind(*intent.args, **intent.kwargs)
        queue.create_job(intent.task, intent.args, dict(intent.kwargs)).data  # noqa: B018 - serialised when it is read

    def __call__(self, intent: Intent, /) -> None:
        self._put(intent)

    def dispatch_many(self, intents: Sequence[Intent], /) -> list[Outcome]:
        """Put the first intents that go to the same queue there in one transaction, at most 1000.

        Returns:
            What became of them. If the transaction fails, nobody can tell.
        """
        queue = self._shared_queue(intents[0])
        if queue is None:
            return [dispatch_one(self, intents[0])]
        outcomes: list[Outcome] = []
        with queue.connection.pipeline() as pipeline:
            for intent in takewhile(lambda intent: self._shared_queue(intent) is queue, intents[:MAX_JOBS]):
                try:
                    run_in_context(intent, self._put, intent, pipeline)
                except Exception as error:
                    outcomes.append(error)
                    break
                outcomes.append(None)
            try:
                pipeline.execute()
            except BaseException as error:
                return [outcome or OutcomeUnknown(error) for outcome in outcomes]
        return outcomes

    def runs_in_place(self, intent: Intent, /) -> bool:
        """What goes to a queue with `is_async=False`."""
        return not self._queue_and_options(intent)[0].is_async

    def why_down(self, intent: Intent, error: BaseException | None, /) -> str | None:
        """What Redis says if it cannot even keep a word for a moment."""
        queue, _ = self._queue_and_options(intent)
        try:
            queue.connection.set(f"{queue.key}:airlock", "", px=1)
        except Exception as refusal:
            return str(refusal)
        return None

    def _put(self, intent: Intent, pipeline: Any = None) -> None:
        queue, options = self._queue_and_options(intent)
        queue.enqueue_call(**{"pipeline": pipeline, **options})

    def _queue_and_options(self, intent: Intent) -> tuple[Queue, dict[str, Any]]:
        """The queue, and what to call its `enqueue_call` with."""
        options = {"job_id": intent.id, **intent.dispatch_options}
        queue = self._queues[options.pop("queue", self._default)]
        if "job_timeout" in options:  # as `enqueue` calls it
            options["timeout"] = options.pop("job_timeout")
        return queue, {"func": intent.task, "args": intent.args, "kwargs": dict(intent.kwargs), **options}

    def _shared_queue(self, intent: Intent) -> Queue | None:
        """The queue that it can go to together with others, if there is one."""
        queue, options = self._queue_and_options(intent)
        return queue if queue.is_async and GO_ALONE.isdisjoint(options) else None

    def __repr__(self) -> str:
        return f"RQExecutor({', '.join(map(repr, self._queues.values()))})"


def _check_is_importable(function: Any) -> None:
    name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", "")
    if "<" in name or module == "__main__":  # a lambda, or what a function has defined
        raise TypeError(
            f"No worker could import {module}.{name}. Enqueue a function at the top level of a module, and give it "
            "what it needs as arguments. If it is decorated, the decorator must use functools.wraps."
        )


class AirlockJob(Job):
    """A job with a scope around each run: what it enqueues goes out if the run succeeds, and only then.

        rq worker --job-class airlock.integrations.executors.rq.AirlockJob

    An exception discards, and so does a returned `rq.Retry`. Follow-ups go out through the configured executor, or else
    onto the queue that the job came from.
    """

    def perform(self) -> Any:
        """As in RQ, whose worker calls it."""
        # A worker imports the module of a job here, for its first run. It may be the one that configures the executor.
        _ = self.func
        is_configured = airlock.get_configuration().executor is not None
        queue = Queue(self.origin, connection=self.connection, serializer=self.serializer)
        result = None
        with suppress(_RetryAskedForError), airlock.scope(executor=None if is_configured else RQExecutor(queue)):
            result = super().perform()
            if isinstance(result, Retry):
                raise _RetryAskedForError
        return result


class _RetryAskedForError(Exception):
    """Leaves the scope of a run that returned a `Retry`."""
