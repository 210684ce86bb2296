"""The services that the other tests run on are looked for as promised, and leave nothing behind."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import psycopg
import pymysql
import pytest
import redis
from kombu import Connection

import services
from services import Broker

ROOT = Path(__file__).parents[1]

INTERRUPTED = """
    import os
    import signal
    from pathlib import Path

    import redis
    import services


    def test_interrupted(tmp_path, {database}_database, {broker}_broker, start_process):
        assert {database}_database["NAME"] == services.RUN
        queue = {broker}_broker.queue("celery")
        with {broker}_broker._connection() as connection:
            connection.SimpleQueue(queue).put("left over")
        process = start_process("sh", "-c", "echo up; sleep 600", ready="up")
        Path("run").write_text(f"{{services.RUN}} {{process.pid}}")
        os.kill(os.getpid(), signal.SIGINT)
"""


def test_address_in_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_TEST_POSTGRESQL", "postgresql://somebody@db.example/")
    monkeypatch.setenv("AIRLOCK_TEST_REDIS", "redis://cache.example/5")

    assert services._find_postgresql() == "postgresql://somebody@db.example/"
    assert services._find_redis() == "redis://cache.example/5"


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_missing_service_skips_by_name_and_fails_where_all_are_expected(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    def find() -> None:
        raise services._not_found("RabbitMQ", "AIRLOCK_TEST_RABBITMQ", 5672)

    monkeypatch.setenv("CI", ci)

    with pytest.raises(outcome, match="no RabbitMQ: AIRLOCK_TEST_RABBITMQ is not set, port 5672 does not answer"):
        services.needed(find)


def interrupted_run(directory: Path, *, database: str, broker: str) -> tuple[str, int]:
    """Run tests that are interrupted while they use services: what theirs were called, and the pid of a process."""
    test = directory / "test_interrupted.py"
    test.write_text(dedent(INTERRUPTED.format(database=database, broker=broker)))
    pytest = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), str(test)]
    run = subprocess.run(pytest, cwd=directory, capture_output=True, text=True, timeout=120)
    assert "KeyboardInterrupt" in run.stdout, run.stdout + run.stderr
    name, pid = (directory / "run").read_text().split()
    return name, int(pid)


def test_interrupted_run_removes_its_postgresql_databases_and_redis_keys(
    tmp_path: Path, postgresql_database: dict[str, str], redis_broker: Broker
) -> None:
    name, _ = interrupted_run(tmp_path, database="postgresql", broker="redis")

    address = {key: postgresql_database[key.upper()] for key in ("host", "port", "user", "password")}
    with psycopg.connect(dbname=postgresql_database["NAME"], **address) as connection:
        databases = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
    assert postgresql_database["NAME"] in databases
    assert name not in databases
    with redis.Redis.from_url(redis_broker.celery["broker_url"]) as client:
        assert client.keys(f"*{name}*") == []


def test_interrupted_run_removes_its_mariadb_databases_and_rabbitmq_queues(
    tmp_path: Path, mariadb_database: dict[str, str], rabbitmq_broker: Broker
) -> None:
    name, _ = interrupted_run(tmp_path, database="mariadb", broker="rabbitmq")

    address = {key: mariadb_database[key.upper()] for key in ("host", "port", "user", "password")}
    with pymysql.connect(**address) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW DATABASES")
        databases = {row[0] for row in cursor.fetchall()}
    assert mariadb_database["NAME"] in databases
    assert name not in databases
    own = rabbitmq_broker.celery["broker_url"].replace(mariadb_database["NAME"], name)
    with Connection(own) as connection:
        # Either there is no such virtual host, or, where it could not have its own, no such queue.
        errors = connection.connection_errors + connection.channel_errors
        with pytest.raises(errors, match=r"(?i)not.found"):
            connection.default_channel.queue_declare(f"{name}.celery", passive=True)


@pytest.mark.usefixtures("postgresql_database", "redis_broker")
def test_interrupted_run_ends_the_processes_it_has_started(tmp_path: Path) -> None:
    _, pid = interrupted_run(tmp_path, database="postgresql", broker="redis")

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
