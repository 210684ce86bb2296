"""What Celery would have published for an intent, kept to be published later."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from celery.app import app_or_default
from celery.canvas import Signature
from kombu import Exchange, Queue
from kombu.compression import get_encoder
from kombu.exceptions import OperationalError
from kombu.serialization import dumps
from kombu.utils import json

from airlock import UsageError
from airlock.integrations.executors.celery._tasks import by_airlock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery import Celery

    from airlock import Intent

PICKLE = "application/x-python-serialize"


class Message:
    """What Celery would have published for an intent, to be published later, perhaps by another process.

    `CeleryExecutor.record` makes messages. It takes no code of the task to publish one: give it to `apply_async` of its
    own, or to `celery_executor` as the task of an intent, with its id as the dispatch option `task_id`.

    Args:
        app: the Celery app to publish it with.
        task: the name of the task.
        task_id: its id.
        publications: what is given to `kombu.Producer.publish`. The first is the task, and there may be an event.
    """

    def __init__(self, app: Celery, task: str, task_id: str, publications: list[dict[str, Any]]) -> None:
        self.app = app
        self.task = task
        self.task_id = task_id
        self._publications = publications
        self._json: str | None = None

    def apply_async(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        producer: Any = None,
        retry: bool | None = None,
        retry_policy: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Publish it as it was recorded; arguments and other options are ignored.

        Args:
            args: ignored.
            kwargs: ignored.
            producer: a `kombu.Producer` to publish it with, instead of one of the app's pool.
            retry: whether to try again if the broker cannot be reached. By default as `task_publish_retry` says.
            retry_policy: how; what it leaves out is as in `task_publish_retry_policy`.
            **options: ignored.

        Raises:
            kombu.exceptions.OperationalError: if the broker cannot be reached.
        """
        retrying: dict[str, Any] = {"retry": self.app.conf.task_publish_retry if retry is None else retry}
        if retrying["retry"]:
            retrying["retry_policy"] = {**self.app.conf.task_publish_retry_policy, **(retry_policy or {})}
        # To ask the app for a producer that is there takes half as long as publishing.
        with nullcontext(producer) if producer else self.app.producer_or_acquire() as publisher:
            message, *events = self._publications
            try:
                self._publish(publisher, message, retrying)
            except _broker_errors(publisher) as error:
                raise OperationalError(str(error)) from error  # as Celery does
            for event in events:
                # The task was sent, so it does not matter; Celery does not mind.
                with suppress(OperationalError, *_broker_errors(publisher)):
                    self._publish(publisher, event, retrying)

    def _publish(self, producer: Any, publication: dict[str, Any], retrying: dict[str, Any]) -> None:
        declare = [self._declared(entity) for entity in publication["declare"]]
        headers = dict(publication["headers"])  # Kombu adds to them
        producer.publish(**{**publication, **retrying, "declare": declare, "headers": headers})

    def _declared(self, entity: str | dict[str, Any]) -> Any:
        return self.app.amqp.queues[entity] if isinstance(entity, str) else Exchange(**entity)

    def to_json(self) -> str:
        """The message as text."""
        if self._json is None:
            self._json = json.dumps({"task": self.task, "task_id": self.task_id, "publications": self._publications})
        return self._json

    @classmethod
    def from_json(cls, text: str, app: Celery | None = None) -> Message:
        """The message that `to_json` made a text of, for the given app or the current one."""
        return cls.from_dict(json.loads(text), app)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], app: Celery | None = None) -> Message:
        """The message whose text `kombu.utils.json.loads` has read, as a part of something larger perhaps."""
        return cls(app_or_default(app), **stored)

    def __repr__(self) -> str:
        return f"<Message of {self.task} with the id {self.task_id}>"


def _broker_errors(producer: Any) -> tuple[type[Exception], ...]:
    """What its connection raises when the broker cannot be reached."""
    connection = producer.connection
    errors: tuple[type[Exception], ...] = connection.recoverable_connection_errors
    return errors + tuple(connection.recoverable_channel_errors)


def record(app: Celery, publishes_with: Celery, called: Any, intent: Intent) -> Message:
    """What a task or a signature publishes for an intent, without publishing it."""
    if isinstance(called, Message):
        return called
    if app != publishes_with:
        raise UsageError(
            f"{intent} cannot be recorded, as its task is not of {publishes_with!r}, which is to publish it. "
            f"Use CeleryExecutor({app!r}) for it."
        )
    options = {"task_id": intent.id, **intent.dispatch_options}
    name: str = called["task"] if isinstance(called, Signature) else called.name
    recorder = _Recorder(app, name, _ignore_result(called, options))
    # Unless the result is ignored, Celery asks the result back end, over the network. Those who receive
    # `before_task_publish` see that it is ignored; what is kept says what was asked for.
    # A running task does not learn of it: `children` are tasks that were published, and this one may never be.
    recording = {"add_to_parent": False, **options, "ignore_result": True, "producer": recorder}
    before = by_airlock.set(True)
    try:
        result = called.apply_async(intent.args, dict(intent.kwargs), **recording)
    finally:
        by_airlock.reset(before)
    message = Message(app, name, result.id, recorder.publications)
    try:
        message.to_json()
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{name} cannot be recorded, as its headers or options are not JSON: {error}. Give strings, numbers, lists "
            "and dictionaries as options of the task, and in what receivers of `before_task_publish` add."
        ) from error
    return message


class _Recorder:
    """Celery takes it for a producer. What it is to publish, it keeps."""

    serializer = None

    def __init__(self, app: Celery, name: str, ignore_result: bool | None) -> None:
        self._app = app
        self._name = name
        self._ignore_result = ignore_result
        #: Celery only looks at what kind it is: the one that its pool makes others from, which never connects.
        self.connection: Any = app.producer_pool.connections.connection
        self.publications: list[dict[str, Any]] = []

    def publish(
        self,
        body: Any,
        *,
        exchange: Any = None,
        delivery_mode: Any = None,
        serializer: str | None = None,
        compression: str | None = None,
        declare: Iterable[Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        retry: object = None,
        retry_policy: object = None,
        timeout: object = None,
        confirm_timeout: object = None,
        **properties: Any,
    ) -> None:
        """Keep what is published. How to retry is up to who publishes it in the end."""
        content_type, content_encoding, body = dumps(body, serializer)
        if content_type == PICKLE:
            raise UsageError(
                f"{self._name} cannot be recorded, as its arguments are pickled: whoever can write where messages are "
                "kept could run code with it. Give the task another serializer, such as 'json'."
            )
        if compression:
            get_encoder(compression)  # one that is not there fails now
        if isinstance(exchange, Exchange):
            delivery_mode = delivery_mode or exchange.delivery_mode
            exchange = exchange.name
        kept = dict(headers or {})
        if "ignore_result" in kept:
            kept["ignore_result"] = self._ignore_result
        self.publications.append(
            {
                **properties,
                "body": body,
                "content_type": content_type,
                "content_encoding": content_encoding,
                "exchange": exchange,
                "delivery_mode": delivery_mode,
                "compression": compression,
                "declare": [self._declaration(entity) for entity in declare or ()],
                "headers": kept,
            }
        )

    def _declaration(self, entity: Any) -> str | dict[str, Any]:
        if not isinstance(entity, Queue):
            declaration: dict[str, Any] = entity.as_dict()
            return declaration
        queues: Any = self._app.amqp.queues
        known = queues.get(entity.name)  # `[]` would make what is missing
        if known is None or (known is not entity and known != entity):  # to compare takes a while
            raise UsageError(
                f"{self._name} cannot be recorded, as its queue {entity.name!r} is not one of the app's: another "
                "process would not know how to declare it. Add it to the setting `task_queues`."
            )
        name: str = entity.name
        return name


def _ignore_result(called: Any, options: Mapping[str, Any]) -> bool | None:
    """The value that Celery would put into the header."""
    task = called
    if isinstance(called, Signature):
        options = {**called.options, **{key: value for key, value in options.items() if value is not None}}
        task = called.app.tasks.get(called["task"])
    ignored: bool | None = options.get("ignore_result", getattr(task, "ignore_result", None))
    return ignored
