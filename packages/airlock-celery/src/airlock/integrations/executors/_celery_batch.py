"""Publishing many tasks for the price of one: all that Airlock assumes about the inner workings of Kombu and below.

A `Batch` lends one producer to every `apply_async` of its thread. So Celery does all that it does for a single task:
routers, signals, overrides, serialisers. Only the last step is another one, where a message goes to the transport: it
is kept there, and goes to the broker together with others.

- Redis: where a channel pushes a message (`_put`, `_put_fanout`), it finds something that notes the command, instead of
  a client. All commands are written in one go, and the answers read one by one.
- Results on Redis: `apply_async` subscribes to the result, and unsubscribes when nobody keeps the `AsyncResult`, which
  is at once. That is put off until the messages are sent, for those results that somebody still has by then.
- py-amqp: in place of the channel's `basic_publish` is one that has py-amqp make the frames, and keeps them. They are
  written in one go, or a few if they are many; and where the broker confirms, it is waited for once, at the end.

(Kombu 5.7 itself has batches for Redis, `Producer.batch`. When one fails, they do not tell which messages went out.)

This is what Kombu 5.3 to 5.7, redis-py 4.5 to 8 and py-amqp 5.1 to 5.4 have in common. With any other version or
transport the messages go to the broker one by one, over the one producer. The tests of this module compare what arrives
in the broker, with each version in the matrix.
"""

from __future__ import annotations

import logging
import re
import select
import sys
import threading
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache, partial, wraps
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import amqp
from amqp import spec
from amqp.exceptions import MessageNacked
from amqp.method_framing import frame_writer
from amqp.serialization import dumps as amqp_dumps
from amqp.transport import TCPTransport

from airlock import OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from celery import Celery

    from airlock.ext import Outcome

logger = logging.getLogger("airlock")

#: How many intents, and about how many bytes, go to the broker together, so that memory stays bounded.
MAX_INTENTS = 1000
MAX_BYTES = 4 * 1024 * 1024

#: The versions that this module knows: from, and below.
_KNOWN = {"kombu": ((5, 3), (5, 8)), "amqp": ((5, 1), (5, 5)), "redis": ((4, 5), (9, 0))}


class Batch:
    """Messages that a thread publishes over one producer, for one intent after the other.

    This one hands each to the broker at once: it is for the transports that are not known here.
    """

    def __init__(self, app: Celery, producer: Any) -> None:
        self.app = app
        self.producer = producer
        #: What became of the messages of each intent, and what kept it from having (more of) them.
        self._results: list[list[Outcome]] = []

    def begin(self) -> None:
        """Have what is published from now on belong to the next intent."""
        self._results.append([])

    def fail(self, error: BaseException) -> None:
        """Note that the intent could not be published, or not all of it."""
        self._results[-1].append(error)

    @property
    def is_full(self) -> bool:
        """Whether to take no more intents: there are enough, or one has failed."""
        return len(self._results) >= MAX_INTENTS or not all_accepted(self._results[-1])

    def send(self) -> None:
        """Hand what was kept to the broker. What goes wrong is in the outcomes."""

    def outcomes(self) -> list[Outcome]:
        """What became of the intents, once all was sent."""
        return list(map(_joint, self._results))

    def attach(self) -> None:
        """Begin to keep what goes through the producer."""

    def detach(self) -> None:
        """Leave the producer as it was."""

    def is_alive(self) -> bool:
        """Whether the connection, which may have been made long ago, seems to be there still."""
        return True


def all_accepted(outcomes: Iterable[Outcome]) -> bool:
    return all(outcome is None for outcome in outcomes)  # an exception may well be false


def _joint(results: list[Outcome]) -> Outcome:
    # A group has several messages, an override of `apply_async` perhaps none.
    failures = [result for result in results if result is not None]
    if not failures:
        return None
    first = failures[0]
    if isinstance(first, OutcomeUnknown):
        return first
    certain = len(failures) == len(results) and not any(isinstance(result, OutcomeUnknown) for result in failures)
    return first if certain else OutcomeUnknown(first)


class _CollectingBatch(Batch, ABC):
    """Keeps the messages until they are sent together."""

    def __init__(self, app: Celery, producer: Any) -> None:
        super().__init__(app, producer)
        self._publish = producer._publish  # noqa: SLF001 - what is left to do when a message is ready
        self._maybe_declare = producer.maybe_declare
        self._channel: Any = None
        #: Whose attributes were replaced, which, and what they had of their own in that place.
        self._replaced: list[tuple[Any, str, Any]] = []
        #: How many parts of each intent were kept, each of which has an outcome in the end.
        self._kept: list[int] = []
        self._size = 0
        self._has_failed = False
        #: Why nothing more is sent: what was on its way when the connection was lost comes before it.
        self._lost: BaseException | None = None
        #: That, if it is not about the connection: a time limit, or Ctrl-C.
        self._interruption: BaseException | None = None
        #: What there is to call, by the id of a task, to subscribe to its result.
        self.subscriptions: dict[str, Callable[[], object]] = {}

    def begin(self) -> None:
        super().begin()
        self._kept.append(0)

    @property
    def is_full(self) -> bool:
        return self._has_failed or super().is_full

    def outcomes(self) -> list[Outcome]:
        for results, kept in zip(self._results, self._kept, strict=True):
            if len(results) < kept:  # what interrupts, such as Ctrl-C, may have come between an answer and its note
                results.append(OutcomeUnknown(self._lost or InterruptedError("The outcome was not noted.")))
        outcomes = super().outcomes()
        if self._interruption is not None and all_accepted(outcomes):
            raise self._interruption  # or nobody would hear of it
        return outcomes

    def attach(self) -> None:
        self._channel = self.producer.channel
        self._replace(self.producer, "_publish", self._publish_here)
        self._replace(self.producer, "maybe_declare", self._declare_if_new)
        self._attach_to(self._channel)

    def detach(self) -> None:
        # Twice, if what interrupts comes in the middle of it.
        while self._replaced:
            owner, name, before = self._replaced[-1]
            if before is None:
                vars(owner).pop(name, None)
            else:
                setattr(owner, name, before)
            self._replaced.pop()

    def _replace(self, owner: Any, name: str, replacement: Any) -> None:
        self._replaced.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, replacement)

    def _publish_here(self, *args: Any, **kwargs: Any) -> Any:
        self._follow(self.producer.channel)
        return self._publish(*args, **kwargs)

    def _follow(self, channel: Any) -> None:
        # When Kombu loses a connection, as it may while it declares a queue, it goes on with another channel.
        if channel is not self._channel:
            self.detach()
            self.attach()

    def _declare_if_new(self, entity: Any, *args: Any, **kwargs: Any) -> Any:
        return False if self._is_declared(entity) else self._maybe_declare(entity, *args, **kwargs)

    def _is_declared(self, entity: Any) -> bool:
        # As Kombu finds it out, which first binds the entity to the channel, and that is a good part of a publish.
        connection = self.producer.channel.connection
        if connection is None or not getattr(entity, "can_cache_declaration", False):
            return False
        return hash(entity) in connection.client.declared_entities

    def send(self) -> None:
        self._size = 0
        if self._is_ready():
            self._send()

    def _is_ready(self) -> bool:
        """Whether there is something to send, and a connection. If there is none, nothing was sent, and is not kept."""
        waiting = self._waiting()
        if not waiting:
            return False
        problem = self._lost
        if problem is None:
            try:
                subscriptions, self.subscriptions = self.subscriptions, {}
                for subscribe in subscriptions.values():
                    subscribe()
                if not self.is_alive():
                    _reconnect(self.producer, once(self.producer.connection))
                self._follow(self.producer.channel)
            except BaseException as error:
                problem = self._note_loss(error)
        if problem is not None:
            self._forget()
            self._settle(waiting, problem)
        return problem is None

    @property
    def _owner(self) -> int:
        """The intent that is being published."""
        return len(self._results) - 1

    def _is_known(self, error: BaseException) -> bool:
        """Whether an error is one of the connection: not a time limit, say, which a signal has brought."""
        connection = self.producer.connection
        # An AttributeError is what a channel raises that was closed, and has lost its connection.
        errors = (OSError, AttributeError, *connection.connection_errors, *connection.channel_errors)
        return isinstance(error, errors)

    def _has_grown(self, size: int) -> None:
        self._size += size
        if self._size >= MAX_BYTES:
            self.send()

    def _settle(self, owners: Iterable[int], outcome: Outcome) -> None:
        for owner in owners:
            self._results[owner].append(outcome)
        self._has_failed = self._has_failed or outcome is not None

    def _note_loss(self, error: BaseException) -> BaseException:
        if not self._is_known(error):
            self._interruption = error
        self._lost = self._as_celery_raises(error)
        return self._lost

    def _as_celery_raises(self, error: BaseException) -> BaseException:
        around = self.producer.connection._reraise_as_library_errors()  # noqa: SLF001 - as Kombu itself does
        around.__enter__()
        try:
            around.__exit__(type(error), error, error.__traceback__)
        except BaseException as known:
            return known
        return error

    @abstractmethod
    def _attach_to(self, channel: Any) -> None:
        """Have the channel keep what is published."""

    @abstractmethod
    def _waiting(self) -> list[int]:
        """The intents that the kept messages belong to."""

    @abstractmethod
    def _forget(self) -> None:
        """Keep them no longer."""

    @abstractmethod
    def _send(self) -> None:
        """Hand them to the broker. Does not raise."""


# -- Redis -------------------------------------------------------------------------------------------------------------


class _UnknownError(Exception):
    """Kombu uses Redis in a way that is not known here."""


class _Notes:
    """Stands in for a Redis client where a channel delivers a message, and notes what is to be done."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, str, Any]] = []

    def lpush(self, key: str, message: str) -> None:
        self.commands.append(("LPUSH", key, message))

    def publish(self, topic: str, message: str) -> None:
        self.commands.append(("PUBLISH", topic, message))

    def pexpire(self, key: str, milliseconds: int) -> None:
        self.commands.append(("PEXPIRE", key, milliseconds))

    def pipeline(self) -> _Notes:
        return self

    def execute(self) -> None:
        """Nothing: that comes later."""

    def __enter__(self) -> _Notes:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing: there is no connection to give back."""

    def __getattr__(self, name: str) -> Any:
        raise _UnknownError(name)


class _RedisBatch(_CollectingBatch):
    def __init__(self, app: Celery, producer: Any) -> None:
        super().__init__(app, producer)
        self._commands: list[tuple[int, tuple[str, str, Any]]] = []

    def is_alive(self) -> bool:
        try:
            with _connection_of(self.producer.channel):
                return True
        except Exception as error:
            if self._is_known(error):
                return False
            raise

    def _attach_to(self, channel: Any) -> None:
        for name in ("_put", "_put_fanout"):
            self._replace(channel, name, self._noting(channel, getattr(channel, name)))

    def _noting(self, channel: Any, put: Callable[..., Any]) -> Callable[..., Any]:
        def note(*args: Any, **kwargs: Any) -> Any:
            notes = _Notes()
            try:
                channel.conn_or_acquire = lambda client=None: notes
                put(*args, **kwargs)
            except _UnknownError as unknown:
                logger.debug("%r uses %s, which is not known here: messages go one by one", channel, unknown)
                notes.commands.clear()
                known = False
            else:
                known = True
            finally:
                vars(channel).pop("conn_or_acquire", None)
            if not known:
                self.send()
                return put(*args, **kwargs)
            self._kept[self._owner] += len(notes.commands)
            self._commands += [(self._owner, command) for command in notes.commands]
            self._has_grown(sum(len(last) for *_, last in notes.commands if isinstance(last, str)))
            return None

        return note

    def _waiting(self) -> list[int]:
        return [owner for owner, _ in self._commands]

    def _forget(self) -> None:
        self._commands = []

    def _send(self) -> None:
        unanswered = self._waiting()[::-1]
        is_sent = False
        try:
            prefixed = self._channel.client._prefix_args if self._channel.global_keyprefix else list  # noqa: SLF001
            commands = [prefixed(command) for _, command in self._commands]
            self._forget()
            with _connection_of(self._channel) as connection:
                packed = b"".join(connection.pack_commands(commands))
                is_sent = True
                connection.send_packed_command([packed])
                while unanswered:
                    try:
                        connection.read_response()
                    except self._channel.ResponseError as refusal:
                        self._settle([unanswered.pop()], self._as_celery_raises(refusal))
                    else:
                        self._settle([unanswered.pop()], None)
        except BaseException as error:
            lost = self._note_loss(error)
            self._settle(reversed(unanswered), OutcomeUnknown(lost) if is_sent else lost)


@contextmanager
def _connection_of(channel: Any) -> Iterator[Any]:
    """A connection of redis-py, which has just seen that it is alive; it is closed if its use fails."""
    pool = channel.pool
    try:
        connection = pool.get_connection()
    except TypeError:  # before redis-py 5.3
        connection = pool.get_connection("LPUSH")
    try:
        yield connection
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


# -- AMQP --------------------------------------------------------------------------------------------------------------

#: With how many bytes RabbitMQ is given something to do while the next messages are made.
WRITE_FROM = 16 * 1024
#: From how many messages on RabbitMQ is asked whether it has got them, though it does not confirm. They are handed to
#: the network all at once, so a connection that breaks could lose all of them unnoticed, and not just the last few.
ASK_FROM = 16
#: For how many seconds the answer is waited for. A broker that is short of memory or disk does not read on.
ASK_FOR = 5.0


_UNANSWERED = "The connection was lost before the broker has answered."


class _Message(NamedTuple):
    owner: int
    message: Any
    exchange: str
    routing_key: str
    mandatory: bool
    immediate: bool
    frames: bytes

    def sent(self) -> _Sent:
        address = (self.exchange, self.routing_key, self.message.properties.get("correlation_id"))
        return _Sent(self.owner, self.mandatory, address)


class _Sent(NamedTuple):
    """What is to be known of a message until the broker has answered."""

    owner: int
    mandatory: bool
    #: By which a message that is returned can be told from others.
    address: tuple[str, str, str | None]


class _Frames(list[bytes]):
    """Stands in for the transport of py-amqp where frames are made, and keeps them."""

    def write(self, frame: Any) -> None:
        self.append(bytes(frame))


class _Confirmed(NamedTuple):
    """A channel where the broker confirms. It is our own: the broker counts messages, and only so do we as well."""

    channel: Any
    tags: Iterator[int]


#: By connection of py-amqp. While a batch uses one it is not here, and only comes back when all was answered.
_confirmed: WeakKeyDictionary[Any, _Confirmed] = WeakKeyDictionary()


def _confirmed_on(connection: Any) -> _Confirmed:
    confirmed = _confirmed.pop(connection, None)
    if confirmed is None or not confirmed.channel.is_open:
        channel = connection.channel()
        channel.confirm_select()
        confirmed = _Confirmed(channel, count(1))
    return confirmed


def _may_have_come(transport: Any) -> bool:
    """Whether there may be something to read. To ask costs a tenth of what it costs to try."""
    poll = getattr(select, "poll", None)
    if poll is None or type(transport) is not TCPTransport:  # TLS has a buffer of its own
        return True
    waiting = poll()
    waiting.register(transport.sock, select.POLLIN)
    return bool(waiting.poll(0))


class _AmqpBatch(_CollectingBatch):
    def __init__(self, app: Celery, producer: Any) -> None:
        super().__init__(app, producer)
        self._messages: list[_Message] = []
        #: How many bytes these are.
        self._unwritten = 0
        #: What was written and not yet answered, by the number that the broker gives it if it confirms.
        self._sent: dict[int, _Sent] = {}
        self._all_answered = True
        self._confirmed: _Confirmed | None = None
        self._hearing = ExitStack()
        self._numbers = count()

    def is_alive(self) -> bool:
        if self._sent:
            if self._target.connection is None:
                raise amqp.RecoverableConnectionError(_UNANSWERED)
            return True  # or writing tells
        # Reads what has come meanwhile: perhaps that the broker has closed the connection.
        try:
            connection = self.producer.channel.connection
            while _may_have_come(connection.transport):
                connection.drain_events(timeout=0)
        except TimeoutError:
            return True
        except BaseException as error:
            if self._is_known(error):
                return False
            self.producer.connection.collect()  # half of a frame may have been read
            raise
        return True

    def _attach_to(self, channel: Any) -> None:
        connection = channel.connection
        self._confirmed = _confirmed_on(connection) if connection.confirm_publish else None
        self._target = channel if self._confirmed is None else self._confirmed.channel
        self._frames = _Frames()
        self._write_frame = frame_writer(connection, self._frames)
        # Each has the number of its channel.
        self._messages = [kept._replace(frames=self._frames_of(*kept[1:-1])) for kept in self._messages]
        self._publish_now = channel.basic_publish
        self._replace(channel, "basic_publish", self._collect)

    def detach(self) -> None:
        if self._sent:
            self._lose(amqp.RecoverableConnectionError(_UNANSWERED))
        confirmed, self._confirmed = self._confirmed, None
        if confirmed is not None and confirmed.channel.is_open and self._all_answered:
            _confirmed[confirmed.channel.connection] = confirmed
        super().detach()

    def _collect(
        self,
        message: Any,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        immediate: bool = False,
        **timeouts: float | None,
    ) -> Any:
        if self._lost is not None:
            self._settle([self._owner], self._lost)
            return None
        if self._channel.connection is None:
            raise amqp.RecoverableConnectionError("connection already closed")  # so Kombu makes another
        if any(timeout is not None for timeout in timeouts.values()):
            self.send()
            return self._publish_now(message, exchange, routing_key, mandatory, immediate, **timeouts)
        frames = self._frames_of(message, exchange, routing_key, mandatory, immediate)
        self._kept[self._owner] += 1
        self._messages.append(_Message(self._owner, message, exchange, routing_key, mandatory, immediate, frames))
        self._unwritten += len(frames)
        if self._unwritten >= WRITE_FROM and self._is_ready():
            self._send()
        self._has_grown(len(frames))
        return None

    def _frames_of(self, message: Any, *where: Any) -> bytes:
        self._frames.clear()
        arguments = amqp_dumps("Bssbb", (0, *where))
        self._write_frame(1, self._target.channel_id, spec.Basic.Publish, arguments, message)
        return b"".join(self._frames)

    def _waiting(self) -> list[int]:
        return [kept.owner for kept in self._messages]

    def _forget(self) -> None:
        self._messages = []

    def send(self) -> None:
        super().send()
        if self._sent:
            self._wait()

    def _send(self) -> None:
        try:
            if not self._sent:
                self._hearing.enter_context(self._hearing_of_what_was_sent())
            self._all_answered = False
            numbers = self._numbers if self._confirmed is None else self._confirmed.tags
            # In this order, whatever interrupts: what is in both is not sent for certain, nor certainly not sent.
            self._sent.update({number: kept.sent() for kept, number in zip(self._messages, numbers, strict=False)})
            messages, self._messages, self._unwritten = self._messages, [], 0
            connection = self._target.connection
            connection.transport.write(memoryview(b"".join([kept.frames for kept in messages])))
            connection.bytes_sent += len(messages)
        except BaseException as error:
            if self._confirmed is not None and isinstance(error, OSError):
                with suppress(Exception):
                    while True:
                        self._target.connection.drain_events(timeout=0)  # what was confirmed, and not read yet
            self._lose(error)

    def _wait(self) -> None:
        connection = self._target.connection
        if connection is None:
            self._lose(amqp.RecoverableConnectionError(_UNANSWERED))
            return
        try:
            if self._confirmed is not None:
                while self._sent:
                    connection.drain_events()
            elif self._is_worth_asking():
                self._target.send_method(spec.Channel.Flow, "b", (True,))
                with suppress(TimeoutError):
                    self._target.wait(spec.Channel.FlowOk, timeout=ASK_FOR)
            self._settle([sent.owner for sent in self._sent.values()], None)
            self._sent.clear()
            self._all_answered = True
        except BaseException as error:
            self._lose(error)
        finally:
            self._hearing.close()

    def _lose(self, error: BaseException) -> None:
        lost = self._note_loss(error)
        self._settle([sent.owner for sent in self._sent.values()], OutcomeUnknown(lost))
        self._sent.clear()
        self._hearing.close()
        if self._target.connection is not None:
            self.producer.connection.collect()

    def _is_worth_asking(self) -> bool:
        if self._target.connection.server_properties.get("product") != "RabbitMQ":
            return False
        return len(self._sent) >= ASK_FROM or any(sent.mandatory for sent in self._sent.values())

    @contextmanager
    def _hearing_of_what_was_sent(self) -> Iterator[None]:
        """Settle what the broker confirms, refuses or returns."""
        waiting = self._sent

        def settle(tags: list[int], outcome: Outcome) -> None:
            self._settle([waiting.pop(tag).owner for tag in tags if tag in waiting], outcome)

        def those(tag: int, multiple: bool) -> list[int]:
            return list(takewhile(lambda waited: waited <= tag, waiting)) if multiple else [tag]

        def on_ack(tag: int, multiple: bool) -> None:
            settle(those(tag, multiple), None)

        def on_nack(tag: int, multiple: bool) -> None:
            settle(those(tag, multiple), self._as_celery_raises(MessageNacked()))

        def on_return(error: Exception, exchange: str, routing_key: str, message: Any) -> None:
            address = (exchange, routing_key, message.properties.get("correlation_id"))
            returned = [tag for tag, sent in waiting.items() if sent.mandatory and sent.address == address]
            settle(returned[:1], self._as_celery_raises(error))

        events = self._target.events
        heard: dict[str, Callable[..., None]] = {"basic_ack": on_ack, "basic_nack": on_nack}
        if others := self._channel.events.get("basic_return"):
            events["basic_return"] = others  # who listens for what is returned takes care of it
        else:
            heard["basic_return"] = on_return
        for event, callback in heard.items():
            events[event].add(callback)
        try:
            yield
        finally:
            for event, callback in heard.items():
                events[event].discard(callback)


# -- Opening a batch ---------------------------------------------------------------------------------------------------


class _Here(threading.local):
    batch: Batch | None = None


_here = _Here()
#: The apps and the result back ends that know about batches.
_aware: WeakSet[Any] = WeakSet()


class OpenBatch:
    """Lends one producer to all `apply_async` of this thread, and keeps their messages where that is possible.

    It is a context manager, for one use.

    Args:
        app: whose tasks are published; those of others are left alone.
        patience: asked how to connect, if need be, with the connection; the arguments of its `ensure_connection`.

    Raises:
        kombu.exceptions.OperationalError: if the broker cannot be reached.
    """

    def __init__(self, app: Celery, patience: Callable[[Any], Mapping[str, Any]]) -> None:
        self._app = app
        self._patience = patience
        self._around = _here.batch
        self._is_lent = self._around is not None and self._around.app is app
        self._acquired: Any = None
        self._batch: Batch | None = None

    def __enter__(self) -> Batch:
        if self._around is not None:
            self._around.send()
        if self._around is not None and self._is_lent:
            # An override of `apply_async` has flushed a scope. There may be no other producer to be had.
            self._around.detach()
            self._batch = Batch(self._app, self._around.producer)
        else:
            _make_aware(self._app)
            self._acquired = self._app.producer_or_acquire()
            producer = self._acquired.__enter__()
            with _naming(producer.connection):
                self._batch = _connected(self._app, producer, self._patience)
                self._batch.attach()
        _here.batch = self._batch
        return self._batch

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave all as it was. It may be called again: a time limit, or Ctrl-C, may have come in the middle of it."""
        if self._batch is not None:
            if _here.batch is self._batch:
                _here.batch = self._around
            self._batch.detach()
        if self._around is not None and self._is_lent:
            self._around.detach()
            self._around.attach()
            self._is_lent = False
        acquired, self._acquired = self._acquired, None
        if acquired is not None:
            acquired.__exit__(None, None, None)


@contextmanager
def at_once(app: Celery) -> Iterator[bool]:
    """Have a message go to the broker now, also if it is published in the middle of a batch of this thread.

    Args:
        app: whose task is published.

    Yields:
        Whether that goes over a connection that is there already.
    """
    around = _here.batch
    if around is None:
        yield False
    elif around.app is app:
        with OpenBatch(app, once):
            yield True
    else:
        around.send()
        _here.batch = None
        try:
            yield False
        finally:
            _here.batch = around


def _make_aware(app: Celery) -> None:
    if app not in _aware:
        _lend_producers_of(app)
        _aware.add(app)
    for pool in (app.pool, app.amqp.producer_pool):
        if pool not in _aware:
            _never_wait_for_another_of(pool)
            _aware.add(pool)
    backend = app.backend  # of this thread
    if backend not in _aware:
        _send_before_reading(backend)
        redis = sys.modules.get("celery.backends.redis")
        if redis is not None and type(backend).on_task_call is redis.RedisBackend.on_task_call:
            _put_off_subscriptions_of(backend)
        _aware.add(backend)


def _lend_producers_of(app: Celery) -> None:
    # An argument `producer` would do as well, but overrides of `apply_async` would see it.
    acquire = app.producer_or_acquire

    def producer_or_acquire(producer: Any = None) -> Any:
        batch = _here.batch
        if batch is not None and batch.app is app:
            if producer is None:
                return nullcontext(batch.producer)
            if producer is not batch.producer:
                batch.send()  # first, so that the order is kept
        return acquire(producer)

    app.producer_or_acquire = producer_or_acquire  # type: ignore[method-assign]


def _never_wait_for_another_of(pool: Any) -> None:
    # A batch has a producer and its connection while overrides of `apply_async` run, which may need others: those of
    # another app, say. If all threads that have one waited for a second one, they would wait for ever.
    acquire = pool.acquire

    def acquire_or_make(block: bool = False, timeout: float | None = None) -> Any:
        if _here.batch is None or not block:
            return acquire(block=block, timeout=timeout)
        try:
            return acquire(block=False)
        except pool.LimitExceeded:
            extra = pool.prepare(pool.new())
            extra.release = partial(_give_up, extra, pool)
            return extra

    pool.acquire = acquire_or_make


def _give_up(extra: Any, pool: Any) -> None:
    connection = getattr(extra, "__connection__", None)  # of a producer
    if connection is None:
        pool.close_resource(extra)
    else:
        connection.release()


def _send_before_reading(backend: Any) -> None:
    # Who asks for a result in the middle of a batch may wait for what the batch keeps.
    def sending_first(read: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(read)
        def send_and_read(*args: Any, **kwargs: Any) -> Any:
            if _here.batch is not None:
                _here.batch.send()
            return read(*args, **kwargs)

        return send_and_read

    for name in ("get_many", "get_task_meta", "iter_native", "wait_for_pending"):
        if hasattr(backend, name):
            setattr(backend, name, sending_first(getattr(backend, name)))


def _put_off_subscriptions_of(backend: Any) -> None:
    subscribe = backend.on_task_call
    unsubscribe = backend.result_consumer.cancel_for

    def on_task_call(producer: Any, task_id: str) -> None:
        batch = _here.batch
        if isinstance(batch, _CollectingBatch) and producer is batch.producer:
            batch.subscriptions[task_id] = partial(subscribe, producer, task_id)
        else:
            subscribe(producer, task_id)

    def cancel_for(task_id: str) -> None:
        batch = _here.batch
        if not isinstance(batch, _CollectingBatch) or batch.subscriptions.pop(task_id, None) is None:
            unsubscribe(task_id)

    backend.on_task_call = on_task_call
    backend.result_consumer.cancel_for = cancel_for


@contextmanager
def _naming(connection: Any) -> Iterator[None]:
    """Raise what goes wrong as Celery does, with the address of the broker."""
    try:
        with connection._reraise_as_library_errors():  # noqa: SLF001 - as Kombu itself does
            yield
    except Exception as error:
        error.add_note(f"The broker at {connection.as_uri()} cannot be reached.")
        raise


def _connected(app: Celery, producer: Any, patience: Callable[[Any], Mapping[str, Any]]) -> Batch:
    connection = producer.connection
    if not connection.connected:
        connection.ensure_connection(**patience(connection))
    batch = _kind_of(producer.channel)(app, producer)
    if not batch.is_alive():
        _reconnect(producer, patience(connection))
    return batch


def once(connection: Any) -> dict[str, Any]:
    """How to connect without trying again: the arguments of `kombu.Connection.ensure_connection`.

    Where there are brokers to fail over to, each is tried once.
    """
    return {"max_retries": max(len(connection.alt) - 1, 0)}


def _reconnect(producer: Any, patience: Mapping[str, Any]) -> None:
    producer.connection.collect()
    producer.revive(producer.connection)
    producer.connection.ensure_connection(**patience)


def _kind_of(channel: Any) -> type[Batch]:
    for kind, transport, driver in ((_RedisBatch, "redis", "redis"), (_AmqpBatch, "pyamqp", "amqp")):
        module = sys.modules.get(f"kombu.transport.{transport}")
        if module is None or not isinstance(channel, module.Channel):
            continue
        is_overridden = type(channel).basic_publish is not module.Channel.basic_publish
        if not is_overridden and _is_known("kombu") and _is_known(driver):
            return kind
    logger.debug("Messages go one by one: %r is of a transport, or of a version, that is not known", channel)
    return Batch


@cache
def _is_known(package: str) -> bool:
    lowest, above = _KNOWN[package]
    version = re.match(r"(\d+)\.(\d+)", sys.modules[package].__version__)
    return version is not None and lowest <= (int(version[1]), int(version[2])) < above
