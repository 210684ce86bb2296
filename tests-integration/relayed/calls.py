"""What a relay may be told to call."""

from __future__ import annotations

import os
import signal


def say(what: object) -> None:
    print(f"called {what}", flush=True)  # noqa: T201 - the test reads the log


def stop_the_relay() -> None:
    say("stop")
    os.kill(os.getpid(), signal.SIGTERM)


def kill_the_relay() -> None:
    say("kill")
    os.kill(os.getpid(), signal.SIGKILL)
