"""Carry intents out through Celery.

This is a package so that the module `celery.py` of another project, `airlock-py`, cannot take its place.
"""

from __future__ import annotations

import threading
from copy import copy
from functools import partial
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from celery import Celery, Task, current_app
from celery.canvas import Signature
from celery.local import Proxy
from kombu.exceptions import OperationalError

# First of our modules, as it tells Airlock from other projects, and says so.
try:
    from airlock.integrations.executors.sync import sync_executor
except ModuleNotFoundError as error:
    raise ImportError(
        "airlock-celery needs airlock-core, and it is not there. Run: pip install --force-reinstall airlock-core"
    ) from error

from airlock.ext import dispatch_one, run_in_context
from airlock.integrations.executors._celery_batch import (
    MAX_INTENTS,
    OpenBatch,
    all_accepted,
    at_once,
    once,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from kombu import Connection

    from airlock import Intent
    from airlock.ext import Outcome

    _Publishable: TypeAlias = "Task[..., Any] | Signature[Any] | TaskBelowOverride"

#: What of `task_publish_retry_policy` is about connecting.
_OF_CONNECTING = ("max_retries", "interval_start", "interval_step", "interval_max")

__all__ = ["CeleryExecutor", "celery_executor"]


class CeleryExecutor:
    """Publishes the intent's task; the id of the intent becomes the id of the task.

    It takes Celery tasks, signatures, chains, groups and chords, names of tasks, and any other callable, which it calls
    in place. Dispatch options go to `apply_async` as they are.

    For a chain, the id is that of its last task; for a group, of its group result; for a chord, of its body.

    Args:
        app: the Celery app that task names belong to; by default the current one.

    Raises:
        kombu.exceptions.OperationalError: if the broker cannot be reached.
        kombu.exceptions.EncodeError: if an argument cannot be serialised.
        Exception: whatever else `apply_async`, or a callable, raises.
    """

    def __init__(self, app: Celery | None = None) -> None:
        self._app = app
        #: Whether the broker of an app was there when it was last needed.
        self._broker_is_there: WeakKeyDictionary[Celery, bool] = WeakKeyDictionary()
        self._latest = _LatestFlush()

    def accepts(self, task: object) -> bool:
        """Names of tasks, besides callables."""
        return isinstance(task, str)

    def check(self, intent: Intent, /) -> None:
        """Refuse arguments that do not fit the task, as `.delay()` does.

        Tasks that override `apply_async` are left alone: the override may take arguments that the task does not.

        Raises:
            TypeError: if they do not fit, and the task has `typing`.
        """
        task: Any = intent.task
        if isinstance(task, str):
            task = (self._app or current_app).tasks.get(task)
        if isinstance(task, Task) and task.typing and not _overrides_apply_async(task):
            check_arguments = getattr(task, "__header__", None)  # not there for tasks that are classes
            if check_arguments is not None:
                check_arguments(*intent.args, **intent.kwargs)

    def __call__(self, intent: Intent, /) -> object:
        task = self._to_publish(intent)
        if task is None:
            return sync_executor(intent)
        app = _app_of(task)
        with at_once(app) as is_connected:
            if not is_connected:
                self._ask_for_broker(app, intent.dispatch_options)
            try:
                return self._publish(task, intent)
            except Exception:
                self._broker_is_there[app] = False
                raise

    def dispatch_many(self, intents: Sequence[Intent], /) -> list[Outcome]:
        """Publish intents over one producer; on Redis and RabbitMQ, in one round trip.

        Signals, routers and overrides of `apply_async` are called, and messages arrive, as one by one and in the same
        order. A callable among them is called when all before it were sent.

        Args:
            intents: what to publish. At most 1000, of about 4 MiB in all, go to the broker together.

        Returns:
            What became of the intents, up to the first that failed: for each `None` if the broker has it, the exception
            if not, or `airlock.OutcomeUnknown`. On RabbitMQ without `confirm_publish`, fewer than 16 messages at a time
            count as accepted when they are written to the connection, as always with Celery.
        """
        outcomes: list[Outcome] = []
        not_reached = self._latest.not_reached_before(intents[0])
        for app, run in groupby(self._prepared(intents), itemgetter(0)):
            dispatch = self._one_by_one if app is None else partial(self._together, app, not_reached)
            outcomes += dispatch(run)
            if len(outcomes) >= MAX_INTENTS or not all_accepted(outcomes):
                break
        self._latest.goes_on(intents[len(outcomes) :][:1], not_reached)
        return outcomes

    def _prepared(self, intents: Iterable[Intent]) -> Iterator[_Prepared]:
        eager: dict[Celery, bool] = {}
        for intent in intents:
            task = app = problem = None
            try:
                task = self._to_publish(intent)
                app = None if task is None else self._app_to_publish_by(task, intent.dispatch_options, eager)
            except Exception as error:  # as when the settings of an app cannot be loaded
                problem = error
            yield _Prepared(app, task, intent, problem)

    def _app_to_publish_by(
        self, task: _Publishable, options: Mapping[str, Any], eager: dict[Celery, bool]
    ) -> Celery | None:
        """The app over whose producer the task can be published together with others, if there is one."""
        # A subclass that looks at each intent goes on doing so.
        if type(self).__call__ is not CeleryExecutor.__call__ or _brings_its_own(options):
            return None
        app = _app_of(task)
        if app not in eager:
            eager[app] = app.conf.task_always_eager
        return None if eager[app] else app

    def _one_by_one(self, run: Iterable[_Prepared]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for prepared in run:
            outcomes.append(dispatch_one(self, prepared.intent) if prepared.problem is None else prepared.problem)
            if outcomes[-1] is not None:
                break
        return outcomes

    def _together(self, app: Celery, not_reached: dict[Celery, Exception], run: Iterable[_Prepared]) -> list[Outcome]:
        if app in not_reached:
            return [not_reached[app] for _ in run]
        opening = OpenBatch(app, partial(_patience, app, self._broker_is_there.get(app)))
        batch = None
        are_accepted = False
        try:
            with opening as batch:
                for _, task, intent, _ in run:
                    batch.begin()
                    try:
                        run_in_context(intent, self._publish, task, intent)
                    except BaseException as error:
                        batch.fail(error)
                    if batch.is_full:
                        break
                batch.send()
                outcomes = batch.outcomes()
            are_accepted = all_accepted(outcomes)
        except BaseException as error:
            if batch is not None:
                raise
            if isinstance(error, Exception):
                not_reached[app] = copy(error)  # without the traceback, and what that keeps alive
            return [error for _ in run]  # not for those beyond the first 1000 either
        else:
            return outcomes
        finally:
            opening.close()
            self._broker_is_there[app] = are_accepted

    def _to_publish(self, intent: Intent) -> _Publishable | None:
        """What of the intent has an `apply_async`, if it is not just to be called."""
        task = intent.task
        if isinstance(task, str):
            # As a signature does: a task that this process knows has options of its own, any other is just sent.
            app = self._app or current_app
            task = app.tasks.get(task) or app.signature(task)
        return task if isinstance(task, (Task, Signature, TaskBelowOverride)) else None

    def _publish(self, task: Any, intent: Intent) -> object:
        return task.apply_async(intent.args, dict(intent.kwargs), **{"task_id": intent.id, **intent.dispatch_options})

    def _ask_for_broker(self, app: Celery, options: Mapping[str, Any]) -> None:
        # Before it publishes, `apply_async` subscribes to the result. If that is on a Redis which is down, Celery tries
        # again for 19 seconds (seen in 5.4 to 5.7) - for every single intent. The broker is most often the same server,
        # and tells at once; so ask it before the first intent, and again after every failure.
        known = self._broker_is_there.get(app)
        if known or app.conf.task_always_eager or _brings_its_own(options):
            return
        with app.connection_for_write() as connection:
            try:
                connection.ensure_connection(**_patience(app, known, connection))
            except OperationalError as error:
                self._broker_is_there[app] = False
                error.add_note(f"The broker at {connection.as_uri()} cannot be reached.")
                raise
        self._broker_is_there[app] = True

    def __repr__(self) -> str:
        return "celery_executor" if self is celery_executor else f"CeleryExecutor({self._app!r})"


def _app_of(task: _Publishable) -> Celery:
    # What has no app of its own, such as the signature of an unknown name, has a proxy of the current one.
    app: Celery = task.app._get_current_object() if isinstance(task.app, Proxy) else task.app  # noqa: SLF001 - as documented
    return app


def _overrides_apply_async(task: Task[..., Any]) -> bool:
    # Not its `type`: the task may be a proxy.
    owner = next(cls for cls in task.__class__.__mro__ if "apply_async" in vars(cls))
    return owner.__module__.partition(".")[0] not in ("airlock", "celery")


def _brings_its_own(options: Mapping[str, Any]) -> bool:
    return not options.keys().isdisjoint(("connection", "producer"))


def _patience(app: Celery, known: bool | None, connection: Connection) -> dict[str, Any]:
    """How to connect: as to publish, and without trying again if the broker was not there when it was last needed."""
    retry: dict[str, Any] = once(connection)
    if known is not False and app.conf.task_publish_retry:
        policy = app.conf.task_publish_retry_policy
        retry |= {name: policy[name] for name in _OF_CONNECTING if name in policy}
    return retry


class _LatestFlush(threading.local):
    """Which brokers could not be reached in the latest flush of this thread, should it go on after that failure.

    A scope that does not stop at a failure, as a `DjangoScope`, comes again at once, with the intents that are left.
    """

    _next: str | None = None
    _not_reached: Mapping[Celery, Exception] = MappingProxyType({})

    def goes_on(self, left: Sequence[Intent], not_reached: Mapping[Celery, Exception]) -> None:
        self._next, self._not_reached = (left[0].id, not_reached) if left and not_reached else (None, {})

    def not_reached_before(self, intent: Intent) -> dict[Celery, Exception]:
        is_next = self._next is not None and self._next == intent.id
        return dict(self._not_reached) if is_next else {}


class _Prepared(NamedTuple):
    """What is to be published for an intent, and over the producer of which app, if it can go together with others."""

    app: Celery | None
    task: _Publishable | None
    intent: Intent
    #: Why that could not be found out.
    problem: Exception | None


class TaskBelowOverride:
    """A task whose class overrides `apply_async`, when the override has called `super().apply_async` in a scope.

    It has done its work by then. So at dispatch it is not called again; what it called is.
    """

    def __init__(self, task: Task[..., Any], apply_async: Callable[..., Any]) -> None:
        self.name = task.name
        self.app = task.app
        self.task = task
        self.apply_async = apply_async

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.task(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self.task)


celery_executor = CeleryExecutor()
