"""Tests that several processes share (pytest-xdist), each with services of its own: a pytest plugin.

When its tests are over, or interrupted, each of these processes stops its programs and removes its databases. It gets
the time for that here: of its own accord, pytest-xdist kills it after 10 seconds.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

import pytest

#: How long to wait for such a process, in seconds.
PATIENCE = 60

_nodes: list[Any] = []
_finished: list[Any] = []


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        # Ctrl-C is for the process that has started this one, and passes it on: once, as a second one would interrupt
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
    for node in _nodes:
        if node not in _finished:
            with suppress(ProcessLookupError):
                os.kill(node.gateway._rinfo().pid, signal.SIGINT)
    for node in _nodes:
        # Of one that was killed there is nothing to wait for; the test that it ran has failed.
        with suppress(EOFError, node.channel.RemoteError, node.channel.TimeoutError):
            node.channel.waitclose(PATIENCE)
