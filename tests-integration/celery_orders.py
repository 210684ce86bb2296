"""The Celery app of the tests with real workers: a project that takes orders.

`make_app` makes it, in the tests' own process as well. What `celery -A celery_orders` gets is at the end.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from celery import Celery, Task, chord, group, signals
from celery.backends.redis import RedisBackend
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry, SoftTimeLimitExceeded

import airlock
from airlock.integrations.celery import AirlockTask, LegacyTaskShim, install_global_intercept

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Signals:
    """What a task and a test tell each other while the task runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def tell(self, task_id: str, what: str) -> None:
        (self._directory / f"{task_id}.{what}").touch()

    def was_told(self, task_id: str, what: str) -> bool:
        return (self._directory / f"{task_id}.{what}").exists()

    def first_time(self, task_id: str, what: str) -> bool:
        """Tell it, and say whether it had not been told before."""
        told = self.was_told(task_id, what)
        self.tell(task_id, what)
        return not told

    def wait(self, task_id: str, what: str, timeout: float = 60) -> None:
        """Wait until it was told, for at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self.was_told(task_id, what):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{task_id} has not {what} within {timeout} s")
            time.sleep(0.01)


class TenantTask(Task):
    """Every message says whose it is: with an override of `apply_async`, as many projects have one."""

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, headers: Any = None, **options: Any) -> Any:
        return super().apply_async(args, kwargs, headers=add_tenant(headers or {}), **options)


class TenantShim(LegacyTaskShim):
    """The same, on its way to airlock."""

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, headers: Any = None, **options: Any) -> Any:
        return super().apply_async(args, kwargs, headers=add_tenant(headers or {}), **options)


def add_tenant(headers: Mapping[str, Any]) -> dict[str, Any]:
    # To be done once for a message: twice would show.
    return {**headers, "tenants": [*headers.get("tenants", []), "us"]}


class Unreachable(RedisBackend):
    """A result back end that is down, and gives up at once."""

    retry_policy: ClassVar = {"max_retries": 1, "interval_start": 0, "interval_step": 0}


#: The classes of all tasks of an app that are not given one.
TASK_CLASSES = {"Task": Task, "AirlockTask": AirlockTask, "TenantTask": TenantTask, "TenantShim": TenantShim}


def make_app(settings: Mapping[str, Any], task_cls: str = "Task") -> Celery:
    """The app.

    Args:
        settings: of Celery, and `signals`, the directory for what tasks and tests tell each other.
        task_cls: one of `TASK_CLASSES`.
    """
    settings = dict(settings)
    handshake = Signals(Path(settings.pop("signals")))
    app = Celery("orders", task_cls=TASK_CLASSES[task_cls], set_as_current=False)
    app.conf.update(settings)

    # Not shared: each app that a test makes has its own.
    task = functools.partial(app.task, shared=False)

    # Effects. Those that go to a queue of a test's own wait there, and are never run.

    @task(name="notify", bind=True)
    def notify(self: Task, told: Any = None) -> dict[str, Any]:
        request = self.request
        return {
            "told": told,
            "id": request.id,
            "parent": request.parent_id,
            "worker": request.hostname,
            "called_directly": request.called_directly,
            "scope": type(airlock.get_current_scope()).__name__,
        }

    # One run, that has effects and then comes to its end in one of many ways.

    def end(self: Task, wish: Callable[[Any], Any], effects: str, how: str) -> Any:
        task_id, attempt = self.request.id, self.request.retries
        if attempt:
            # Celery writes the state of an attempt after it has sent the next: that must not come after its result.
            handshake.wait(task_id, f"ended {attempt - 1}")
        wish(attempt)
        handshake.tell(task_id, "begun")
        match how:
            case "waits":
                handshake.wait(task_id, "may go on")
            case "fails":
                raise ValueError("no")
            case "cannot be dispatched":
                wish(object())
            case "retries" if attempt < 2:
                raise self.retry(countdown=0)
            case "retries for an exception" if attempt < 2:
                try:
                    raise ValueError("not yet")
                except ValueError as error:
                    raise self.retry(exc=error, countdown=0) from error
            case "retries automatically" if attempt < 2:
                raise LookupError("not yet")
            case "goes on after its retry" if attempt < 2:
                self.retry(countdown=0, throw=False)
            case "catches its retry" if attempt < 2:
                with suppress(Retry):
                    self.retry(countdown=0)
            case "retries in vain":
                raise self.retry(countdown=0)
            case "gives up":
                with suppress(MaxRetriesExceededError):
                    raise self.retry(countdown=0)
            case "cannot be retried":
                raise self.retry(args=(object(),))
            case "raises a retry":
                raise Retry("by hand")
            case "is rejected":
                raise Reject("no", requeue=False)
            case "is rejected once" if handshake.first_time(task_id, "rejected"):
                raise Reject("not yet", requeue=True)
            case "is ignored":
                raise Ignore
            case "is replaced by a task":
                self.replace(part.si(effects, "replacement"))
            case "returns its replacement":
                return self.replace(part.si(effects, "replacement"))
            case "is replaced by a chain":
                self.replace(part.si(effects, "first") | part.si(effects, "second"))
            case "is replaced by a group":
                self.replace(group(part.si(effects, "one"), part.si(effects, "other")))
            case "goes on after its replacement":
                with suppress(Ignore):
                    self.replace(part.si(effects, "replacement"))
            case "calls a task":
                part(effects, "called")
            case "calls a task, and fails":
                part(effects, "called")
                raise ValueError("no")
            case "calls a task that fails":
                with suppress(ValueError):
                    part(effects, "called", fails=True)
            case "applies a task":
                part.apply((effects, "applied"))
            case "applies a task, and fails":
                part.apply((effects, "applied"))
                raise ValueError("no")
            case "applies a task that fails":
                part.apply((effects, "applied"), {"fails": True})
            case "calls itself":
                self(effects, "succeeds")
            case "exits":
                raise SystemExit(3)
            case "takes too long":
                time.sleep(60)
            case "takes a while":
                time.sleep(1)
            case "takes too long, and makes do":
                with suppress(SoftTimeLimitExceeded):
                    time.sleep(60)
            case "takes too long to dispatch":
                airlock.enqueue(lambda: handshake.first_time(task_id, "dispatching") and time.sleep(60))
            case "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "is killed once" if handshake.first_time(task_id, "died"):
                os.kill(os.getpid(), signal.SIGKILL)
        wish("end")
        return attempt

    options: dict[str, Any] = {"bind": True, "autoretry_for": (LookupError,), "default_retry_delay": 0}

    def enqueue(effects: str, told: Any) -> None:
        airlock.enqueue(notify, told, _dispatch_options={"queue": effects})

    @task(name="order", base=AirlockTask, **options)
    def order(self: Task, effects: str, how: str = "succeeds") -> Any:
        return end(self, functools.partial(enqueue, effects), effects, how)

    @task(name="legacy_order", **options)
    def legacy_order(self: Task, effects: str, how: str = "succeeds") -> Any:
        return end(self, lambda told: notify.apply_async((told,), queue=effects), effects, how)

    @task(name="late_order", base=AirlockTask, acks_late=True, **options)
    def late_order(self: Task, effects: str, how: str) -> Any:
        return end(self, functools.partial(enqueue, effects), effects, how)

    @task(name="persistent_order", base=AirlockTask, acks_late=True, reject_on_worker_lost=True, **options)
    def persistent_order(self: Task, effects: str, how: str) -> Any:
        return end(self, functools.partial(enqueue, effects), effects, how)

    @task(name="unstored_order", base=AirlockTask, backend=Unreachable(app=app, url="redis://127.0.0.1:1"), **options)
    def unstored_order(self: Task, effects: str, how: str) -> Any:
        return end(self, functools.partial(enqueue, effects), effects, how)

    @task(name="part", base=AirlockTask)
    def part(effects: str, told: str, fails: bool = False) -> str:
        enqueue(effects, told)
        if fails:
            raise ValueError("no")
        return told

    @signals.task_success.connect(weak=False)
    def succeeded(sender: Task, **_: Any) -> None:
        # Its effects are in the broker, and its message, if that is acknowledged late, is not acknowledged.
        handshake.tell(sender.request.id, "succeeded")
        if "waits when it has succeeded" in sender.request.args:
            handshake.wait(sender.request.id, "may go on")

    @signals.task_postrun.connect(weak=False)
    def ended(task_id: str, task: Task, **_: Any) -> None:
        handshake.tell(task_id, f"ended {task.request.retries}")
        handshake.tell(task_id, f"ended as {task.name}")
        handshake.tell(task_id, "ended")

    @task(name="parent", base=AirlockTask, bind=True)
    def parent(self: Task, queue: str | None = None) -> dict[str, Any]:
        intent = airlock.enqueue(notify, "child", _dispatch_options={"queue": queue} if queue else None)
        return {
            "child": intent.id,
            "id": self.request.id,
            "args": list(self.request.args),
            "worker": self.request.hostname,
            "called_directly": self.request.called_directly,
            "is_eager": self.request.is_eager,
            "scope": type(airlock.get_current_scope()).__name__,
        }

    class Strict(AirlockTask):
        """Judges, sends and ends in its own way."""

        abstract = True

        def get_policy(self) -> airlock.Policy:
            return airlock.BlockTasks({"blocked"})

        def get_executor(self) -> airlock.Executor:
            return lambda intent: notify.apply_async((f"by its own executor: {intent.args[0]}",), queue=intent.args[1])

        def should_flush(self, error: BaseException | None) -> bool:
            return isinstance(error, LookupError)

    @task(name="strict_order", base=Strict)
    def strict_order(effects: str, error: str | None) -> None:
        airlock.enqueue(notify, error, effects)
        airlock.enqueue(notify, error, effects, _name="blocked")
        if error:
            raise {"lookup": LookupError, "value": ValueError}[error](error)

    # Sums, of which canvases are made.

    @task(name="add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    @task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @task(name="replaced", bind=True)
    def replaced(self: Task, how: str) -> Any:
        replacements = {
            "task": lambda: add.s(1, 2),
            "chain": lambda: add.s(1, 2) | add.s(3),
            "chord": lambda: chord([add.s(1, 2), add.s(3, 4)], total.s()),
        }
        return self.replace(replacements[how]())

    @task(name="growing", bind=True)
    def growing(self: Task, x: int) -> int:
        self.add_to_chord(add.s(x, 10))
        return x

    @task(name="fail")
    def fail() -> None:
        raise ValueError("no")

    @task(name="legacy_canvas")
    def legacy_canvas(effects: str, how: str, fails: bool) -> None:
        first, second = (notify.si(what).set(queue=effects) for what in ("first", "second"))
        match how:
            case "signature":
                first.delay()
            case "chain":
                (first | second).delay()
            case "group":
                group(first, second)()
            case "chord":
                chord([first, second])(add.si(0))
        handshake.tell(effects, "called")
        handshake.wait(effects, "may go on")
        if fails:
            raise ValueError("no")

    @task(name="compensate")
    def compensate(failed: Any, error: Exception, traceback: Any, effects: str) -> None:
        notify.apply_async(("compensate",), queue=effects)

    return app


def instrument() -> None:
    """Wrap `Task.apply_async`, as instrumentations (Sentry, for one) do."""
    original = Task.apply_async

    @functools.wraps(original)
    def instrumented(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    Task.apply_async = instrumented


if "AIRLOCK_TEST_CELERY" in os.environ:
    _kind = json.loads(os.environ["AIRLOCK_TEST_KIND"])
    if _kind["instrumented"] == "before":
        instrument()
    if _kind["intercepted"]:
        install_global_intercept()
    if _kind["instrumented"] == "after":
        instrument()
    app = make_app(json.loads(os.environ["AIRLOCK_TEST_CELERY"]), _kind["task_cls"])
    app.set_default()
