"""Real programs beside the tests, Celery workers among them: a pytest plugin, loaded for every package's tests."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from services import Broker

HERE = Path(__file__).parent


class Process:
    """A program that runs beside the tests: with a log, and certain to end.

    Use it as a context manager, or call `stop()`.

    Args:
        command: the program and its arguments.
        log: the file that takes what it prints.
        env: environment variables besides the present ones.
        cwd: the directory to run it in.
    """

    def __init__(
        self, command: list[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        self.command = command
        self.log_file = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(env or {})},
                cwd=cwd,
                # Ctrl-C is for the tests, which then stop their processes; and a group can be killed as a whole.
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self.log_file.read_text(errors="replace")

    def until(self, text: str, timeout: float = 60) -> Self:
        """Wait until its log contains `text`, for at most `timeout` seconds.

        Raises:
            RuntimeError: it has ended or the time is over; the message has the log.
        """
        deadline = time.monotonic() + timeout
        while text not in self.log:
            ended = self._process.poll()
            if ended is not None or time.monotonic() > deadline:
                self.kill()
                state = "is still running" if ended is None else f"ended with {ended}"
                raise RuntimeError(f"{' '.join(self.command)} {state}, and {text!r} is not in its log:\n{self.log}")
            time.sleep(0.05)
        return self

    def stop(self, timeout: float = 30) -> int:
        """Ask it to end, and kill it, with all its children, if it has not after `timeout` seconds.

        Returns:
            Its exit code; the negative number of the signal if one has killed it.
        """
        self._process.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        finally:  # when the tests are interrupted, too
            exit_code = self.kill()
        return exit_code

    def kill(self) -> int:
        """Kill it, with all its children, and return its exit code."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()


#: The programs that the fixture has started.
_running = ExitStack()


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish() -> Iterator[None]:
    # Whatever comes of the fixtures, which may well fail when they were interrupted.
    with _running:
        yield


@pytest.fixture(scope="session")
def start_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Process]]:
    """A function that starts a program and returns its `Process`, which ends with the tests at the latest.

    Args:
        *command: the program and its arguments.
        ready: what its log contains when it is ready.
        env, cwd: as for `Process`.
    """
    with _running:

        def start(*command: str, ready: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Process:
            log = tmp_path_factory.mktemp("process") / "log"
            process = _running.enter_context(Process(list(command), log=log, env=env, cwd=cwd))
            return process.until(ready)

        yield start


@pytest.fixture(scope="session")
def celery_worker_process(start_process: Callable[..., Process]) -> Callable[..., Process]:
    """A function that starts a `celery worker` and returns its `Process` once it is ready.

    Args:
        app: the module of the Celery app, found in this directory or `cwd`. It takes its settings from
            `Broker.environment`.
        broker: whose settings to use.
        pool: `prefork`, `threads`, `solo` or `gevent`.
        concurrency: how many tasks run at a time.
        queues: the queues to consume from, as returned by `Broker.queue`; by default the app's default queue.
        arguments: more arguments for `celery worker`.
        env, cwd: as for `Process`.
    """

    def start(
        app: str,
        broker: Broker,
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        queues: tuple[str, ...] = (),
        arguments: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Process:
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "--loglevel=INFO", f"--pool={pool}"]
        command += [f"--concurrency={concurrency}", f"--hostname={secrets.token_hex(4)}@%h"]
        command += ["--without-gossip", "--without-mingle", *(["--queues", ",".join(queues)] if queues else [])]
        return start_process(*command, *arguments, ready=" ready.", env={**broker.environment, **(env or {})}, cwd=cwd)

    return start


def free_port() -> int:
    """A port of this machine that nothing listens on, and that the system gives to no connection meanwhile."""
    while True:
        port = 10000 + secrets.randbelow(20000)  # those that it gives are above these
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
