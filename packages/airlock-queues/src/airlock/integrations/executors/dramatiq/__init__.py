"""Carry intents out as messages of Dramatiq, and hold what an actor enqueues until it succeeds."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

# First of our modules, as it tells Airlock from other projects, and says so.
from airlock.integrations.executors.sync import sync_executor

# isort: split
from dramatiq import Actor, Message

import airlock

if TYPE_CHECKING:
    from airlock import Intent

__all__ = ["AirlockActor", "DramatiqExecutor", "dramatiq_executor"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class DramatiqExecutor:
    """Sends the intent's actor a message; the id of the intent becomes the id of the message.

    It takes actors, and any other callable, which it calls in place, such as the `run` of a group or a pipeline.
    Dispatch options are those of `send_with_options`.

    Raises:
        Exception: whatever the broker, or a callable, raises.
    """

    def check(self, intent: Intent, /) -> None:
        """Refuse what the actor could not be called with.

        Raises:
            TypeError: if the arguments do not fit, or cannot be encoded.
        """
        if isinstance(intent.task, Actor):
            inspect.signature(intent.task.fn).bind(*intent.args, **intent.kwargs)
            message, _ = _message_of(intent)
            message.encode()

    def __call__(self, intent: Intent, /) -> None:
        if isinstance(intent.task, Actor):
            message, delay = _message_of(intent)
            intent.task.broker.enqueue(message, delay=delay)
        else:
            sync_executor(intent)

    def runs_in_place(self, intent: Intent, /) -> bool:
        """A callable that is no actor."""
        return not isinstance(intent.task, Actor)

    def why_down(self, intent: Intent, error: BaseException | None, /) -> str | None:
        """What RabbitMQ says if there is no connection to it, or Redis if it cannot even keep a word for a moment."""
        broker: Any = intent.task.broker
        try:
            if hasattr(broker, "client"):  # Redis
                broker.client.set(f"{broker.namespace}:airlock", "", px=1)
            elif hasattr(broker, "connection"):  # RabbitMQ
                try:
                    broker.connection.process_data_events(0)
                except Exception:
                    del broker.connection  # Dramatiq would keep it: next time there is a new one
                    raise
        except Exception as refusal:
            return str(refusal) or repr(refusal)
        return None

    def __repr__(self) -> str:
        return "dramatiq_executor"


def _message_of(intent: Intent) -> tuple[Message[Any], int | None]:
    """What `send_with_options` would send, and with how many milliseconds of delay."""
    options = dict(intent.dispatch_options)
    delay = options.pop("delay", None)
    if isinstance(delay, timedelta):
        delay = int(delay.total_seconds() * 1000)
    message = intent.task.message_with_options(args=intent.args, kwargs=dict(intent.kwargs), **options)
    return message.copy(message_id=intent.id), delay


dramatiq_executor = DramatiqExecutor()


class AirlockActor(Actor[_P, _R]):
    """An actor with a scope around each run: what it enqueues goes out if the run succeeds, and only then.

        @dramatiq.actor(actor_class=AirlockActor, max_retries=3)
        def process_order(order_id): ...

    An exception discards: a failure, `Retry`, a time limit. So of several attempts only the one that succeeds has
    effects. Follow-ups go out through the configured executor, or else through Dramatiq.
    """

    # Around the call, and not in a middleware: if the effects cannot go out, the run has failed, and is retried. What
    # a middleware raises after a run is only logged.
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """As in Dramatiq, whose worker calls it."""
        is_configured = airlock.get_configuration().executor is not None
        with airlock.scope(executor=None if is_configured else dramatiq_executor):
            return super().__call__(*args, **kwargs)
