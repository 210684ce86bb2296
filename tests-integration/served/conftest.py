from __future__ import annotations

import functools
import itertools
import json
import os
import re
import secrets
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from processes import Process

PROJECT = Path(__file__).parents[1]

COMMANDS = {
    # One process each, so that all requests meet in it.
    "WSGI": ["gunicorn", "--bind=127.0.0.1:0", "--worker-class=gthread", "--threads=8", "ordering.wsgi"],
    "WSGI, one thread": ["gunicorn", "--bind=127.0.0.1:0", "--worker-class=sync", "ordering.wsgi"],
    "ASGI": ["uvicorn", "--port=0", "--lifespan=off", "--no-access-log", "ordering.asgi:application"],
}

# No connections are kept: a server may close one while it is used again.
CLIENT = httpx.Client(timeout=120, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)


@dataclass
class Site:
    """The project in a server process."""

    kind: str
    process: Process
    directory: Path

    @functools.cached_property
    def address(self) -> tuple[str, int]:
        (found,) = re.findall(r"http://([\d.]+):(\d+)", self.process.log)
        return found[0], int(found[1])

    def get(self, path: str, request_id: str = "", **query: str) -> httpx.Response:
        host, port = self.address
        return CLIENT.get(f"http://{host}:{port}/{path}", params=query, headers={"X-Request-ID": request_id})

    def visit(self, path: str) -> socket.socket:
        """Ask for a page as a client does that may go away, by `leave`."""
        visitor = socket.create_connection(self.address, timeout=60)
        visitor.sendall(f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        return visitor

    def journal(self, number: str) -> list[dict[str, Any]]:
        """What was confirmed about an order so far."""
        file = self.directory / "journal"
        entries = map(json.loads, file.read_text().splitlines() if file.exists() else ())
        return [entry for entry in entries if entry["number"] == number]

    def effects(self, number: str, count: int = 0) -> list[str]:
        """What was confirmed, when there are so many."""
        until(lambda: len(self.journal(number)) >= count)
        return [entry["what"] for entry in self.journal(number)]

    def tell(self, what: str) -> None:
        (self.directory / what).touch()

    def hear(self, what: str) -> None:
        until((self.directory / what).exists)

    def until_dropped(self, number: str, why: str) -> None:
        """Wait until the log says of this order that its effects do not go out."""
        line = re.compile(f"will not be dispatched.*{number}.*{why}")
        until(lambda: line.search(self.process.log) is not None)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def leave(visitor: socket.socket) -> None:
    """Go away without a word, as when a browser is killed or its network is gone."""
    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visitor.close()


_count = itertools.count()


@pytest.fixture
def number() -> str:
    return new_number()


def new_number() -> str:
    return f"{secrets.token_hex(4)}-{next(_count)}."


@pytest.fixture(scope="session")
def database_address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    """A function that returns the entry for `DATABASES` of a database in which the project has its tables."""

    @functools.cache
    def database_address(name: str) -> dict[str, Any]:
        if name == "sqlite":
            file = tmp_path_factory.mktemp("ordering") / "ordering.sqlite3"
            # Threads that write at the same time wait for each other.
            options = {"timeout": 60, "transaction_mode": "IMMEDIATE"}
            address = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file), "OPTIONS": options}
        else:
            address = request.getfixturevalue(f"{name}_database")
        env = {"DJANGO_SETTINGS_MODULE": "ordering.settings", "ORDERING_DATABASE": json.dumps(address)}
        subprocess.run(
            [sys.executable, "-m", "django", "migrate", "--run-syncdb", "--verbosity=0"],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]), **env},
            check=True,
            timeout=120,
        )
        return address

    return database_address


@pytest.fixture(scope="session")
def serve(
    start_process: Callable[..., Process],
    database_address: Callable[[str], dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Site]:
    """A function that returns the project in a server. Asked for the same again, it returns the one that runs.

    Args:
        kind: which server, of `COMMANDS`.
        database: `sqlite`, `postgresql` or `mariadb`.
        atomic_requests: what the setting is.
        **env: more environment variables, for the settings.
    """

    @functools.cache
    def serve(kind: str, database: str = "sqlite", *, atomic_requests: bool = False, **env: str) -> Site:
        directory = tmp_path_factory.mktemp("served")
        env |= {
            "DJANGO_SETTINGS_MODULE": "ordering.settings",
            "ORDERING_DATABASE": json.dumps({**database_address(database), "ATOMIC_REQUESTS": atomic_requests}),
            "ORDERING_DIRECTORY": str(directory),
        }
        ready = "Uvicorn running on" if kind == "ASGI" else "Booting worker"
        process = start_process(sys.executable, "-m", *COMMANDS[kind], ready=ready, env=env, cwd=PROJECT)
        return Site(kind, process, directory)

    return serve


@pytest.fixture(params=["WSGI", "ASGI"])
def site(request: pytest.FixtureRequest, serve: Callable[..., Site]) -> Site:
    """The project in each server."""
    return serve(request.param)


@pytest.fixture
def asgi_site(serve: Callable[..., Site]) -> Site:
    return serve("ASGI")
