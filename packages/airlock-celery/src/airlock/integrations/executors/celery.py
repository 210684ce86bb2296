"""Carry intents out through Celery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from celery import Celery, Task, current_app
from celery.canvas import Signature
from celery.local import Proxy
from kombu.exceptions import OperationalError

try:
    from airlock import Intent  # noqa: TC001 - not only a type here, but what tells ours from another `airlock`
    from airlock.integrations.executors.sync import sync_executor
except ImportError as error:
    raise ImportError(
        "airlock-celery found a module `airlock` that is not the one of airlock-core. Uninstall the distribution "
        "`airlock`, which is an unrelated project, then run: pip install --force-reinstall airlock-core"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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

    def accepts(self, task: object) -> bool:
        """Names of tasks, besides callables."""
        return isinstance(task, str)

    def __call__(self, intent: Intent, /) -> object:
        task = intent.task
        if isinstance(task, str):
            # As a signature does: a task that this process knows has options of its own, any other is just sent.
            app = self._app or current_app
            task = app.tasks.get(task) or app.signature(task)
        if not isinstance(task, (Task, Signature, TaskBelowOverride)):
            return sync_executor(intent)
        return self._publish(task, intent)

    def _publish(self, task: Task[..., Any] | Signature[Any] | TaskBelowOverride, intent: Intent) -> object:
        # What has no app of its own, such as the signature of an unknown name, has a proxy of the current one.
        app = task.app._get_current_object() if isinstance(task.app, Proxy) else task.app
        options = {"task_id": intent.id, **intent.dispatch_options}
        self._ask_for_broker(app, options)
        try:
            return task.apply_async(intent.args, dict(intent.kwargs), **options)
        except Exception:
            self._broker_is_there[app] = False
            raise

    def _ask_for_broker(self, app: Celery, options: Mapping[str, Any]) -> None:
        # Before it publishes, `apply_async` subscribes to the result. If that is on a Redis which is down, Celery tries
        # again for 19 seconds (seen in 5.4 to 5.7) - for every single intent. The broker is most often the same server,
        # and tells at once; so ask it before the first intent, and again after every failure.
        known = self._broker_is_there.get(app)
        if known or app.conf.task_always_eager or not options.keys().isdisjoint(("connection", "producer")):
            return
        retry: dict[str, Any] = {"max_retries": 0}
        if known is None and app.conf.task_publish_retry:
            policy = app.conf.task_publish_retry_policy
            retry |= {name: policy[name] for name in _OF_CONNECTING if name in policy}
        with app.connection_for_write() as connection:
            try:
                connection.ensure_connection(**retry)
            except OperationalError as error:
                self._broker_is_there[app] = False
                error.add_note(f"The broker at {connection.as_uri()} cannot be reached.")
                raise
        self._broker_is_there[app] = True

    def __repr__(self) -> str:
        return "celery_executor" if self is celery_executor else f"CeleryExecutor({self._app!r})"


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
