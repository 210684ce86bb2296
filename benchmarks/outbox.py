"""What the outbox costs, beside `django-celery-outbox` and bare `transaction.on_commit`, on PostgreSQL and Redis.

python benchmarks/outbox.py            prints tables, in about five minutes
python benchmarks/outbox.py --fast     with fewer values and rows, in about one
python benchmarks/outbox.py --million  drains a million entries, too
python benchmarks/outbox.py --check    exits with 1 if a figure is beyond its reach

The servers are looked for where the tests look for them: `AIRLOCK_TEST_POSTGRESQL`, `AIRLOCK_TEST_REDIS`, or their usual
ports. README.md says what is measured, and what came of it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import random
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import outbox_project as project
import psycopg
import redis
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction

import airlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

OTHER = "django-celery-outbox"
TABLES = {"theirs": "celery_outbox", "ours": "airlock_outbox"}
COMMANDS = {"theirs": "celery_outbox_relay", "ours": "airlock_relay"}
broker = redis.Redis.from_url(project.REDIS)


# -- The three ways to do it -------------------------------------------------------------------------------------------


class Transaction:
    """A transaction with one INSERT of a project's own and some intents."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.began = perf_counter()
        #: When the COMMIT had returned, and when the request would go on.
        self.committed = self.ended = 0.0

    def begin(self) -> None:
        transaction.on_commit(self._note_commit)
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO shop_order (customer, total) VALUES (%s, %s)", ["Ada", 12])

    def _note_commit(self) -> None:
        self.committed = perf_counter()

    def end(self) -> Transaction:
        self.ended = perf_counter()
        return self


def without(intents: int) -> Transaction:
    done = Transaction()
    with transaction.atomic():
        done.begin()
    return done.end()


def plain(intents: int) -> Transaction:
    done = Transaction()

    def delay(number: int) -> None:
        done.ids.append(project.notify_plain.delay(number, retry=True).id)

    with transaction.atomic():
        done.begin()
        for number in range(intents):
            transaction.on_commit(lambda number=number: delay(number))
    return done.end()


def theirs(intents: int) -> Transaction:
    done = Transaction()
    with transaction.atomic():
        done.begin()
        for number in range(intents):
            done.ids.append(project.notify_theirs.delay(number, retry=True).id)
    return done.end()


def ours(intents: int) -> Transaction:
    done = Transaction()
    with airlock.scope(), transaction.atomic():
        done.begin()
        for number in range(intents):
            done.ids.append(airlock.enqueue(project.notify_ours, number, retry=True).id)
    return done.end()


def ours_by_relay(intents: int) -> Transaction:
    """Without the fast path, as it is when the broker was down."""
    settings.AIRLOCK["OUTBOX"]["FAST_PATH_SECONDS"] = 0
    try:
        return ours(intents)
    finally:
        settings.AIRLOCK["OUTBOX"].clear()


# -- What is measured --------------------------------------------------------------------------------------------------


def measure_costs(intents: int, rounds: int) -> dict[str, tuple[float, float]]:
    """What intents add to a transaction: until its COMMIT has returned, and until the request goes on."""
    ways: list[Callable[[int], Transaction]] = [without, plain, theirs, ours]
    added: dict[str, list[tuple[float, float]]] = {way.__name__: [] for way in ways}
    for number in range(-3, rounds):
        done = {way.__name__: way(intents) for way in random.sample(ways, len(ways))}
        floor = done["without"]
        for name, it in done.items() if number >= 0 else ():
            commit = it.committed - it.began - (floor.committed - floor.began)
            added[name].append((commit, it.ended - it.began - (floor.ended - floor.began)))
    clean()
    return {name: tuple(map(statistics.median, zip(*values, strict=True))) for name, values in added.items()}  # type: ignore[misc]


def measure_latency(rounds: int) -> dict[str, list[float]]:
    """The times from COMMIT to broker, with relays that run as they do by default."""
    ways: list[Callable[[int], Transaction]] = [plain, theirs, ours, ours_by_relay]
    committed: dict[str, tuple[str, float]] = {}
    spawn = multiprocessing.get_context("spawn")
    mine, its = spawn.Pipe()
    watcher = spawn.Process(target=watch, args=(its,), daemon=True)
    watcher.start()
    try:
        mine.recv()  # it is ready
        with relay("theirs"), relay("ours"):
            for number in range(-10, rounds):
                for way in random.sample(ways, len(ways)):
                    done = way(1)
                    if number >= 0:
                        committed[done.ids[0]] = way.__name__, done.committed
                time.sleep(random.uniform(0.03, 0.09))
            arrived: dict[str, float] = {}
            while not committed.keys() <= arrived.keys():
                if not mine.poll(30):
                    raise TimeoutError("Not all messages have arrived.")
                task_id, at = mine.recv()
                arrived[task_id] = at
    finally:
        watcher.kill()
        watcher.join()
    clean()
    found: dict[str, list[float]] = {way.__name__: [] for way in ways}
    for task_id, (name, at) in committed.items():
        found[name].append(arrived[task_id] - at)
    return found


def watch(pipe: Connection) -> None:
    """Tell when each message arrives, in a process of its own. Processes share the clock of `perf_counter`."""
    queues = [queue_of(name) for name in ("plain", "theirs", "ours")]
    pipe.send("ready")
    while True:
        _, body = broker.brpop(queues)  # type: ignore[misc]
        pipe.send((json.loads(body)["headers"]["id"], perf_counter()))


def measure_relay(name: str, count: int, parts: int = 1) -> list[float]:
    """How many entries a second a relay dispatches: for each so many parts of them."""
    fill(name, count)
    queue, taken, seen = queue_of(name), 0, [(0.0, 0)]
    with relay(name):
        while taken < count:
            # What has arrived is thrown away: a million messages would fill the memory.
            arrived, _ = broker.pipeline().llen(queue).unlink(queue).execute()
            taken += arrived
            if arrived and seen[0] == (0.0, 0):
                seen[0] = perf_counter(), taken  # not counted: the start of the process
            elif arrived and taken >= seen[0][1] + (count - seen[0][1]) * len(seen) / parts:
                seen.append((perf_counter(), taken))
            elif perf_counter() - (seen[-1][0] or perf_counter()) > 600:
                raise TimeoutError("The relay dispatches nothing.")
            time.sleep(0.01)
        while rows(name):
            time.sleep(0.01)
    clean()
    return [(to - since) / (end - begin) for (begin, since), (end, to) in zip(seen, seen[1:], strict=False)]


def measure_writes(name: str, way: Callable[[int], Transaction], transactions: int) -> dict[str, float]:
    """What a database does for an intent, from its INSERT to its DELETE; transactions have 10 of them."""
    best: dict[str, float] = {}
    with relay(name):
        for _ in range(4):  # the least counts, as others may use the server, too; and full pages are written at first
            before = statistics_of(name)
            for _ in range(transactions):
                way(10)
            while rows(name):
                time.sleep(0.05)
            time.sleep(1.5)  # servers count late
            spent = {key: value - before[key] for key, value in statistics_of(name).items()}
            before = statistics_of(name)
            for _ in range(transactions):
                without(10)
            spent["WAL"] -= statistics_of(name)["WAL"] - before["WAL"]
            per_intent = {key: value / transactions / 10 for key, value in spent.items()}
            best = min(best or per_intent, per_intent, key=lambda found: found["WAL"])
    clean()
    return best


def statistics_of(name: str) -> dict[str, float]:
    columns = "n_tup_ins, n_tup_upd, n_tup_del, pg_current_wal_lsn() - '0/0'::pg_lsn"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM pg_stat_user_tables WHERE relname = %s", [TABLES[name]])
        return dict(zip(("INSERT", "UPDATE", "DELETE", "WAL"), map(float, cursor.fetchone()), strict=True))


def measure_empty_claims(name: str, churn: int, claims: int, *, pinned: bool) -> tuple[float, float]:
    """What it takes to claim nothing, at first and then, after inserts and deletes as if of ten minutes."""
    from django_celery_outbox.relay._message_selector import MessageSelector

    from airlock.integrations.outbox._relay import Relay

    now = "now() - (10 * (%(count)s - number) / %(count)s || ' minutes')::interval"
    columns, values = {
        "theirs": (
            "created_at, retries, task_id, task_name, args, kwargs, options, schema_version",
            f"{now}, 0, number, 'shop.notify', '[]', '{{}}', jsonb_build_object('x', repeat('x', 50)), 2",
        ),
        "ours": (
            "id, created, due, held, attempts, task, version, payload, error",
            f"gen_random_uuid(), {now}, {now}, false, 0, 'shop.notify', 1, repeat('x', 900), ''",
        ),
    }[name]
    table, size = TABLES[name], min(1000, churn)
    with psycopg.connect(project.POSTGRESQL, dbname=project.RUN) as old, connection.cursor() as cursor:
        if pinned:
            old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            old.execute(f"SELECT count(*) FROM {table}")
        for begin in range(0, churn, size):
            rows_of = "generate_series(%(begin)s, %(begin)s + %(size)s - 1) number"
            numbers = {"begin": begin, "size": size, "count": churn * 1.0}
            cursor.execute(f"INSERT INTO {table} ({columns}) SELECT {values} FROM {rows_of}", numbers)
            cursor.execute(f"DELETE FROM {table}")
        cursor.execute(f"VACUUM ANALYZE {table}")  # as autovacuum would have, which may be off
        claimer: Any = Relay("default") if name == "ours" else MessageSelector(batch_size=100)
        times = []
        for _ in range(claims):
            began = perf_counter()
            if name == "ours":
                claimer.step()
            else:
                with transaction.atomic():
                    claimer.run()
            times.append(perf_counter() - began)
    clean()
    return times[0], statistics.median(times[1:])


# -- Rows, queues and relays -------------------------------------------------------------------------------------------


def fill(name: str, count: int, together: int = 500) -> None:
    way = ours_by_relay if name == "ours" else theirs
    for begin in range(0, count, together):
        way(min(together, count - begin))


def rows(name: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT EXISTS (SELECT FROM {TABLES[name]})")
        return bool(cursor.fetchone()[0])


def queue_of(name: str) -> str:
    return f"{project.RUN}.{name}"


def clean() -> None:
    """Leave empty tables and queues to what is measured next."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE shop_order, airlock_outbox, celery_outbox")
    broker.unlink(*map(queue_of, ("plain", "theirs", "ours")))


@contextmanager
def relay(name: str) -> Iterator[None]:
    """A relay in a process of its own, as it is by default."""
    process = subprocess.Popen([sys.executable, __file__, "--relay", name], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def servers() -> Iterator[None]:
    """A database of this run, and in the end nothing of it."""
    # The other relay declares queues for delayed messages, with fixed names, that Redis has no use for.
    delayed = set(broker.scan_iter("_kombu.binding.*"))
    with psycopg.connect(project.POSTGRESQL, autocommit=True, connect_timeout=5) as server:
        server.execute(f"CREATE DATABASE {project.RUN}")
        try:
            call_command("migrate", verbosity=0)
            with connection.cursor() as cursor:
                cursor.execute("CREATE TABLE shop_order (id bigserial PRIMARY KEY, customer text, total numeric)")
            yield
        finally:
            connection.close()
            server.execute(f"DROP DATABASE {project.RUN} WITH (FORCE)")
            mine = {key for key in broker.scan_iter("_kombu.binding.*") if project.RUN.encode() in key}
            new = {key for key in broker.scan_iter("_kombu.binding.celery_delayed*") if key not in delayed}
            broker.unlink("-", *mine, *new, *map(queue_of, ("plain", "theirs", "ours")))


# -- The tables --------------------------------------------------------------------------------------------------------


class Report:
    def __init__(self) -> None:
        self.missed = 0

    def head(self, what: str, *columns: str) -> None:
        print(f"\n{what:<44}" + "".join(f"{column:>13}" for column in columns), flush=True)

    def row(self, what: str, *cells: object, reached: bool | None = None) -> None:
        note = "" if reached is None else "reached" if reached else "MISSED"
        self.missed += reached is False
        print(f"{what:<44}" + "".join(f"{cell:>13}" for cell in cells) + f"{note:>9}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="Fewer values and rows")
    parser.add_argument("--million", action="store_true", help="Drain a million entries, too; 100,000 with --fast")
    parser.add_argument("--check", action="store_true", help="Exit with 1 if a figure is beyond its reach")
    parser.add_argument("--relay", choices=COMMANDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.relay:
        call_command(COMMANDS[options.relay])
        return 0
    try:
        broker.ping()
        with psycopg.connect(project.POSTGRESQL, connect_timeout=5) as server:
            setting = {name: server.execute(f"SHOW {name}").fetchone()[0] for name in ("server_version", "fsync", "autovacuum")}  # type: ignore[index]
    except (redis.ConnectionError, psycopg.OperationalError) as error:
        print(f"Not measured: {error}")
        return 0
    report = Report()
    with servers():
        measure(report, fast=options.fast, million=options.million)
    packages = ", ".join(f"{name} {version(name)}" for name in (OTHER, "Django", "Celery", "psycopg"))
    print(f"\nPython {platform.python_version()}, {packages}; PostgreSQL {setting}; {platform.machine()}.")
    return 1 if options.check and report.missed else 0


def measure(report: Report, *, fast: bool, million: bool) -> None:
    # First, as what is to be added to the transactions of the other one comes of it.
    rounds, count = (1, 4000) if fast else (3, 20_000)
    pairs = [[measure_relay(name, count)[0] for name in ("theirs", "ours")] for _ in range(rounds)]
    rate = {name: statistics.median(rates) for name, rates in zip(("theirs", "ours"), zip(*pairs, strict=True), strict=True)}
    times = statistics.median(ours / theirs for theirs, ours in pairs)
    report.head("relay", OTHER[:12], "Airlock", "multiple", "reach")
    report.row(f"entries a second, of {count:,}", *(f"{it:,.0f}" for it in rate.values()), f"{times:.2f}", 5, reached=times >= 5)

    report.head("added to a transaction, per intent", "on_commit", OTHER[:12], "Airlock", "multiple", "reach")
    for intents, values in {1: 200, 2: 200, 10: 120, 100: 24}.items():
        costs = measure_costs(intents, values // 5 if fast else values)
        commit = {name: cost / intents for name, (cost, _) in costs.items()}
        request = {name: cost / intents for name, (_, cost) in costs.items()}
        published = {**request, "theirs": request["theirs"] + 1 / rate["theirs"]}
        for what, spent in {"until COMMIT": commit, "until the request goes on": request, "until it is published": published}.items():
            multiple, is_reach = spent["theirs"] / spent["ours"], intents == 10 and spent is commit
            cells = (f"{spent[name] * 1e6:.0f} us" for name in ("plain", "theirs", "ours"))
            reached = multiple >= 4 if is_reach else None
            report.row(f"{intents} intents, {what}", *cells, f"{multiple:.2f}", 4 if is_reach else "", reached=reached)

    report.head("from COMMIT to the broker", "median", "99 %", "reach")
    for name, values in measure_latency(60 if fast else 250).items():
        label = {"plain": "on_commit", "theirs": f"{OTHER}, by its relay", "ours": "Airlock", "ours_by_relay": "Airlock, by its relay"}[name]
        median, late = (f"{it * 1e3:.1f} ms" for it in (statistics.median(values), statistics.quantiles(values, n=100)[98]))
        is_reach = name == "ours"
        report.row(label, median, late, "10 ms" if is_reach else "", reached=statistics.median(values) < 0.01 if is_reach else None)

    report.head("in the database, per intent, 10 together", "INSERT", "UPDATE", "DELETE", "WAL")
    for label, name, way in ((OTHER, "theirs", theirs), ("Airlock", "ours", ours), ("Airlock, by its relay", "ours", ours_by_relay)):
        spent = measure_writes(name, way, 20 if fast else 100)
        report.row(label, *(f"{spent[key]:.2f}" for key in ("INSERT", "UPDATE", "DELETE")), f"{spent['WAL']:.0f} B")

    churn = 30_000 if fast else 300_000
    report.head(f"an empty claim after {churn:,} rows", "unpinned", "pinned", "multiple", "reach")
    for label, name in ((OTHER, "theirs"), ("Airlock", "ours")):
        free, pinned = (measure_empty_claims(name, churn, 60, pinned=it) for it in (False, True))
        for what, number in (("", 1), *([(", once a minute", 0)] if name == "ours" else [])):
            multiple, is_reach = pinned[number] / free[number], name == "ours" and number == 1
            cells = (f"{it[number] * 1e3:.2f} ms" for it in (free, pinned))
            reached = multiple < 5 if is_reach else None
            report.row(label + what, *cells, f"{multiple:.2f}", 5 if is_reach else "", reached=reached)

    if million:
        tenths = measure_relay("ours", 100_000 if fast else 1_000_000, parts=10)
        report.head("draining a million, entries a second")
        for number, it in enumerate(tenths, 1):
            report.row(f"tenth {number}", f"{it:,.0f}")
        steady = min(tenths) / max(tenths)
        report.row("the slowest beside the fastest", f"{steady:.2f}", "reach 0.8", reached=steady >= 0.8)


if __name__ == "__main__":
    sys.exit(main())
