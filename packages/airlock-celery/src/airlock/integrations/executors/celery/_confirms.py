"""RabbitMQ says of each message that it has it, and is waited for once."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import uuid4

from amqp import ChannelError, Message, spec
from kombu.transport.pyamqp import Channel

#: How long RabbitMQ may be silent while it is waited for, in seconds, unless the connection has a `read_timeout`. It is
#: when it blocks publishers, for want of memory or disk.
SILENCE = 30


class ConfirmingChannel(Channel):
    """A channel in confirm mode. Where py-amqp waits after each message, this one waits when it is asked to.

    Messages are known by their correlation id, which is what Celery makes of a task's id.
    """

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._longest: float = connection.read_timeout or SILENCE
        self._published = 0
        #: The correlation ids of what is not answered yet, by the number of the message.
        self._unanswered: dict[int, str | None] = {}
        self.refused: set[str | None] = set()
        #: The exchanges that are there. The default one has no name.
        self._exchanges = {""}
        self.open()
        self.confirm_select()
        self.events["basic_ack"].add(self._answered)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        self.events["basic_nack"].add(self._take_refusal)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    @classmethod
    def of(cls, connection: Any) -> ConfirmingChannel | None:
        """The channel of this kind that a connection has, or a new one; none if the broker does not confirm."""
        with suppress(TimeoutError):
            while True:
                connection.drain_events(timeout=0)  # raises if the connection was lost since it was last used
        if not connection.server_capabilities.get("publisher_confirms"):
            return None
        found = [channel for channel in connection.channels.values() if isinstance(channel, cls)]
        try:
            return found[0] if found else cls(connection)
        except BaseException:
            connection.collect()  # it has a channel that is not in confirm mode yet
            raise

    def basic_publish_confirm(self, message: Any, exchange: str = "", routing_key: str = "", **options: Any) -> None:
        """Publish a message, and wait for nothing, but for the exchange when it is a new one."""
        if exchange not in self._exchanges:
            # One that is not there closes the channel, and nobody knows what became of all that is unanswered.
            self.wait_for_confirms()
            self.exchange_declare(exchange, "", passive=True)
            self._exchanges.add(exchange)
        # Not py-amqp's own `basic_publish`: it looks for answers before each message, which costs a system call.
        flags = (options.get("mandatory", False), options.get("immediate", False))
        self.send_method(spec.Basic.Publish, "Bssbb", (0, exchange, routing_key, *flags), message)
        self._published += 1
        self._unanswered[self._published] = message.properties.get("correlation_id")

    # py-amqp calls the one or the other, as `confirm_publish` says.
    basic_publish: Any = basic_publish_confirm

    def wait(self, method: Any, callback: Any = None, timeout: float | None = None, returns_tuple: bool = False) -> Any:
        """Wait for an answer, such as that a queue is declared, and not for ever."""
        return super().wait(method, callback, timeout or self._longest, returns_tuple)

    def wait_for_confirms(self) -> None:
        """Wait until RabbitMQ has answered for all messages.

        Raises:
            TimeoutError: if it is silent for too long.
            OSError, amqp.AMQPError: if the connection or the channel breaks.
        """
        while self._unanswered:
            if self.connection is None:
                raise ConnectionError("The connection to RabbitMQ was lost before it had answered.")
            self.connection.drain_events(timeout=self._longest)

    def _take_refusal(self, tag: int, multiple: bool) -> None:
        self.refused.update(self._answered(tag, multiple))

    def _answered(self, tag: int, multiple: bool) -> list[str | None]:
        first = next(iter(self._unanswered), tag) if multiple else tag  # numbers are in order
        numbers = range(first, tag + 1)
        return [self._unanswered.pop(number) for number in numbers if number in self._unanswered]


def ask_for_confirm(connection: Any) -> None:
    """Publish messages for nobody, and wait until RabbitMQ has them, if it confirms.

    Raises:
        TimeoutError: if it is silent for too long.
        OSError, amqp.AMQPError: if the connection breaks.
    """
    if (channel := ConfirmingChannel.of(connection)) is not None:
        with suppress(ChannelError):  # such as a user who may not publish there: an answer, too
            for _ in range(2):  # it takes one from a publisher before it blocks that
                channel.basic_publish_confirm(Message(""), routing_key=f"airlock.{uuid4()}")  # no queue has that name
                channel.wait_for_confirms()
