"""Programs that run beside the tests."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).parent


class Process:
    """A program that runs beside the tests, with what it prints in a log.

    Use it as a context manager, or call `stop()`.

    Args:
        command: the program and its arguments.
        log: the file for what it prints.
        env: environment variables to add to the present ones.
        cwd: the directory to run it in.
    """

    def __init__(
        self, command: list[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        self.command = command
        self._log = log
        self._is_killed = False
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(env or {})},
                cwd=cwd,
                # A group of its own: Ctrl-C does not reach it, and it can be killed with all its children.
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
        return self._log.read_text(errors="replace")

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def until(self, text: str, timeout: float = 60) -> Self:
        """Wait until its log contains `text`, for at most `timeout` seconds.

        Raises:
            RuntimeError: it has ended, or the time is over. The message has the log.
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

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def stop(self, timeout: float = 30) -> int:
        """Ask it to end, and kill it if it has not after `timeout` seconds.

        Returns:
            Its exit code; if a signal has killed it, the signal's number, negative.
        """
        self.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        finally:  # also when Ctrl-C interrupts the wait
            exit_code = self.kill()
        return exit_code

    def kill(self) -> int:
        """Kill it, with all its children, and return its exit code."""
        if not self._is_killed:  # later, the number may be somebody else's
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._is_killed = True
        return self._process.wait()


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    while True:
        # Below the ports that the system gives to outgoing connections, so none of them takes it in the meantime.
        port = 10000 + secrets.randbelow(20000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
