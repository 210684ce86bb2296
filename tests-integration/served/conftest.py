from __future__ import annotations

import functools
import json
import os
import re
import secrets
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from served import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from processes import Process
    from services import Broker

DIRECTORY = Path(__file__).parents[1]

COMMANDS = {
    # One process each, so that all requests meet in it.
    "WSGI": ["gunicorn", "--bind=127.0.0.1:0", "--worker-class=gthread", "--threads=24", "served.wsgi"],
    "ASGI": ["uvicorn", "--port=0", "--lifespan=off", "--no-access-log", "served.asgi:application"],
}
READY = {"WSGI": "Booting worker", "ASGI": "Uvicorn running on"}

# A new connection for each request, as one that is kept may be closed by the server while it is used again.
CLIENT = httpx.Client(timeout=2 * messages.PATIENCE, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass
class Server:
    """A server process, and the broker it publishes to."""

    kind: str
    broker: Broker
    process: Process

    @functools.cached_property
    def address(self) -> tuple[str, int]:
        (found,) = re.findall(r"http://([\d.]+):(\d+)", self.process.log)
        return found[0], int(found[1])


@dataclass
class Site:
    """A server as one test uses it: with a queue, and a name that the two tell each other things under."""

    server: Server
    queue: str
    name: str = field(default_factory=lambda: secrets.token_hex(4))

    def url(self, path: str, **query: str) -> httpx.URL:
        host, port = self.server.address
        return httpx.URL(f"http://{host}:{port}/{path}", params={"queue": self.queue, **query})

    def get(self, path: str, **query: str) -> httpx.Response:
        return CLIENT.get(self.url(path, name=self.name, **query))

    @contextmanager
    def stream(self, path: str, **query: str) -> Iterator[Iterator[bytes]]:
        """The chunks of a streaming response, each as soon as it was received."""
        url = self.url(path, name=self.name, **query)
        with CLIENT.stream("GET", url) as response:
            yield response.iter_raw()

    def visit(self, path: str, **query: str) -> socket.socket:
        """Ask for a page as a client does that can go away at any time, by `leave`."""
        url = self.url(path, name=self.name, **query)
        visitor = socket.create_connection(self.server.address, timeout=messages.PATIENCE)
        visitor.sendall(b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % url.raw_path)
        return visitor

    def another(self) -> Site:
        """The same server and queue under another name."""
        return Site(self.server, self.queue)

    def tell(self, subject: str, message: Any = None) -> None:
        messages.tell(f"{self.name}: {subject}", message)

    def hear(self, subject: str) -> Any:
        return messages.hear(f"{self.name}: {subject}")

    def effects(self) -> list[str]:
        """Take the names of what is in the queue by now, in order."""
        return [message.payload[0][0] for message in self.server.broker.take(self.queue)]


def leave(visitor: socket.socket) -> None:
    """Go away without a word, as when a browser is killed or its network is gone."""
    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visitor.close()


@pytest.fixture(scope="session")
def environment(redis_broker: Broker, postgresql_database: dict[str, Any]) -> Iterator[dict[str, str]]:
    """What the servers are told besides their broker; their database has its tables."""
    from services import RUN

    env = {
        "DJANGO_SETTINGS_MODULE": "served.settings",
        "SERVED_DATABASE": json.dumps(postgresql_database),
        "SERVED_ATOMIC_REQUESTS": "false",
        "SERVED_MESSAGES": redis_broker.celery["broker_url"],
        "SERVED_MESSAGES_PREFIX": f"{RUN}.served.",
    }
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--run-syncdb", "--verbosity=0"],
        cwd=DIRECTORY,
        env={**os.environ, **redis_broker.environment, **env},
        check=True,
        timeout=120,
    )
    with pytest.MonkeyPatch.context() as patch:
        for key, value in env.items():
            patch.setenv(key, value)
        yield env


@pytest.fixture(scope="session")
def serve(environment: dict[str, str], start_process: Callable[..., Process]) -> Callable[..., Server]:
    """A function that returns a server of a kind; each is started once.

    Args:
        kind: WSGI or ASGI.
        broker: what it publishes to.
        atomic_requests: whether each request is in a transaction.
    """

    @functools.cache
    def start(kind: str, broker_name: str, atomic_requests: bool) -> Process:
        env = {**environment, **brokers[broker_name].environment}
        env["SERVED_ATOMIC_REQUESTS"] = json.dumps(atomic_requests)
        return start_process(sys.executable, "-m", *COMMANDS[kind], ready=READY[kind], env=env, cwd=DIRECTORY)

    def serve(kind: str, broker: Broker, *, atomic_requests: bool = False) -> Server:
        brokers[broker.name] = broker
        return Server(kind, broker, start(kind, broker.name, atomic_requests))

    brokers: dict[str, Broker] = {}
    return serve


@pytest.fixture
def site_of() -> Iterator[Callable[[Server], Site]]:
    """A function that makes a site of a server, with a queue of its own."""

    def make(server: Server) -> Site:
        queue = server.broker.queue(secrets.token_hex(4))
        sites.append(Site(server, queue))
        return sites[-1]

    sites: list[Site] = []
    yield make
    for site in sites:
        assert not messages.told(f"{site.queue}: leaks"), "a scope was current outside of its request"


@pytest.fixture(params=["WSGI", "ASGI"])
def site(
    request: pytest.FixtureRequest,
    serve: Callable[..., Server],
    redis_broker: Broker,
    site_of: Callable[[Server], Site],
) -> Site:
    """Each kind of server in turn."""
    return site_of(serve(request.param, redis_broker))


@pytest.fixture
def asgi_site(serve: Callable[..., Server], redis_broker: Broker, site_of: Callable[[Server], Site]) -> Site:
    return site_of(serve("ASGI", redis_broker))


@pytest.fixture
def wsgi_site(serve: Callable[..., Server], redis_broker: Broker, site_of: Callable[[Server], Site]) -> Site:
    return site_of(serve("WSGI", redis_broker))
