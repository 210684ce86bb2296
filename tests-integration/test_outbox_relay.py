"""Relays as processes, on real databases and brokers that stop."""

from __future__ import annotations

import json
import os
import pty
import secrets
import subprocess
import sys
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from own_brokers import OwnRabbitMQ, OwnRedis
from processes import HERE
from services import Broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from processes import Process


class Site:
    """The project `relayed` on a database and a broker.

    Args:
        database: its entry for Django's `DATABASES`.
        broker: its broker.
        start_process: the fixture.
        outbox: the options of its outbox.
    """

    def __init__(
        self, database: dict[str, Any], broker: Broker, start_process: Callable[..., Process], **outbox: Any
    ) -> None:
        self.database = database
        self.broker = broker
        self.queue = broker.queue(f"relayed-{secrets.token_hex(4)}")
        self._start = start_process
        self._outbox = {"FAST_PATH_SECONDS": 0, **outbox}
        #: Settings for Celery besides those of the broker.
        self.celery: dict[str, Any] = {"task_default_queue": self.queue}
        self.manage("migrate", "--verbosity=0")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": "relayed.settings",
            "AIRLOCK_TEST_DATABASE": json.dumps(self.database),
            "AIRLOCK_TEST_OUTBOX": json.dumps(self._outbox),
            "AIRLOCK_TEST_CELERY": json.dumps({**self.broker.celery, **self.celery}),
        }

    def command(self, *arguments: str) -> dict[str, Any]:
        """Arguments of `subprocess.Popen` for a module of the project."""
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **self.environment}
        return {"args": [sys.executable, "-m", *arguments], "env": env}

    def manage(self, *arguments: str, code: int = 0) -> str:
        """Run a command of Django's, and return what it says."""
        output: Any = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        ended = subprocess.run(**self.command("django", *arguments), **output, check=False)
        assert ended.returncode == code, ended.stdout
        return str(ended.stdout)

    def write(self, program: object, name: str = "", *, wait: bool = True) -> subprocess.Popen[bytes]:
        """Have another process enqueue something, see `relayed.write`."""
        process = subprocess.Popen(**self.command("relayed.write", json.dumps(program), name))
        if wait:
            assert process.wait(60) == 0
        return process

    def relay(self, *arguments: str) -> Process:
        """Start a relay."""
        command = (sys.executable, "-m", "django", "airlock_relay", *arguments)
        env = {**self.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
        return self._start(*command, ready="Relaying from default.", env=env)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with closing(self._connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            rows = list(cursor.fetchall()) if cursor.description else []
            connection.commit()
            return rows

    def _connect(self) -> Any:
        if "sqlite" in self.database["ENGINE"]:
            import sqlite3

            return sqlite3.connect(self.database["NAME"], timeout=30)
        address = {"host": self.database["HOST"], "port": int(self.database["PORT"] or 0)}
        login = {"user": self.database["USER"], "password": self.database["PASSWORD"]}
        if "postgresql" in self.database["ENGINE"]:
            import psycopg

            return psycopg.connect(dbname=self.database["NAME"], **{k: v for k, v in {**address, **login}.items() if v})
        import pymysql

        return pymysql.connect(database=self.database["NAME"], **address, **login)

    def count(self, where: str = "1 = 1") -> int:
        """How many entries there are."""
        ((number,),) = self.query(f"SELECT count(*) FROM airlock_outbox WHERE {where}")
        return int(number)

    def published(self) -> list[Any]:
        """What has been published by now: the first argument of each."""
        return [message.payload[0][0] for message in self.broker.take(self.queue)]


def until(condition: Callable[[], object], timeout: float = 45) -> None:
    """Wait until something has come true."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def sqlite_database(tmp_path: Path) -> dict[str, Any]:
    """An entry for Django's `DATABASES`, as the checks of the outbox want it."""
    options = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL", "timeout": 30}
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "database.sqlite3"), "OPTIONS": options}


@pytest.fixture
def site(request: pytest.FixtureRequest, start_process: Callable[..., Process]) -> Iterator[Callable[..., Site]]:
    """Makes a `Site`."""
    made: list[Site] = []

    def make(database: str = "sqlite", broker: Broker | None = None, **outbox: Any) -> Site:
        address = request.getfixturevalue(f"{database}_database")
        made.append(Site(address, broker or request.getfixturevalue("redis_broker"), start_process, **outbox))
        return made[-1]

    yield make
    for each in made:
        each.query("DELETE FROM airlock_outbox")


every_database = pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"])


@every_database
def test_two_relays_and_four_writers(site: Callable[..., Site], database: str) -> None:
    shop = site(database, BATCH_SIZE=7)
    relays = [shop.relay() for _ in range(2)]
    writers = [shop.write(60, f"{name}.", wait=False) for name in range(4)]

    assert [writer.wait(60) for writer in writers] == [0] * 4
    until(lambda: shop.count() == 0)

    assert sorted(shop.published()) == sorted(f"{name}.{number}" for name in range(4) for number in range(60))
    assert [relay.stop() for relay in relays] == [0, 0]


@every_database
def test_what_kills_relays_is_parked_and_the_others_go_out(site: Callable[..., Site], database: str) -> None:
    shop = site(database, HOLD_SECONDS=0.5, LEASE_SECONDS=1, MAX_ATTEMPTS=2)
    shop.write([["note", 1], ["say", 2], ["kill_the_relay"], ["say", 3], ["note", 4]])

    relays = []
    while not shop.count("due IS NULL"):
        relays.append(shop.relay())
        until(lambda: relays[-1].has_ended or shop.count("due IS NULL"))
    until(lambda: shop.count() == 1)

    assert [relay.stop() for relay in relays] == [-9, -9, 0]
    assert [relay.log.count("called 2") for relay in relays] == [1, 0, 0]
    assert sum(relay.log.count("called 3") for relay in relays) == 1
    assert shop.published() == [1, 4]


def test_sigterm_ends_a_relay_after_the_batch_in_hand(site: Callable[..., Site]) -> None:
    shop = site(HOLD_SECONDS=0.5, BATCH_SIZE=3)
    shop.write([["stop_the_relay"], ["say", 2], ["note", 3], ["note", 4]])

    relay = shop.relay()
    until(lambda: relay.has_ended)

    assert relay.stop() == 0
    assert "called 2" in relay.log
    assert "3 dispatched, 0 put off, 0 parked." in relay.log
    assert shop.published() == [3]
    assert shop.count("attempts = 0") == shop.count() == 1


@pytest.mark.parametrize("make_broker", [OwnRedis, OwnRabbitMQ])
def test_broker_goes_and_comes_back(site: Callable[..., Site], tmp_path: Path, make_broker: Any) -> None:
    own = make_broker(tmp_path)
    own.start()
    try:
        shop = site(broker=Broker("own", own.url, tmp_path.as_uri()), MAX_ATTEMPTS=1)
        relay = shop.relay()
        shop.write(10, "before.")
        until(lambda: shop.count() == 0)
        published = shop.published()

        own.stop()
        shop.write(10, "meanwhile.")
        relay.until("The relay waits: ")
        shop.write(10, "later.")
        until(lambda: shop.count("attempts = 0 AND lease IS NULL") == 20)

        own.start()
        until(lambda: shop.count() == 0)
        relay.until("The relay goes on")
        published += shop.published()

        assert sorted(published) == sorted(
            f"{when}.{n}" for when in ("before", "meanwhile", "later") for n in range(10)
        )
        assert relay.log.count("The relay waits") == 1
        assert relay.stop() == 0
    finally:
        own.stop()


def test_redis_that_is_full_is_waited_for(site: Callable[..., Site], tmp_path: Path) -> None:
    import redis

    own = OwnRedis(tmp_path)
    own.start()
    try:
        shop = site(broker=Broker("own", own.url, tmp_path.as_uri()), MAX_ATTEMPTS=1)
        with redis.Redis.from_url(own.url) as client:
            client.config_set("maxmemory", 1)
            shop.write(3)
            relay = shop.relay()
            relay.until("The relay waits: ")
            until(lambda: shop.count("attempts = 0") == 3)

            client.config_set("maxmemory", 0)
        until(lambda: shop.count() == 0)
        assert shop.published() == ["0", "1", "2"]
        assert relay.stop() == 0
    finally:
        own.stop()


def test_queue_that_refuses_is_no_outage(site: Callable[..., Site], rabbitmq_broker: Broker) -> None:
    shop = site(broker=rabbitmq_broker, HOLD_SECONDS=0.01)
    arguments = {"x-max-length": 2, "x-overflow": "reject-publish"}
    queue = {"exchange": shop.queue, "routing_key": shop.queue, "queue_arguments": arguments}
    shop.celery["task_queues"] = {shop.queue: queue}
    shop.write([["note", 1], ["note", 2], ["note", 3], ["say", 4]])

    said = shop.manage("airlock_relay", "--drain")

    assert "called 4" in said
    assert "3 dispatched, 1 put off, 0 parked." in said
    ((attempts, error),) = shop.query("SELECT attempts, error FROM airlock_outbox")
    assert attempts == 1
    assert "RabbitMQ refused the message." in error


@pytest.mark.parametrize("database", ["postgresql", "mariadb"])
def test_database_goes_and_comes_back(site: Callable[..., Site], database: str) -> None:
    shop = site(database)
    relay = shop.relay()
    shop.write(3, "before.")
    until(lambda: shop.count() == 0)

    if database == "postgresql":
        shop.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    else:
        for (connection,) in shop.query(
            "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"
        ):
            shop.query(f"KILL {connection}")
    relay.until("The relay waits: ")
    shop.write(3, "after.")
    until(lambda: shop.count() == 0)

    assert shop.published() == [f"{when}.{number}" for when in ("before", "after") for number in range(3)]
    assert relay.stop() == 0


def test_the_task_for_beat_is_found_by_workers(
    site: Callable[..., Site], celery_worker_process: Callable[..., Process]
) -> None:
    from celery import Celery

    shop = site()
    shop.write(3)
    celery_worker_process("relayed", shop.broker, queues=(f"{shop.queue}-worker",), env=shop.environment)
    with Celery(broker=shop.broker.celery["broker_url"]) as app:
        app.conf.update(shop.broker.celery)
        app.send_task("airlock.outbox.relay", queue=f"{shop.queue}-worker")

    until(lambda: shop.count() == 0)

    assert shop.published() == ["0", "1", "2"]


def test_drain_shows_its_progress_on_a_terminal(site: Callable[..., Site]) -> None:
    shop = site(BATCH_SIZE=2)
    shop.write(4)
    terminal, its_end = pty.openpty()

    ended = subprocess.run(**shop.command("django", "airlock_relay", "--drain"), check=True, stdout=its_end)
    os.close(its_end)
    said = b""
    with suppress(OSError):  # as Linux ends it
        while part := os.read(terminal, 1024):
            said += part
    os.close(terminal)

    assert ended.returncode == 0
    assert b"\r[####################                    ] 2 of 4" in said
    assert said.endswith(b"] 4 of 4\r\n4 dispatched, 0 put off, 0 parked.\r\n")
    assert "#" not in shop.manage("airlock_relay", "--drain")


def test_relay_without_an_app_of_celery(site: Callable[..., Site], tmp_path: Path) -> None:
    shop = site()
    (tmp_path / "lonely.py").write_text((HERE / "relayed" / "settings.py").read_text())
    said = shop.manage("airlock_relay", "--drain", f"--pythonpath={tmp_path}", "--settings=lonely", code=1)
    assert "No Celery app is loaded" in said
