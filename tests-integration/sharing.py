"""Tests that several processes share (pytest-xdist), each with services of its own: a pytest plugin.

When its tests are over, or interrupted, each of these processes stops its programs and removes its databases. It gets
the time for that here: of its own accord, pytest-xdist kills it after 10 seconds.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Any

import pytest

#: How long to wait for such processes, in seconds, before those that were interrupted are interrupted once more.
PATIENCE = 15

_nodes: list[Any] = []
_finished: list[Any] = []


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        # Ctrl-C is for the process that has started this one, and passes it on: the same one twice would interrupt
        # what is done at the end.
        os.setpgid(0, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodeready(node: Any) -> None:
    _nodes.append(node)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _finished.append(node)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    ending = list(_nodes)
    # Once more for the sake of one that waits for an answer of which the first interruption has taken a part.
    for _ in range(2):
        for node in ending:
            if node not in _finished:
                with suppress(ProcessLookupError):
                    os.kill(node.gateway._rinfo().pid, signal.SIGINT)
        deadline = time.monotonic() + PATIENCE
        ending = [node for node in ending if not has_ended(node, deadline)]


def has_ended(node: Any, deadline: float) -> bool:
    """Wait until a process has ended, at most until the deadline."""
    try:
        node.channel.waitclose(max(0, deadline - time.monotonic()))
    except node.channel.TimeoutError:
        return False
    except (EOFError, node.channel.RemoteError):
        pass  # it was killed, or failed; the test that it ran has failed
    return True
