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
    import time
    from pathlib import Path

    import redis
    import services


    def test_interrupted(pytestconfig, {database}_database, {broker}_broker, start_process):
        assert {database}_database["NAME"] == services.RUN
        queue = {broker}_broker.queue("celery")
        with {broker}_broker._connection() as connection:
            connection.SimpleQueue(queue).put("left over")
        program = "trap 'sleep {seconds_to_end}; exit' TERM; echo up; sleep 600 & wait"
        process = start_process("sh", "-c", program, ready="up")
        (Path("began") / services.RUN).write_text(str(process.pid))
        while len(list(Path("began").iterdir())) < {processes}:
            time.sleep(0.01)
        # As Ctrl-C does it, which is for the process that was started from the command line.
        shared = getattr(pytestconfig, "workerinput", None)
        if not shared or shared["workerid"] == "gw0":
            os.kill(os.getppid() if shared else os.getpid(), signal.SIGINT)
        time.sleep(60)
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


def interrupted_run(
    directory: Path, *, database: str, broker: str, processes: int = 1, seconds_to_end: int = 0
) -> dict[str, int]:
    """Run tests that are interrupted while they use services.

    Args:
        processes: how many of them run the tests.
        seconds_to_end: what a program takes that the tests have started.

    Returns:
        For each process, what it called its things, and the pid of such a program.
    """
    test = directory / "test_interrupted.py"
    given = {"database": database, "broker": broker, "processes": processes, "seconds_to_end": seconds_to_end}
    test.write_text(dedent(INTERRUPTED.format(**given)))
    began = directory / "began"
    began.mkdir()
    pytest = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), str(test)]
    if processes > 1:
        pytest += [f"--tx={processes}*popen", "--dist=each"]
    run = subprocess.run(pytest, cwd=directory, capture_output=True, text=True, timeout=120)
    assert "KeyboardInterrupt" in run.stdout, run.stdout + run.stderr
    programs = {file.name: int(file.read_text()) for file in began.iterdir()}
    assert len(programs) == processes
    return programs


def postgresql_databases(known: dict[str, str]) -> set[str]:
    """The names of all databases on PostgreSQL, that of a known one among them."""
    address = {key: known[key.upper()] for key in ("host", "port", "user", "password")}
    with psycopg.connect(dbname=known["NAME"], **address) as connection:
        databases = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
    assert known["NAME"] in databases
    return databases


def test_interrupted_run_removes_its_postgresql_databases_and_redis_keys(
    tmp_path: Path, postgresql_database: dict[str, str], redis_broker: Broker
) -> None:
    (name,) = interrupted_run(tmp_path, database="postgresql", broker="redis")

    assert name not in postgresql_databases(postgresql_database)
    with redis.Redis.from_url(redis_broker.celery["broker_url"]) as client:
        assert client.keys(f"*{name}*") == []


def test_interrupted_run_removes_its_mariadb_databases_and_rabbitmq_queues(
    tmp_path: Path, mariadb_database: dict[str, str], rabbitmq_broker: Broker
) -> None:
    (name,) = interrupted_run(tmp_path, database="mariadb", broker="rabbitmq")

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
    (pid,) = interrupted_run(tmp_path, database="postgresql", broker="redis").values()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_interrupted_run_of_several_processes_gives_each_the_time_to_leave_nothing(
    tmp_path: Path, postgresql_database: dict[str, str], redis_broker: Broker
) -> None:
    programs = interrupted_run(tmp_path, database="postgresql", broker="redis", processes=2, seconds_to_end=11)

    left = postgresql_databases(postgresql_database)
    with redis.Redis.from_url(redis_broker.celery["broker_url"]) as client:
        for name, pid in programs.items():
            assert name not in left
            assert client.keys(f"*{name}*") == []
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
