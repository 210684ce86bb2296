"""The processes of the crash test: writers and relays, and the one that forks and kills them.

`python outbox_crash_processes.py COMMAND`, with what `outbox_crash.py` puts into the environment.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any, NoReturn

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command, load_command_class
from django.db import DatabaseError, connection, transaction

import airlock
from outbox_crash_project import CONFIG, Programs, app, configure, note
from own_brokers import Proxy, url

#: Where a process is killed. At "any moment" its parent does it, else it does it itself.
WRITER_STEPS = (
    "any moment",
    "before the INSERT",
    "after the INSERT",
    "in COMMIT",
    "after COMMIT",
    "mid-publish",
    "published, not yet told",
    "before the DELETE",
    "after the DELETE",
)
RELAY_STEPS = (
    "any moment",
    "in the claim",
    "after the claim",
    "mid-publish",
    "published, not yet told",
    "before the DELETE",
    "after the DELETE",
)


# -- How a process dies ------------------------------------------------------------------------------------------------


class Death:
    """The step at which this process is killed, and the time it comes there that it is."""

    def __init__(self, role: str, step: str, rng: random.Random) -> None:
        self._role = role
        self._step = step
        self._rng = rng
        self._times = rng.randint(1, 20 if role == "writer" else 3)
        self._has_written = False
        self._has_claimed = False
        self._commit_took = 0.002
        self._commits = 0

    def __enter__(self) -> Death:
        self._at_end = ExitStack()
        # Ways to the servers that can be cut in the middle of what this process says.
        if self._step in ("mid-publish", "published, not yet told"):
            self._broker = self._at_end.enter_context(Proxy(CONFIG["broker_port"]))
            self._broker.on_cut = self._die
            app.conf.update(broker_url=url(CONFIG["scheme"], self._broker.port))
        self._database: Proxy | None = None
        if self._role == "writer" and connection.vendor != "sqlite" and self._rng.random() < 0.5:
            self._database = self._at_end.enter_context(Proxy(int(connection.settings_dict["PORT"])))
            connection.settings_dict |= {"HOST": "127.0.0.1", "PORT": str(self._database.port)}
        connection.execute_wrappers.append(self._execute)
        self._commit = connection.commit
        connection.commit = self._commit_or_die  # type: ignore[method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        self._at_end.close()

    def _die(self) -> NoReturn:
        note("K", self._role, self._step)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it should be dead")

    def _comes_to(self, step: str) -> bool:
        if step == self._step:
            self._times -= 1
        return step == self._step and self._times <= 0

    def _reach(self, step: str) -> None:
        if self._comes_to(step):
            self._die()

    def _execute(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        words = sql.replace('"', "").replace("`", "")
        if words.startswith("INSERT INTO airlock_outbox "):
            self._reach("before the INSERT")
            result = execute(sql, params, many, context)
            self._has_written = True
            self._reach("after the INSERT")
            if connection.autocommit:
                self._has_committed()
            return result
        if words.startswith("DELETE FROM airlock_outbox "):
            self._reach("before the DELETE")
            result = execute(sql, params, many, context)
            self._reach("after the DELETE")
            return result
        result = execute(sql, params, many, context)
        if words.startswith("UPDATE airlock_outbox ") and "attempts" in words and connection.in_atomic_block:
            self._has_claimed = True
            self._reach("in the claim")
        return result

    def _commit_or_die(self) -> None:
        if self._has_written:
            self._before_commit()
        begin = time.monotonic()
        try:
            self._commit()
        finally:
            self._commits += 1
        self._commit_took = time.monotonic() - begin
        if self._has_claimed:
            self._has_claimed = False
            self._reach("after the claim")
            self._publishing_comes()
        elif self._has_written:
            self._has_committed()

    def _before_commit(self) -> None:
        if self._comes_to("in COMMIT"):
            if self._database is not None and self._rng.random() < 0.5:
                self._database.on_cut = self._die
                self._database.cut_after_answers(0)  # the server has done it
            else:
                threading.Thread(target=self._die_in_commit, args=(self._commits,), daemon=True).start()
        elif self._database is not None and self._rng.random() < 0.03:
            self._database.on_cut = lambda: note("A")
            self._database.cut_after_answers(0)

    def _die_in_commit(self, number: int) -> None:
        time.sleep(self._rng.uniform(0, self._commit_took))
        if self._commits == number:  # else it was faster, and the next one is tried
            self._die()

    def _has_committed(self) -> None:
        self._has_written = False
        self._reach("after COMMIT")
        self._publishing_comes()

    def _publishing_comes(self) -> None:
        if self._comes_to("mid-publish"):
            self._broker.cut_after(self._rng.randint(1, 3000))
        elif self._comes_to("published, not yet told"):
            self._broker.cut_after_answers(0)


# -- Who lives, and who kills ------------------------------------------------------------------------------------------


def write(seed: str, step: str) -> None:
    """Run programs until death."""
    rng = random.Random(seed)
    if rng.random() < 0.2:  # leaves everything to the relay
        settings.AIRLOCK["OUTBOX"]["FAST_PATH_SECONDS"] = 0
    programs = Programs(seed, rng)
    with Death("writer", step, rng):
        while True:
            programs.run()


def relay(seed: str, step: str) -> None:
    """Relay until death."""
    with Death("relay", step, random.Random(seed)):
        call_command("airlock_relay")


def disrupt(seed: str, step: str) -> None:
    """Cut all connections to the database; on SQLite, which has none, keep the others from writing."""
    note("C")
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        elif connection.vendor == "mysql":
            cursor.execute(
                "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            )
            for (number,) in cursor.fetchall():
                with suppress(DatabaseError):
                    cursor.execute(f"KILL {number}")
        else:
            with transaction.atomic():
                time.sleep(0.5)


ROLES = {"writer": write, "relay": relay, "disrupt": disrupt}


def load() -> None:
    """Import what children would import, each again, and connect to nothing."""
    WSGIHandler()
    airlock.scope()
    load_command_class("airlock.integrations.outbox", "airlock_relay")
    with app.connection_for_write() as broker:
        assert broker.transport is not None
    assert connection.vendor


class Parent:
    """Forks writers and relays, kills them, and forks others in their place, until it is told to stop."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._rng = random.Random(seed)
        #: With their role and the time at which it kills them.
        self._children: dict[int, tuple[str, float]] = {}
        self._born = 0
        self._is_stopped = False

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        load()
        next_disruption = time.monotonic() + self._rng.uniform(1, 3)
        while not self._is_stopped:
            for role, count in CONFIG["processes"].items():
                while sum(role == each for each, _ in self._children.values()) < count:
                    self._fork(role)
            if time.monotonic() > next_disruption:
                self._fork("disrupt")
                next_disruption = time.monotonic() + self._rng.uniform(2, 6)
            self._reap()
            self._kill(time.monotonic())
            time.sleep(0.002)
        self._kill(float("inf"))
        while self._children:
            self._reap()
            time.sleep(0.002)

    def _stop(self, *_: object) -> None:
        self._is_stopped = True

    def _fork(self, role: str) -> None:
        self._born += 1
        steps = {"writer": WRITER_STEPS, "relay": RELAY_STEPS}.get(role, ("end",))
        step = self._rng.choice(steps)
        seed = f"{self._seed}-{self._born}"
        # Some never come to the step.
        lives = self._rng.uniform(0.05, 1.5) if step == "any moment" else 6
        pid = os.fork()
        if pid == 0:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                ROLES[role](seed, step)
            except BaseException as error:  # such as a database that is down for the relay, at its start
                note("U", role, type(error).__name__, str(error).replace("\n", " ")[:300])
            finally:
                os._exit(0)
        self._children[pid] = role, time.monotonic() + lives

    def _reap(self) -> None:
        while self._children:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            del self._children[pid]

    def _kill(self, now: float) -> None:
        for pid, (role, until) in list(self._children.items()):
            if until <= now:
                self._children[pid] = role, float("inf")
                # It has not been waited for, so the number is still its own, also if it is dead by now.
                os.kill(pid, signal.SIGKILL)
                if role != "disrupt":
                    note("K", role, "any moment")


def prepare() -> None:
    """Make the database, with its tables."""
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE crash_truth (name VARCHAR(100) PRIMARY KEY)")


def drain() -> None:
    """Relay until nothing is left, but for what is parked, and print the truth."""
    from airlock.integrations.outbox.models import Entry

    deadline = time.monotonic() + 120
    while Entry.objects.filter(due__isnull=False).exists() and time.monotonic() < deadline:
        call_command("airlock_relay", drain=True, stdout=sys.stderr)
        time.sleep(0.2)
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM crash_truth")
        committed = [name for (name,) in cursor.fetchall()]
    print(json.dumps({"committed": committed, "left": [str(entry) + entry.error for entry in Entry.objects.all()]}))


if __name__ == "__main__":
    configure()
    if sys.argv[1] == "run":
        Parent(CONFIG["seed"]).run()
    else:
        {"prepare": prepare, "drain": drain}[sys.argv[1]]()
