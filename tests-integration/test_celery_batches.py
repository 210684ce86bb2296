"""A flush that is published as a whole, when the broker goes away: nothing is lost unnoticed, or published twice."""

from __future__ import annotations

import ssl
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from celery import Celery, Task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import before_task_publish
from kombu import Queue
from kombu.exceptions import OperationalError

import airlock
from airlock.integrations.executors import celery as celery_executors
from airlock.integrations.executors.celery import CeleryExecutor
from own_brokers import OwnRabbitMQ, OwnRedis, Proxy, soon, url
from processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    OwnBroker = OwnRedis | OwnRabbitMQ


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRedis]:
    own = OwnRedis(tmp_path_factory.mktemp("redis"))
    own.start()
    yield own
    own.stop()


@pytest.fixture(scope="module")
def own_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRabbitMQ]:
    own = OwnRabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    own.start()
    yield own
    own.stop()


@pytest.fixture(params=["redis", "rabbitmq", "rabbitmq with confirms"], scope="module")
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def own_broker(request: pytest.FixtureRequest, transport: str) -> OwnBroker:
    return request.getfixturevalue(f"own_{transport.partition(' ')[0]}")


def notify(told: int, filling: str) -> None:
    """Nobody runs it."""


class Sender:
    """A process that publishes, by way of a proxy or several, and a look into the broker, past them."""

    def __init__(self, broker: OwnBroker, *through: int, confirms: bool) -> None:
        self.app = Celery("sender", broker=[url(broker.scheme, port) for port in through], set_as_current=False)
        self.app.conf.update(
            broker_transport_options={"confirm_publish": True} if confirms else {},
            task_default_queue=f"batches-{time.monotonic_ns()}",
        )
        self.notify: Task = self.app.task(name="notify", shared=False)(notify)
        self.executor = CeleryExecutor(self.app)
        self._directly = Celery("reader", broker=broker.url, set_as_current=False)
        self.scopes: list[airlock.Scope] = []
        #: What was taken from the broker since the last flush.
        self.taken: list[int] = []

    def flush(self, *numbers: int) -> None:
        self.taken = []
        with airlock.scope(executor=self.executor) as scope:
            self.scopes.append(scope)
            for number in numbers:
                airlock.enqueue(self.notify, number, "x" * 500)

    def arrived(self, count: int, queue: str | None = None) -> list[int]:
        """Take what is in a queue, when it is at least so many, or no more come for a while."""
        arrived: list[int] = []
        with self._directly.connection_for_read() as connection:
            waiting = Queue(queue or self.app.conf.task_default_queue)(connection.default_channel)
            quiet = 0
            while quiet < 3:
                taken = [message.payload[0][0] for message in iter(lambda: waiting.get(no_ack=True), None)]
                arrived += taken
                quiet = 0 if taken else quiet + 1
                if not taken and len(arrived) < count:
                    quiet = 0
                time.sleep(0.02)
        self.taken += arrived
        return arrived

    def close(self) -> None:
        with self._directly.connection_for_read() as connection:
            connection.default_channel.queue_delete(self.app.conf.task_default_queue)
        self.app.close()
        self.app.pool.force_close_all()


@pytest.fixture
def proxy(own_broker: OwnBroker) -> Iterator[Proxy]:
    with Proxy(own_broker.port) as proxy:
        yield proxy


@pytest.fixture
def sender(own_broker: OwnBroker, proxy: Proxy, transport: str) -> Iterator[Sender]:
    sender = Sender(own_broker, proxy.port, confirms="confirms" in transport)
    yield sender
    sender.close()


def numbers(intents: list[airlock.Intent]) -> list[int]:
    return [intent.args[0] for intent in intents]


FLUSH = range(100, 600)


@pytest.fixture
def size(sender: Sender, proxy: Proxy) -> int:
    """How many bytes such a flush is. The connection is there, and the queue is declared."""
    sender.flush(0, 1)
    assert sender.arrived(2) == [0, 1]
    before = proxy.said
    sender.flush(*FLUSH)
    assert sender.arrived(len(FLUSH)) == list(FLUSH)
    return proxy.said - before


def check_account(sender: Sender, flushed: range) -> tuple[list[int], list[int], list[int]]:
    """Compare what a scope says with what is in the broker.

    Returns:
        What was dispatched, what certainly was not, and what is unknown.
    """
    scope = sender.scopes[-1]
    dispatched, undispatched, unknown = map(
        numbers, (scope.dispatched_intents, scope.undispatched_intents, scope.unknown_intents)
    )
    arrived = sender.arrived(len(dispatched))
    assert sorted(dispatched + undispatched) == list(flushed)
    assert set(unknown) <= set(undispatched)
    assert set(dispatched) <= set(arrived) <= set(dispatched) | set(unknown)
    assert arrived == sorted(set(arrived))  # in order, and nothing twice
    return dispatched, [number for number in undispatched if number not in unknown], unknown


def check_next_flush(sender: Sender, *again: int) -> None:
    """See that all of it goes out, and nothing of before but what was unknown: the broker may be late with that."""
    unknown = {number for scope in sender.scopes[-1:] for number in numbers(scope.unknown_intents)} - set(sender.taken)
    with soon():
        sender.flush(*again, 1000, 1001)
    assert sender.scopes[-1].undispatched_intents == []
    arrived = sender.arrived(len(again) + 2)
    late = [number for number in arrived if number in unknown]
    assert late == sorted(set(late))
    assert arrived == [*late, *again, 1000, 1001]


@pytest.mark.parametrize("part", [0.001, 0.3, 0.7, 0.999])
def test_a_connection_that_is_cut_while_messages_go_out(sender: Sender, proxy: Proxy, size: int, part: float) -> None:
    proxy.cut_after(int(size * part))

    with soon(), pytest.raises(OperationalError) as raised:
        sender.flush(*FLUSH)

    _, undispatched, unknown = check_account(sender, FLUSH)
    assert unknown
    assert "unknown_intents" in raised.value.__notes__[-1]
    check_next_flush(sender, *undispatched)


def test_a_connection_that_is_cut_before_all_is_answered(sender: Sender, proxy: Proxy, size: int) -> None:
    proxy.cut_after_answers(1)

    with soon(), pytest.raises(OperationalError):
        sender.flush(*FLUSH)

    dispatched, undispatched, unknown = check_account(sender, FLUSH)
    assert dispatched == []
    assert unknown
    check_next_flush(sender, *undispatched)


def test_a_cut_ends_a_large_flush_at_the_part_that_was_on_its_way(sender: Sender, proxy: Proxy, size: int) -> None:
    flushed = range(2000, 5000)
    proxy.cut_after(3 * size)  # 1500 of 3000, and 1000 go together

    with pytest.raises(OperationalError):
        sender.flush(*flushed)

    dispatched, undispatched, unknown = check_account(sender, flushed)
    assert dispatched == list(range(2000, 3000))
    assert undispatched[-1000:] == list(range(4000, 5000))
    assert 3000 in unknown
    check_next_flush(sender, *undispatched)


@pytest.mark.usefixtures("size")
def test_a_connection_that_was_lost_meanwhile_is_made_anew_before_anything_is_sent(
    sender: Sender, proxy: Proxy
) -> None:
    proxy.cut()
    check_next_flush(sender)


@pytest.mark.parametrize("transport", ["redis"], indirect=True)
@pytest.mark.usefixtures("size")
def test_a_connection_that_is_lost_before_anything_is_sent_is_made_anew(sender: Sender, proxy: Proxy) -> None:
    def lose(body: Any, **_: Any) -> None:
        if body[0][0] == 105:
            proxy.cut()

    before_task_publish.connect(lose)
    try:
        sender.flush(*range(100, 108))
    finally:
        before_task_publish.disconnect(lose)

    assert check_account(sender, range(100, 108)) == (list(range(100, 108)), [], [])


@contextmanager
def at(number: int, do: Callable[[], None]) -> Iterator[None]:
    """Do something when so much of a flush is collected."""

    def look(body: Any, **_: Any) -> None:
        if body[0][0] == number:
            do()
            time.sleep(0.2)  # in which that gets around

    before_task_publish.connect(look)
    yield
    before_task_publish.disconnect(look)


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("transport", ["rabbitmq", "rabbitmq with confirms"], indirect=True)
def test_a_connection_that_is_lost_in_the_middle_ends_the_flush(sender: Sender, proxy: Proxy) -> None:
    with at(300, proxy.cut), soon(), pytest.raises(OperationalError):
        sender.flush(*FLUSH)

    dispatched, undispatched, _ = check_account(sender, FLUSH)
    assert dispatched == []
    assert undispatched[-200:] == list(FLUSH[-200:])  # the cut is noticed a little later
    check_next_flush(sender, *undispatched)


@pytest.mark.usefixtures("size")
def test_a_broker_that_is_gone_leaves_nothing_unknown(sender: Sender, proxy: Proxy) -> None:
    proxy.go()
    with soon(), pytest.raises(OperationalError):
        sender.flush(1, 2, 3)
    proxy.refuses = False

    assert check_account(sender, range(1, 4)) == ([], [1, 2, 3], [])
    check_next_flush(sender, 1, 2, 3)


class GoingOn(airlock.Scope):
    """A scope that does not stop at a failure, as a `DjangoScope`."""

    dispatch_errors = "log"


def test_patience_with_a_broker_that_is_gone_is_spent_once_in_a_flush(sender: Sender, proxy: Proxy) -> None:
    called: list[int] = []
    sender.app.conf.task_publish_retry_policy = {"max_retries": 3, "interval_start": 0, "interval_step": 0}
    proxy.refuses = True
    for _ in range(2):
        asked = proxy.asked
        called.clear()
        with airlock.scope(_cls=GoingOn, executor=sender.executor) as scope:
            for number in range(5):
                airlock.enqueue(sender.notify, number, "")
                airlock.enqueue(called.append, number)
            airlock.enqueue(sender.notify, 5, "")

        assert proxy.asked - asked == 4 + 5
        assert called == [0, 1, 2, 3, 4]
        assert numbers(scope.undispatched_intents) == [0, 1, 2, 3, 4, 5]
        assert scope.unknown_intents == []
    proxy.refuses = False
    check_next_flush(sender)


@contextmanager
def interruption_at(step: int, error: type[BaseException]) -> Iterator[list[int]]:
    """Raise an error at a step of the code that publishes: where it is called, or something of C has returned to it.

    That is where Python looks for signals. (And where a loop begins anew, which is close to a call here.)

    Yields:
        A list whose only entry is the number of steps so far.
    """
    ours = str(Path(celery_executors.__file__).parent)
    steps = [0]

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(ours):
            steps[0] += 1
            if steps[0] == step:
                raise error("now")

    sys.setprofile(look)
    try:
        yield steps
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SoftTimeLimitExceeded])
def test_whatever_interrupts_a_flush_the_account_holds_and_the_next_one_works(
    sender: Sender, error: type[BaseException]
) -> None:
    check_next_flush(sender)

    def flush(start: int, step: int) -> airlock.Scope:
        scope = airlock.scope(executor=sender.executor)
        scope.enter()
        for number in range(start, start + 4):
            airlock.enqueue(sender.notify, number, "")
        scope.exit()
        with interruption_at(step, error) as steps:
            try:
                scope.flush()
            except error:
                assert steps[0] >= step > 0
            else:  # it may come when there is nothing left that it could be told of
                assert scope.undispatched_intents == []
        number_of_steps.append(steps[0])
        return scope

    number_of_steps: list[int] = []
    flush(10, 0)
    assert sender.arrived(4) == [10, 11, 12, 13]
    maybe_late: set[int] = set()
    # Not all of them, or this would take minutes; others with each error.
    for step in range(1 if error is KeyboardInterrupt else 2, number_of_steps[0] + 1, 3):
        scope = flush(step * 100, step)
        again = step * 100 + 50
        sender.flush(again, again + 1)

        dispatched, undispatched, unknown = map(
            numbers, (scope.dispatched_intents, scope.undispatched_intents, scope.unknown_intents)
        )
        arrived = [number for number in sender.arrived(len(dispatched) + 2) if number not in maybe_late]
        maybe_late |= set(unknown)
        assert sorted(dispatched + undispatched) == list(range(step * 100, step * 100 + 4))
        assert set(dispatched) <= set(arrived) <= {*dispatched, *unknown, again, again + 1}
        assert len(arrived) == len(set(arrived))
        assert {again, again + 1} <= set(arrived)


def test_a_broker_that_was_stopped_is_one_clear_error_and_nothing_is_unknown(
    own_broker: OwnBroker, transport: str
) -> None:
    sender = Sender(own_broker, own_broker.port, confirms="confirms" in transport)
    check_next_flush(sender)

    own_broker.stop()
    try:
        for _ in range(2):
            with soon(), pytest.raises(OperationalError) as raised:
                sender.flush(*FLUSH)
            assert f"127.0.0.1:{own_broker.port}" in raised.value.__notes__[0]
            assert numbers(sender.scopes[-1].undispatched_intents) == list(FLUSH)
            assert sender.scopes[-1].unknown_intents == []
    finally:
        own_broker.start()

    check_next_flush(sender)
    sender.close()


def test_a_flush_after_a_loss_goes_to_the_next_of_several_brokers(own_broker: OwnBroker, transport: str) -> None:
    with Proxy(own_broker.port) as first, Proxy(own_broker.port) as second:
        sender = Sender(own_broker, first.port, second.port, confirms="confirms" in transport)
        check_next_flush(sender)

        first.go()
        check_next_flush(sender)

        first.refuses = False
        second.on_cut = second.go
        second.cut_after(20_000)
        with pytest.raises(OperationalError):
            sender.flush(*FLUSH)
        check_account(sender, FLUSH)
        check_next_flush(sender)
        sender.close()


@pytest.mark.parametrize("flushed", [[1], [1, 2]], ids=["an intent", "two intents"])
def test_each_of_several_brokers_is_asked_once_after_a_failure(
    own_broker: OwnBroker, transport: str, flushed: list[int]
) -> None:
    with Proxy(own_broker.port) as first, Proxy(own_broker.port) as second:
        sender = Sender(own_broker, first.port, second.port, confirms="confirms" in transport)
        first.go()
        second.go()
        with soon(), pytest.raises(OperationalError):
            sender.flush(*flushed)
        assert numbers(sender.scopes[-1].undispatched_intents) == flushed

        second.refuses = False
        sender.flush(*flushed)
        assert sender.arrived(len(flushed)) == flushed
        sender.close()


def test_what_a_broker_that_is_killed_has_accepted_is_there_when_it_is_back(
    sender: Sender, own_broker: OwnBroker, proxy: Proxy, transport: str, size: int
) -> None:
    proxy.on_cut = own_broker.kill
    proxy.cut_after(int(size * 0.6))
    try:
        with soon(), pytest.raises(OperationalError):
            sender.flush(*FLUSH)
    finally:
        own_broker.kill()
        own_broker.start()
        proxy.on_cut = lambda: None

    scope = sender.scopes[-1]
    if transport == "rabbitmq with confirms":
        check_account(sender, FLUSH)
    assert numbers(scope.dispatched_intents + scope.undispatched_intents) == list(FLUSH)
    assert scope.unknown_intents
    check_next_flush(sender)


@pytest.fixture(scope="module")
def over_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Settings of an app whose broker, a RabbitMQ, is reached over TLS."""
    directory = tmp_path_factory.mktemp("rabbitmq-tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
    port = free_port()
    configuration = f"""
        listeners.ssl.default = 127.0.0.1:{port}
        ssl_options.cacertfile = {directory}/ca.pem
        ssl_options.certfile = {directory}/certificate.pem
        ssl_options.keyfile = {directory}/key.pem
    """
    own = OwnRabbitMQ(directory, dedent(configuration))
    own.start()
    yield {
        "broker_url": f"amqps://guest:guest@127.0.0.1:{port}//",
        "broker_use_ssl": {"ca_certs": str(directory / "ca.pem"), "cert_reqs": ssl.CERT_REQUIRED},
    }
    own.stop()


@pytest.mark.parametrize("confirms", [False, True])
def test_a_flush_over_tls(over_tls: dict[str, Any], confirms: bool) -> None:
    app = Celery("sender", set_as_current=False)
    app.conf.update(
        **over_tls,
        broker_transport_options={"confirm_publish": confirms},
        task_default_queue=f"batches-{time.monotonic_ns()}",
    )
    notify_task = app.task(name="notify", shared=False)(notify)
    sizes = {3: 300_000}  # more than a frame takes
    for numbers in (range(2), range(1000)):
        with airlock.scope(executor=CeleryExecutor(app)) as scope:
            for number in numbers:
                airlock.enqueue(notify_task, number, "x" * sizes.get(number, 100))
        assert scope.undispatched_intents == []

        with app.connection_for_read() as connection:
            waiting = Queue(app.conf.task_default_queue)(connection.default_channel)
            arrived = []
            while len(arrived) < len(numbers):
                if message := waiting.get(no_ack=True):
                    arrived.append(message.payload[0])
        assert arrived == [[number, "x" * sizes.get(number, 100)] for number in numbers]
    app.pool.force_close_all()
