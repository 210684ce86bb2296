"""Databases that a test may stop and kill."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from processes import Process, free_port
from services import unavailable


class OwnDatabase:
    """A database server of its own, which can be killed."""

    ready: str
    is_root = hasattr(os, "getuid") and os.getuid() == 0

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._log = directory / "log"

    def start(self) -> None:
        self._log.unlink(missing_ok=True)
        self._process = Process(self.command(), log=self._log).until(self.ready)

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        self._process.stop()

    def command(self) -> list[str]:
        raise NotImplementedError


class OwnPostgreSQL(OwnDatabase):
    ready = "database system is ready to accept connections"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        executable = shutil.which("postgres") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")), "")
        if not executable:
            unavailable("no postgres in PATH or /usr/lib/postgresql")
        self._executable = Path(executable)
        # It does not run as root.
        self._as_user = (
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"] if self.is_root else []
        )
        if self.is_root:
            directory.parent.chmod(0o755)
            shutil.chown(directory, "postgres")
        initdb = [*self._as_user, str(self._executable.with_name("initdb")), "--auth=trust", "--username=postgres"]
        subprocess.run([*initdb, "--pgdata", str(directory / "data")], check=True, capture_output=True, cwd="/")
        self.settings = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "crash",
            "USER": "postgres",
            "HOST": "127.0.0.1",
            "PORT": self.port,
        }

    def command(self) -> list[str]:
        options = ["-p", str(self.port), "-h", "127.0.0.1", "-k", str(self._directory)]
        return [*self._as_user, str(self._executable), "-D", str(self._directory / "data"), *options]


class OwnMariaDB(OwnDatabase):
    ready = "ready for connections"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        executable = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
        install = shutil.which("mariadb-install-db")
        if not executable or not install:
            unavailable("no mariadbd in PATH or /usr/sbin")
        self._common = ["--no-defaults", f"--datadir={directory / 'data'}"] + (["--user=root"] if self.is_root else [])
        self._executable = executable
        install_options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run([install, *self._common, *install_options], check=True, capture_output=True)
        self.settings = {
            "ENGINE": "pymysql_backend",
            "NAME": "crash",
            "USER": "root",
            "HOST": "127.0.0.1",
            "PORT": self.port,
        }

    def command(self) -> list[str]:
        socket = f"--socket={self._directory / 'socket'}"
        return [self._executable, *self._common, socket, f"--port={self.port}", "--bind-address=127.0.0.1"]


class Served:
    """A database on a server that others use, too, and that is left alone.

    Args:
        settings: those of Django; another database of that name is removed.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings


class SQLite:
    """A file, which cannot be stopped."""

    def __init__(self, directory: Path) -> None:
        options = {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"}
        self.settings = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(directory / "db.sqlite3"),
            "OPTIONS": options,
        }

    def start(self) -> None: ...
