"""Carry intents out through Celery.

This is a package so that the module `celery.py` of another project, `airlock-py`, cannot take its place.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from functools import cache, partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from celery import Celery, Task
from celery.app import app_or_default
from celery.canvas import Signature
from celery.exceptions import SoftTimeLimitExceeded
from celery.local import maybe_evaluate
from kombu.exceptions import EncodeError, OperationalError

# First of our modules, as it tells Airlock from other projects, and says so.
try:
    from airlock.integrations.executors.sync import sync_executor
except ModuleNotFoundError as error:
    raise ImportError(
        "airlock-celery needs airlock-core, and it is not there. Run: pip install --force-reinstall airlock-core"
    ) from error

from airlock import OutcomeUnknown
from airlock.ext import dispatch_one, register_interruption, run_in_context
from airlock.integrations.executors.celery._batches import OneByOne, is_on_rabbitmq, open_batch
from airlock.integrations.executors.celery._message import Message, record
from airlock.integrations.executors.celery._outage import why_down
from airlock.integrations.executors.celery._tasks import (
    UNBATCHED,
    by_airlock,
    is_canvas,
    is_plain,
    is_plain_canvas,
    overrides_apply_async,
    take_from_generators,
    takes_options,
    takes_retry_policy,
    task_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airlock import Intent
    from airlock.ext import Outcome

logger = logging.getLogger("airlock")

__all__ = ["CeleryExecutor", "Message", "celery_executor"]

#: How many intents go to the broker together, so that memory stays bounded.
MAX_INTENTS = 1000

register_interruption(SoftTimeLimitExceeded)


class CeleryExecutor:
    """Publishes the intent's task; the id of the intent becomes the id of the task.

    It takes whatever has an `apply_async`: Celery tasks, signatures, chains, groups and chords, and what stands in for
    them; names of tasks; and any other callable, which it calls in place. Dispatch options go to `apply_async` as they
    are.

    Args:
        app: the Celery app that task names belong to; by default the current one.

    Raises:
        kombu.exceptions.OperationalError: if the broker cannot be reached.
        kombu.exceptions.EncodeError: if an argument cannot be serialised.
        Exception: whatever else `apply_async`, or a callable, raises.
    """

    def __init__(self, app: Celery | None = None) -> None:
        self._app = app
        #: `ids`: of what was left of the flush of this thread that could not reach a broker.
        self._given_up = threading.local()

    def accepts(self, task: object) -> bool:
        """What is not callable, but a name of a task, or has an `apply_async`."""
        return isinstance(task, str) or self._to_publish(task) is not None

    def check(self, intent: Intent, /) -> None:
        """Refuse arguments that do not fit the task, as `.delay()` does.

        Tasks that override `apply_async` are left alone: the override may take arguments that the task does not.

        Raises:
            TypeError: if they do not fit, and the task has `typing`.
        """
        called = self._to_publish(intent.task)
        if isinstance(called, Signature):
            take_from_generators(called)
        task: Any = task_of(called)
        # Tasks that are classes have no `__header__`.
        if task is None or not task.typing or not hasattr(task, "__header__"):
            return
        call = called.clone(intent.args, dict(intent.kwargs)) if isinstance(called, Signature) else intent
        try:
            task.__header__(*call.args, **call.kwargs)
        except TypeError:
            if not overrides_apply_async(task):
                raise

    def __call__(self, intent: Intent, /) -> None:
        called = self._to_publish(intent.task)
        if (app := self._app_of(intent, is_plain) or self._app_of_canvas(intent)) is not None:
            # In one step, as an interruption may come after it.
            if (outcome := self._outcomes_of([intent], lambda _: app)[0]) is not None:
                if isinstance(outcome, OutcomeUnknown) and _is_interruption(outcome.error):
                    raise outcome.error
                raise outcome
        elif called is None:
            sync_executor(intent)
        elif self._retries(intent) or not takes_retry_policy(called):
            self._publish(intent, [])
        else:
            self._publish(intent, [], retry_policy={"max_retries": 0})

    def dispatch_many(self, intents: Sequence[Intent], /) -> list[Outcome]:
        """Publish intents over one producer: on Redis in one pipeline, on RabbitMQ with one wait for its confirms.

        At most 1000 go together. A callable among them, a canvas, or a task that overrides `apply_async`, goes by
        itself, in its turn.

        Returns:
            What became of the intents, up to the first that failed: for each `None` if the broker has it, the exception
            if not, or `airlock.OutcomeUnknown`. If a batch fails as a whole, that is what all of it is.
        """
        if type(self).__call__ is not CeleryExecutor.__call__:  # a subclass that looks at each intent
            return self._outcomes_of(intents, lambda _: None)
        # It is looked once at each app and task.
        return self._outcomes_of(intents, partial(self._app_of, is_plain=cache(is_plain)))

    def confirms(self, intent: Intent, /) -> bool:
        """Whether the broker has an intent for sure when it counts as dispatched. It asks nobody over the network.

        RabbitMQ says what it has only to those who ask, and not all is published by code that does: chords, tasks that
        override `apply_async`, and what has options that say how to reach the broker. With
        `broker_transport_options = {"confirm_publish": True}`, all is confirmed. Other brokers answer in any case.
        """
        called = self._to_publish(intent.task)
        app = getattr(called, "app", None) or self.app
        if called is None or app.conf.task_always_eager or not is_on_rabbitmq(app):
            return True
        is_ours = self._app_of(intent, is_plain) or self._app_of_canvas(intent)
        return is_ours is not None or bool(app.conf.broker_transport_options.get("confirm_publish"))

    def runs_in_place(self, intent: Intent, /) -> bool:
        """A callable that is no task, and whatever runs eagerly."""
        called = self._to_publish(intent.task)
        return called is None or bool((getattr(called, "app", None) or self.app).conf.task_always_eager)

    def why_down(self, intent: Intent, error: BaseException | None, /) -> str | None:
        """Why the broker of the task's app takes nothing just now, if so: it is asked over the network."""
        return why_down(getattr(self._to_publish(intent.task), "app", None) or self.app, error)

    @property
    def app(self) -> Celery:
        """The Celery app that it publishes with."""
        return app_or_default(self._app)

    def record(self, intent: Intent, /) -> Message | None:
        """Keep what would be published for an intent, so that it can be published later, perhaps by another process.

        It asks nobody over the network. Celery's signals for a message that is published come now.

        Returns:
            The message, or `None` if the intent is to be called instead: a callable, a canvas, a task that overrides
            `apply_async` or runs eagerly, or with options that say how to reach the broker.

        Raises:
            airlock.UsageError: if another process could not publish it: the task is of another app, its arguments are
                pickled, its queue is not one of the app's, or its headers are not JSON.
            kombu.exceptions.EncodeError: if an argument cannot be serialised.
        """
        app = self._app_of(intent, is_plain)
        return None if app is None else record(app, self.app, self._to_publish(intent.task), intent)

    def parent_options(self, intent: Intent, /) -> dict[str, Any]:
        """Options that tell `apply_async` which task has enqueued an intent, for when that does not run any more.

        Returns:
            The `parent_id` and the `root_id` that Celery adds to what a running task publishes. Nothing, if no task
            runs here, or for a canvas, or if an override takes no such options.
        """
        task = task_of(self._to_publish(intent.task))
        parent = self.app.current_worker_task
        if task is None or parent is None or not takes_options(task):
            return {}
        return {"parent_id": parent.request.id, "root_id": parent.request.root_id or parent.request.id}

    def _outcomes_of(self, intents: Sequence[Intent], app_of: Callable[[Intent], Celery | None]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        try:
            for app, together in groupby(intents[:MAX_INTENTS], lambda intent: app_of(intent) or intent):
                run = list(together)
                if app is run[0]:  # an intent that goes by itself
                    outcomes.append(dispatch_one(self, run[0]))
                else:
                    self._together(app, run, self._retries(run[0]), outcomes)
                if outcomes.count(None) < len(outcomes):
                    break
            if OperationalError in map(type, outcomes) and self._retries(intents[-1]):
                # A scope that goes on after a failure comes again, with what is left.
                self._given_up.ids = {intent.id for intent in intents[len(outcomes) :]}
            return outcomes  # noqa: TRY300 - here: what interrupts on this very line does not lose them
        except BaseException as error:  # an interruption, such as Ctrl-C: what is noted by now counts
            if len(outcomes) < len(intents):
                outcomes.append(OutcomeUnknown(error))
            else:
                logger.warning("%r came when all was dispatched: ignored", error)
            return outcomes

    def _retries(self, intent: Intent) -> bool:
        return intent.id not in getattr(self._given_up, "ids", ())

    def _together(self, app: Any, run: Sequence[Intent], retries: bool, outcomes: list[Outcome]) -> None:
        published: list[Intent] = []
        settled = len(outcomes)
        batch = None
        try:
            with app.producer_or_acquire() as producer, open_batch(app, producer, retries) as batch:
                options = batch.canvas_options if is_canvas(self._to_publish(run[0].task)) else batch.options
                try:
                    for intent in run:
                        self._publish(intent, published, **options)
                finally:
                    outcomes.extend(batch.send(published))
        except BaseException as error:
            failed = OutcomeUnknown(error) if _is_interruption(error) else error
            unsettled = settled + len(published) - len(outcomes)
            if batch is None and failed is error:
                outcomes.extend([error] * len(run))  # the broker is not there
            elif unsettled and type(batch) is not OneByOne:
                outcomes.extend([OutcomeUnknown(error)] * unsettled)  # they were sent, and not all answered
            else:
                outcomes.extend([None] * unsettled)
                if len(published) == len(run):
                    raise  # it came when all was done
                outcomes.append(failed)  # the one after those that were published

    def _publish(self, intent: Intent, published: list[Intent], **options: Any) -> None:
        options = {**options, **intent.dispatch_options}
        if "task_id" not in options:  # to make an id takes a while
            options["task_id"] = intent.id
        apply_async = self._to_publish(intent.task).apply_async
        publish = partial(apply_async, intent.args, dict(intent.kwargs), **options)
        run_in_context(intent, _publish_and_note, publish, intent, published)

    # -- What is a task, and which go together -----------------------------------------------------------------------

    def _to_publish(self, task: Any) -> Any:
        """What has an `apply_async`, or `None` if the task is just to be called."""
        if isinstance(task, str):
            # As a signature does: a task that this process knows has options of its own, any other is just sent.
            return self.app.tasks.get(task) or self.app.signature(task)
        task = maybe_evaluate(task)  # of `app.task`: a proxy, which is slow to ask
        return task if hasattr(task, "apply_async") and not isinstance(task, type) else None

    def _app_of(self, intent: Intent, is_plain: Callable[[Any, Any], bool]) -> Celery | None:
        """The app over whose producer the intent can be published together with others, if there is one."""
        with suppress(Exception):  # as when the settings of an app cannot be loaded: `apply_async` will say so
            called: Any = self._to_publish(intent.task)
            options = {*intent.dispatch_options, *(called.options if type(called) is Signature else ())}
            if (type(called) is Signature or isinstance(called, Task | Message)) and UNBATCHED.isdisjoint(options):
                return called.app if is_plain(called.app, task_of(called)) else None
        return None

    def _app_of_canvas(self, intent: Intent) -> Celery | None:
        """The app over whose channel a canvas goes to RabbitMQ, so that it is confirmed, if all of it can."""
        with suppress(Exception):
            called: Any = self._to_publish(intent.task)
            if UNBATCHED.isdisjoint(intent.dispatch_options) and is_plain_canvas(called):
                return called.app if is_on_rabbitmq(called.app) else None
        return None

    def __repr__(self) -> str:
        return "celery_executor" if self is celery_executor else f"CeleryExecutor({self._app!r})"


def _publish_and_note(publish: Callable[[], Any], intent: Intent, published: list[Intent]) -> None:
    by_airlock.set(True)  # in the context of the intent, or in a copy
    try:
        # In one step: what interrupts comes before or after that.
        published.append((publish(), intent)[1])
    except EncodeError as error:
        if isinstance(error.__context__, SoftTimeLimitExceeded):  # Kombu blames what is being encoded
            raise error.__context__ from None
        raise


def _is_interruption(error: BaseException) -> bool:
    return not isinstance(error, Exception) or isinstance(error, SoftTimeLimitExceeded)


celery_executor = CeleryExecutor()
