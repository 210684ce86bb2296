"""Three ways to publish several tasks over one producer, which is given to `apply_async`."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from amqp.exceptions import MessageNacked
from kombu.exceptions import KombuError, OperationalError
from kombu.transport import pyamqp

from airlock.integrations.executors.celery._confirms import ConfirmingChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery

    from airlock import Intent
    from airlock.ext import Outcome

#: What of `task_publish_retry_policy` is about connecting.
_CONNECTION_KEYS = {"max_retries", "interval_start", "interval_step", "interval_max"}


class OneByOne:
    """Each message goes to the broker by itself, as always."""

    def __init__(self, producer: Any, retries: bool) -> None:
        #: What to publish with: options of `apply_async`. (With `retry=False`, Kombu may try to connect for ever.)
        self.options = {"producer": producer} if retries else {"producer": producer, "retry_policy": {"max_retries": 0}}
        #: The same for a canvas.
        self.canvas_options = self.options

    def __enter__(self) -> OneByOne:
        return self

    def send(self, intents: Sequence[Intent]) -> list[Outcome]:
        """Have the broker take what was published, and tell what became of each. If it raises, nobody knows."""
        return [None] * len(intents)

    def __exit__(self, *error: object) -> None: ...


class Pipeline(OneByOne):
    """Kombu 5.7 keeps the messages, and they go to Redis together."""

    def __init__(self, app: Celery, channel: Any) -> None:
        self.options = self.canvas_options = _of_its_own(app, channel)
        self._batch = self.options["producer"].batch(max_size=sys.maxsize)  # how many go together is up to the executor

    def __enter__(self) -> Pipeline:
        self._batch.__enter__()
        return self

    def send(self, intents: Sequence[Intent]) -> list[Outcome]:
        try:
            return [self._batch.flush()] * len(intents)
        except KombuError as error:
            raise OperationalError(str(error.__cause__ or error)) from error  # as without a batch

    def __exit__(self, *error: object) -> None:
        self._batch.__exit__(*error)


class Confirmed(OneByOne):
    """Messages go to RabbitMQ as they are published, and its confirms are waited for at the end."""

    def __init__(self, app: Celery, connection: Any, channel: ConfirmingChannel) -> None:
        self.options = _of_its_own(app, channel)
        # A chain keeps the producer to itself, but gives its first task the connection.
        self.canvas_options = {**self.options, "connection": channel}
        self._connection = connection
        self._channel = channel
        channel.refused.clear()

    def send(self, intents: Sequence[Intent]) -> list[Outcome]:
        known = self._connection.recoverable_connection_errors + self._connection.recoverable_channel_errors
        try:
            self._channel.wait_for_confirms()
        except known as error:
            raise OperationalError(str(error)) from error  # as Kombu does, also with what comes next
        refusal = OperationalError if issubclass(MessageNacked, known) else MessageNacked
        refused = self._channel.refused - {None}  # an event
        task_ids = [intent.dispatch_options.get("task_id") or intent.id for intent in intents]
        if not refused.issubset(task_ids):
            raise refusal("RabbitMQ refused a message, and its correlation id is not that of an intent.")
        return [refusal("RabbitMQ refused the message.") if task_id in refused else None for task_id in task_ids]

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._connection.collect()  # there may be answers to come, or half a message was sent


def is_on_rabbitmq(app: Celery) -> bool:
    """Whether an app publishes to RabbitMQ. It is not asked."""
    return _is_rabbitmq(app.producer_pool.connections.connection)


def _is_rabbitmq(connection: Any) -> bool:
    return getattr(connection.transport, "Connection", None) is pyamqp.Connection


def open_batch(app: Celery, producer: Any, retries: bool) -> OneByOne:
    """Choose a way to publish, and make sure that the broker is there.

    Raises:
        kombu.exceptions.OperationalError: if it cannot be reached, also when `retries` with Celery's retry policy.
    """
    connection = producer.connection
    if _is_rabbitmq(connection):
        channel = _ensured(app, producer, retries, lambda: ConfirmingChannel.of(connection.connection))
        if channel is not None:
            return Confirmed(app, connection, channel)
    elif connection.transport.driver_type == "redis" and getattr(producer, "supports_batch_publish", False):
        # A batch goes out when it is too late to try again. So redis-py looks before whether its connection is there.
        _ensured(app, producer, retries, lambda: (pool := producer.channel.pool).release(pool.get_connection()))
        return Pipeline(app, producer.channel)
    return OneByOne(producer, retries)


def _ensured(app: Celery, producer: Any, retries: bool, function: Callable[[], Any]) -> Any:
    """Call a function that needs the broker; if that is not there, with the patience of Celery's retry policy."""
    connection = producer.connection
    policy: dict[str, Any] = {"max_retries": max(len(connection.alt) - 1, 0)}  # each broker once, if there are several
    if retries and app.conf.task_publish_retry:
        policy |= {key: value for key, value in app.conf.task_publish_retry_policy.items() if key in _CONNECTION_KEYS}
    try:
        connection.ensure_connection(**policy)
        return connection.ensure(producer, function, **policy)()
    except OperationalError as error:
        error.add_note(f"The broker at {connection.as_uri()} cannot be reached.")
        raise


def _of_its_own(app: Celery, channel: Any) -> dict[str, Any]:
    # Not one of the pool: whatever interrupts, nothing is left in it. If the connection breaks, the batch is over.
    producer: Any = app.amqp.Producer(channel, auto_declare=False)
    # For each message Kombu would copy its queue and exchange, only to find that they are declared.
    producer.maybe_declare = cache(producer.maybe_declare)
    return {"producer": producer, "retry": False}
