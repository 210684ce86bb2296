"""What the outbox costs, beside `django-celery-outbox` and bare `transaction.on_commit`, on PostgreSQL and Redis.

python benchmarks/outbox.py            prints tables, in about five minutes
python benchmarks/outbox.py --fast     with fewer values and rows, in about one
python benchmarks/outbox.py --million  drains a million entries, too
python benchmarks/outbox.py --check    exits with 1 if a figure is beyond its reach

The servers are looked for where the tests look for them: `AIRLOCK_TEST_POSTGRESQL`, `AIRLOCK_TEST_REDIS`, or their
usual ports. README.md says what is measured, and what came of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import platform
import random
import signal
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.metadata import version
from time import perf_counter
from typing import TYPE_CHECKING, Any

import outbox_project as project
import psycopg
import redis
from django.core.management import call_command
from django.db import connection, transaction
from outbox_project import floor, ours, ours_by_relay, plain, theirs, without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection

    from outbox_project import Transaction

OTHER = "django-celery-outbox"
TABLES = {"theirs": "celery_outbox", "ours": "airlock_outbox"}
COMMANDS = {"theirs": "celery_outbox_relay", "ours": "airlock_relay"}
broker = redis.Redis.from_url(project.REDIS)


# -- What is measured --------------------------------------------------------------------------------------------------


def measure_costs(intents: int, rounds: int) -> dict[str, tuple[float, float]]:
    """What intents add to a transaction: until its COMMIT has returned, and until the request goes on."""
    ways: list[Callable[[int], Transaction]] = [without, plain, theirs, ours, floor]
    added: dict[str, list[tuple[float, float]]] = {way.__name__: [] for way in ways}
    for number in range(-3, rounds):
        done = {way.__name__: way(intents) for way in random.sample(ways, len(ways))}
        bare = done["without"]
        for name, it in done.items() if number >= 0 else ():
            commit = it.committed - it.began - (bare.committed - bare.began)
            added[name].append((commit, it.ended - it.began - (bare.ended - bare.began)))
    clean()
    return {name: tuple(map(statistics.median, zip(*values, strict=True))) for name, values in added.items()}


def measure_latency(rounds: int) -> dict[str, list[float]]:
    """The times from COMMIT to broker, with relays that run as they do by default."""
    ways: list[Callable[[int], Transaction]] = [plain, theirs, ours, ours_by_relay]
    committed: dict[str, tuple[str, float]] = {}
    arrived: dict[str, float] = {}
    spawn = multiprocessing.get_context("spawn")
    mine, its = spawn.Pipe()
    watcher = spawn.Process(target=watch, args=(its,), daemon=True)
    watcher.start()
    try:
        mine.recv()  # it is ready
        with relay("theirs"), relay("ours"):
            wait_for(mine, [done_id for way in ways for done_id in way(1).ids])  # until the relays are there
            for _ in range(rounds):
                for way in random.sample(ways, len(ways)):
                    done = way(1)
                    committed[done.ids[0]] = way.__name__, done.committed
                time.sleep(random.uniform(0.03, 0.09))
                while mine.poll():  # else the pipe fills, and the watcher waits
                    task_id, at = mine.recv()
                    arrived[task_id] = at
            arrived |= wait_for(mine, committed.keys() - arrived.keys())
    finally:
        watcher.kill()
        watcher.join()
    clean()
    found: dict[str, list[float]] = {way.__name__: [] for way in ways}
    for task_id, (name, at) in committed.items():
        found[name].append(arrived[task_id] - at)
    return found


def wait_for(watcher: Connection, task_ids: Iterable[str]) -> dict[str, float]:
    """When messages arrived."""
    arrived: dict[str, float] = {}
    while not set(task_ids) <= arrived.keys():
        if not watcher.poll(60):
            raise TimeoutError("Not all messages have arrived.")
        task_id, at = watcher.recv()
        arrived[task_id] = at
    return arrived


def watch(pipe: Connection) -> None:
    """Tell when each message arrives, in a process of its own. Processes share the clock of `perf_counter`."""
    queues = [queue_of(name) for name in ("plain", "theirs", "ours")]
    pipe.send("ready")
    while True:
        if found := broker.brpop(queues, timeout=2):  # redis-py itself does not wait for long
            pipe.send((json.loads(found[1])["headers"]["id"], perf_counter()))


def measure_relay(name: str, count: int, parts: int = 1) -> list[float]:
    """How many entries a second a relay dispatches: for each so many parts of them."""
    fill(name, count)
    queue, taken, seen = queue_of(name), 0, [(0.0, 0)]
    with relay(name):
        while taken < count:
            # What has arrived is thrown away: a million messages would fill the memory.
            with broker.pipeline() as pipeline:
                pipeline.llen(queue)
                pipeline.unlink(queue)
                arrived = pipeline.execute()[0]
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
    return [(to - since) / (end - begin) for (begin, since), (end, to) in itertools.pairwise(seen)]


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
            time.sleep(1.5)  # what the relay's session did is counted late
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
        cursor.execute("SELECT pg_stat_force_next_flush()")
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
    others = set(broker.scan_iter("_kombu.binding*"))
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
            made = [key for key in broker.scan_iter("_kombu.binding*") if key not in others]
            mine = [key for key in made if project.RUN.encode() in key or b".celery_delayed_" in key]
            broker.unlink(*mine, *map(queue_of, ("plain", "theirs", "ours")))


# -- The tables --------------------------------------------------------------------------------------------------------

LABELS = {
    "plain": "on_commit",
    "theirs": OTHER,
    "ours": "Airlock",
    "ours_by_relay": "Airlock, by its relay",
}


class Report:
    """Prints tables, and counts what was missed."""

    def __init__(self) -> None:
        self.missed = 0

    def head(self, what: str, *columns: str) -> None:
        print()
        self.row(what, *columns)

    def row(self, what: str, *cells: str) -> None:
        print(f"{what:<46}" + "".join(f"{cell:>13}" for cell in cells), flush=True)

    def figure(self, what: str, *cells: str, value: float, reach: float, lower: bool = False) -> None:
        """A row with something that was to be reached."""
        reached = value < reach if lower else value >= reach
        self.missed += not reached
        self.row(what, *cells, f"{'<' if lower else ''}{reach:g}", "reached" if reached else "MISSED")


def report_relays(report: Report, rounds: int, count: int) -> float:
    """Returns how many entries a second the other relay dispatches."""
    pairs = [(measure_relay("theirs", count)[0], measure_relay("ours", count)[0]) for _ in range(rounds)]
    rates: list[float] = [statistics.median(rates) for rates in zip(*pairs, strict=True)]
    multiple = statistics.median(ours / theirs for theirs, ours in pairs)
    report.head("relays", "other", "Airlock", "multiple", "reach")
    cells = [f"{rate:,.0f}" for rate in rates]
    report.figure(f"entries a second, of {count:,}", *cells, f"{multiple:.2f}", value=multiple, reach=5)
    return rates[0]


def report_costs(report: Report, values: dict[int, int], other_rate: float) -> None:
    report.head("added to a transaction, per intent", "on_commit", "other", "Airlock", "multiple", "reach")
    for intents, rounds in values.items():
        costs = measure_costs(intents, rounds)
        commit = {name: cost / intents for name, (cost, _) in costs.items()}
        request = {name: cost / intents for name, (_, cost) in costs.items()}
        published = {**request, "theirs": request["theirs"] + 1 / other_rate}
        for until, spent in (("its COMMIT", commit), ("the request goes on", request), ("published", published)):
            multiple = spent["theirs"] / spent["ours"]
            cells = [*(f"{spent[name] * 1e6:.0f} us" for name in ("plain", "theirs", "ours")), f"{multiple:.2f}"]
            if intents == 10 and spent is commit:
                report.figure(f"{intents} intents, until {until}", *cells, value=multiple, reach=4)
            else:
                report.row(f"{intents} intents, until {until}", *cells)
        least = [commit["theirs"], commit["floor"]]
        cells = [*(f"{cost * 1e6:.0f} us" for cost in least), f"{least[0] / least[1]:.2f}"]
        report.row(f"{intents} intents, the floor until its COMMIT", "", *cells)


def report_latency(report: Report, rounds: int) -> None:
    report.head("from COMMIT to the broker", "median", "99 %", "reach")
    for name, values in measure_latency(rounds).items():
        median, late = statistics.median(values) * 1e3, statistics.quantiles(values, n=100)[98] * 1e3
        cells = (f"{median:.1f} ms", f"{late:.1f} ms")
        if name == "ours":
            report.figure(LABELS[name], *cells, value=median, reach=10, lower=True)
        else:
            report.row(LABELS[name], *cells)


def report_writes(report: Report, transactions: int) -> None:
    report.head("in the database, per intent, 10 together", "INSERT", "UPDATE", "DELETE", "WAL")
    for table, way in (("theirs", theirs), ("ours", ours), ("ours", ours_by_relay)):
        spent = measure_writes(table, way, transactions)
        counts = [f"{spent[key]:.2f}" for key in ("INSERT", "UPDATE", "DELETE")]
        report.row(LABELS[way.__name__], *counts, f"{spent['WAL']:.0f} B")


def report_empty_claims(report: Report, churn: int) -> None:
    report.head(f"an empty claim after {churn:,} rows", "unpinned", "pinned", "multiple", "reach")
    for name in ("theirs", "ours"):
        (first, then), (first_pinned, then_pinned) = (
            measure_empty_claims(name, churn, 60, pinned=pinned) for pinned in (False, True)
        )
        cells = (f"{then * 1e3:.2f} ms", f"{then_pinned * 1e3:.2f} ms", f"{then_pinned / then:.2f}")
        if name == "theirs":
            report.row(LABELS[name], *cells)
        else:
            report.figure(LABELS[name], *cells, value=then_pinned / then, reach=5, lower=True)
            report.row(f"{LABELS[name]}, once a minute", f"{first * 1e3:.2f} ms", f"{first_pinned * 1e3:.2f} ms")


def report_million(report: Report, count: int) -> None:
    tenths = measure_relay("ours", count, parts=10)
    report.head(f"draining {count:,}, a tenth after another", "a second", "reach")
    for rate in tenths:
        report.row("", f"{rate:,.0f}")
    steady = min(tenths) / max(tenths)
    report.figure("the slowest beside the fastest", f"{steady:.2f}", value=steady, reach=0.8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="fewer values, and a tenth or a fifth of the rows")
    parser.add_argument("--million", action="store_true", help="drain a million entries, too")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a figure is beyond its reach")
    parser.add_argument("--relay", choices=COMMANDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.relay:
        call_command(COMMANDS[options.relay])
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what it has made goes even then
    try:
        broker.ping()
        with psycopg.connect(project.POSTGRESQL, connect_timeout=5) as server:
            server_version = server.info.parameter_status("server_version")
            settings_of = "SELECT name || '=' || setting FROM pg_settings WHERE name IN ('autovacuum', 'fsync')"
            server_settings = ", ".join(row[0] for row in server.execute(settings_of))
    except (redis.ConnectionError, psycopg.OperationalError) as error:
        print(f"Not measured: {error}")
        return 0
    report = Report()
    fast = options.fast
    with servers():
        other_rate = report_relays(report, *((1, 4000) if fast else (3, 20_000)))
        report_costs(report, {1: 40, 2: 40, 10: 24, 100: 6} if fast else {1: 200, 2: 200, 10: 120, 100: 24}, other_rate)
        report_latency(report, 60 if fast else 250)
        report_writes(report, 20 if fast else 100)
        report_empty_claims(report, 30_000 if fast else 300_000)
        if options.million:
            report_million(report, 100_000 if fast else 1_000_000)
    packages = ", ".join(f"{name} {version(name)}" for name in (OTHER, "Django", "Celery", "psycopg"))
    print(f"\nPython {platform.python_version()}, {packages}; PostgreSQL {server_version} ({server_settings}).")
    print(f"'Other' is {OTHER}. {platform.machine()}, {platform.system()}. Medians.")
    return 1 if options.check and report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
