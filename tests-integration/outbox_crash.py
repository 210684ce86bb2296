"""The crash test of the outbox: processes are killed, brokers and databases stopped, and all that was due arrives.

    python tests-integration/outbox_crash.py --transactions 2000 --kills 100

runs it for each database and broker until there were so many transactions and kills, and prints a table of what became
of the intents. It starts all servers itself. It fails if anything is missing, or arrived that must not.

What runs in the processes, and where they are killed: `outbox_crash_processes.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kombu import Connection, Queue

from own_brokers import OwnRabbitMQ, OwnRedis
from own_databases import OwnMariaDB, OwnPostgreSQL, SQLite
from processes import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES = Path(__file__).with_name("outbox_crash_processes.py")
OPTIONS = {
    "HOLD_SECONDS": 4,
    "LEASE_SECONDS": 3,
    "BREAKER_SECONDS": 0.5,
    "BACKOFF_SECONDS": 0.1,
    "MAX_BACKOFF_SECONDS": 1,
    "POLL_SECONDS": 0.1,
    # Relays are killed all the time.
    "MAX_ATTEMPTS": 1000,
}


# -- Servers that may be killed ----------------------------------------------------------------------------------------


class LastingRedis(OwnRedis):
    """A Redis that remembers all that it has answered for."""

    def start(self) -> None:
        command = [self._executable, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--dir", str(self._directory)]
        log = self._directory / "redis.log"
        log.unlink(missing_ok=True)
        self._process = Process(command, log=log).until("Ready to accept connections")


DATABASES: dict[str, Any] = {"PostgreSQL": OwnPostgreSQL, "MariaDB": OwnMariaDB, "SQLite": SQLite}
BROKERS: dict[str, Any] = {"Redis": LastingRedis, "RabbitMQ": OwnRabbitMQ}


# -- What became of the intents ----------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What was to arrive, and what has."""

    transactions: int = 0
    #: By role and step.
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: What was done to the servers, and how often.
    faults: Counter[str] = field(default_factory=Counter)
    #: Intents whose transaction has committed, or which were flushed in autocommit, in scopes that did not discard.
    agreed: int = 0
    arrived: int = 0
    #: Of these, those that did not arrive.
    missing: list[str] = field(default_factory=list)
    #: Arrived, though their transaction was rolled back or their scope was discarded.
    forbidden: list[str] = field(default_factory=list)
    #: Arrived, as the process died before it could discard, or as the answer to the COMMIT was lost.
    orphans: int = 0
    #: Arrived, as the process died before its flush was over, which it had begun.
    undecided: int = 0
    #: Arrived once more, with the same id.
    duplicates: int = 0
    #: Arrived once more, with another id.
    renamed: list[str] = field(default_factory=list)
    #: Still in the table.
    left: list[str] = field(default_factory=list)
    #: What was raised in the processes that nobody has to expect.
    unexpected: Counter[str] = field(default_factory=Counter)

    @property
    def defects(self) -> dict[str, list[str]]:
        found = {"missing": self.missing, "forbidden": self.forbidden, "renamed": self.renamed, "left": self.left}
        return {what: which for what, which in found.items() if which}


def judge(journal: str, committed: set[str], arrivals: dict[str, list[str]], left: list[str]) -> Verdict:
    """Compare the journal and the database with what the broker has.

    Args:
        journal: what the processes have noted.
        committed: the intents that the database knows of.
        arrivals: the ids of the messages that came for each intent.
        left: what is still in the table.
    """
    lines = [line.split(" ") for line in journal.splitlines()]
    noted: dict[str, set[str]] = defaultdict(set)
    for kind, *words in lines:
        noted[kind].add(words[0] if words else "")
    verdict = Verdict(left=left)
    known = set()
    for what, *words in lines:
        match what, words:
            case "T", _:
                verdict.transactions += 1
            case "A", _:
                verdict.faults["answer to a COMMIT lost"] += 1
            case "C", _:
                verdict.faults["connections to the database cut"] += 1
            case "K", [role, *step]:
                verdict.kills[role, " ".join(step)] += 1
            case "U", _:
                verdict.unexpected[" ".join(words)] += 1
            case "E", [name, scopes, where, kind]:
                known.add(name)
                _judge(verdict, name, scopes.split(","), where, kind, noted, committed, name in arrivals)
    for name, ids in arrivals.items():
        verdict.duplicates += len(ids) - len(set(ids))
        if len(set(ids)) > 1:
            verdict.renamed.append(name)
        if name not in known:
            verdict.forbidden.append(f"{name}, of which nobody knows")
    return verdict


def _judge(
    verdict: Verdict,
    name: str,
    scopes: list[str],
    where: str,
    kind: str,
    noted: dict[str, set[str]],
    committed: set[str],
    has_arrived: bool,
) -> None:
    # The innermost one that was discarded decides: the others have never heard of it.
    discarding = next((scope for scope in scopes if scope in noted["X"]), None)
    what = f"{name} in {scopes}, a {kind} {'in a transaction' if where == 't' else 'in autocommit'}"
    if where == "t" and name not in committed:
        is_allowed, is_due = False, False
    elif discarding:
        # In autocommit it is not written before the flush.
        is_allowed, is_due = where == "t" and discarding not in noted["D"], False
        verdict.orphans += has_arrived and is_allowed
    else:
        is_allowed, is_due = True, where == "t" or scopes[-1] in noted["F"]
        verdict.undecided += has_arrived and not is_due
    verdict.agreed += is_due
    verdict.arrived += is_due and has_arrived
    if is_due and not has_arrived:
        verdict.missing.append(what)
    if has_arrived and not is_allowed:
        verdict.forbidden.append(f"{what}, {'rolled back' if name not in committed else 'discarded'}")


# -- A run on one database and one broker ------------------------------------------------------------------------------


class Run:
    """Writers and relays on one database and one broker.

    Args:
        database, broker: servers, which run.
        directory: for the journal.
        seed: what the programs and the kills follow from, as far as that goes.
    """

    def __init__(self, database: Any, broker: Any, directory: Path, seed: str) -> None:
        self._database = database
        self._broker = broker
        self._directory = directory
        self._rng = random.Random(seed)
        self._queue = f"crash-{secrets.token_hex(4)}"
        self._journal = directory / f"{self._queue}.journal"
        self._journal.touch()
        self._read = 0
        self._counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        is_file = "sqlite" in database.settings["ENGINE"]
        self._environment = {
            "OUTBOX_CRASH": json.dumps(
                {
                    "database": database.settings,
                    "broker": broker.url,
                    "broker_port": broker.port,
                    "scheme": broker.scheme,
                    "queue": self._queue,
                    "journal": str(self._journal),
                    "options": OPTIONS,
                    # On SQLite, relays take turns.
                    "processes": {"writer": 3, "relay": 1 if is_file else 2},
                    "seed": seed,
                }
            )
        }
        self._command("prepare")
        with self._connected() as connection:
            Queue(self._queue)(connection.default_channel).declare()

    def crash(self, transactions: int, kills: int, *, pause: tuple[float, float], timeout: float = 900) -> None:
        """Have it run until there were so many of each, or time is over.

        Args:
            transactions, kills: how many.
            pause: between faults of the servers, in seconds: at least, at most.
            timeout: in seconds.
        """
        log = self._directory / f"{self._queue}.log"
        deadline = time.monotonic() + timeout
        with Process([sys.executable, str(PROCESSES), "run"], log=log, env=self._environment) as parent:
            next_fault = time.monotonic() + self._rng.uniform(*pause)
            while (self._count("T") < transactions or self._count("K") < kills) and time.monotonic() < deadline:
                time.sleep(0.2)
                if time.monotonic() > next_fault:
                    self._break_something()
                    next_fault = time.monotonic() + self._rng.uniform(*pause)
                if parent.has_ended:
                    raise RuntimeError(f"The processes ended by themselves: {parent.log}")

    def verdict(self) -> Verdict:
        """Relay what is left, and compare."""
        truth = json.loads(self._command("drain"))
        arrivals = self._arrivals()
        self._journal.with_suffix(".json").write_text(json.dumps({**truth, "arrivals": arrivals}))
        verdict = judge(self._journal.read_text(), set(truth["committed"]), arrivals, truth["left"])
        verdict.faults.update(self.faults)
        return verdict

    def _count(self, kind: str) -> int:
        with self._journal.open() as journal:
            journal.seek(self._read)
            lines = journal.read()
            self._read += len(lines.encode())
        self._counts.update(line[0] for line in lines.splitlines() if line[:2] in {"T", "K "})
        return self._counts[kind]

    def _break_something(self) -> None:
        breakable = [("broker", self._broker), ("database", self._database)]
        name, server = self._rng.choice([each for each in breakable if hasattr(each[1], "kill")])
        how = self._rng.choice(["stop", "kill"])
        getattr(server, how)()
        time.sleep(self._rng.uniform(0, 1.5))
        server.start()
        self.faults[f"{name} {'stopped' if how == 'stop' else 'killed'}"] += 1

    def _command(self, name: str) -> str:
        path = os.pathsep.join(filter(None, [str(PROCESSES.parent), os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": path, **self._environment}
        command = [sys.executable, str(PROCESSES), name]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise RuntimeError(f"{name} failed: {done.stderr}")
        return done.stdout

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with Connection(self._broker.url) as connection:
            connection.ensure_connection(max_retries=10)
            yield connection

    def _arrivals(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        with self._connected() as connection:
            queue = Queue(self._queue)(connection.default_channel)
            for message in iter(lambda: queue.get(no_ack=True), None):
                found[message.payload[0][0]].append(message.headers["id"])
        return found


# -- By hand -----------------------------------------------------------------------------------------------------------


def table(verdicts: dict[tuple[str, str], Verdict]) -> str:
    """Two tables in Markdown: what became of the intents, and where processes were killed."""
    columns = [
        "database",
        "broker",
        "transactions",
        "kills",
        "agreed to",
        "arrived",
        "missing",
        "forbidden",
        "orphans",
        "sent again",
        "with another id",
    ]
    rows: list[list[object]] = []
    for (database, broker), verdict in verdicts.items():
        counts = verdict.agreed, verdict.arrived, len(verdict.missing), len(verdict.forbidden), verdict.orphans
        kills = verdict.kills.total()
        rows.append([database, broker, verdict.transactions, kills, *counts, verdict.duplicates, len(verdict.renamed)])
    rows.append(["all", "", *(sum(int(str(row[column])) for row in rows) for column in range(2, len(columns)))])
    where = sorted({step for verdict in verdicts.values() for step in verdict.kills})
    headings = [f"{database}, {broker}" for database, broker in verdicts]
    kills_rows = [
        [f"{role}: {step}", *(verdict.kills[role, step] for verdict in verdicts.values())] for role, step in where
    ]
    faults = sorted({what for verdict in verdicts.values() for what in verdict.faults})
    fault_rows = [[what, *(verdict.faults[what] for verdict in verdicts.values())] for what in faults]
    return f"{_markdown(columns, rows)}\n\n{_markdown(['', *headings], [*kills_rows, *fault_rows])}"


def _markdown(columns: list[str], rows: list[list[Any]]) -> str:
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    rule = ["---" if column in ("database", "broker", "") else "---:" for column in columns]
    return "\n".join("| " + " | ".join(row) + " |" for row in [columns, rule, *cells])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--transactions", type=int, default=2000, help="for each database and broker (%(default)s)")
    parser.add_argument("--kills", type=int, default=100, help="for each database and broker (%(default)s)")
    parser.add_argument("--database", choices=DATABASES, action="append")
    parser.add_argument("--broker", choices=BROKERS, action="append")
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--keep", type=Path, help="a directory that keeps the journals and logs")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the servers
    print(f"Seed: {arguments.seed}", flush=True)
    verdicts = {}
    for names in product(arguments.database or DATABASES, arguments.broker or BROKERS):
        with tempfile.TemporaryDirectory(prefix="airlock_test_") as directory, ExitStack() as at_end:
            servers = []
            for name in names:
                own = Path(directory) / name
                own.mkdir()
                server = {**DATABASES, **BROKERS}[name](own)
                server.start()
                at_end.callback(getattr(server, "stop", int))
                servers.append(server)
            run = Run(servers[0], servers[1], arguments.keep or Path(directory), "-".join([arguments.seed, *names]))
            # RabbitMQ takes longer to start.
            run.crash(arguments.transactions, arguments.kills, pause=(3, 8) if names[1] == "Redis" else (10, 20))
            verdicts[names] = verdict = run.verdict()
            print(f"\n{', '.join(names)}: {verdict.defects or 'no defect'}", flush=True)
            for what, count in verdict.unexpected.most_common():
                print(f"  {count} x {what}", flush=True)
    print(f"\n{table(verdicts)}")
    return 1 if any(verdict.defects for verdict in verdicts.values()) else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
