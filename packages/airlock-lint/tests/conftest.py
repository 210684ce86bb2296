"""Small projects to look at."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from airlock_lint.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TASKS = """
    from celery import shared_task

    @shared_task
    def notify(order_id, urgent=False): ...

    @shared_task(bind=True)
    def pack(self, order_id): ...
"""


@dataclass
class Answer:
    status: int
    out: str
    err: str

    @property
    def codes(self) -> list[tuple[int, str]]:
        """Line and code of each finding."""
        return [(int(line.split(":")[1]), line.split()[1]) for line in self.out.splitlines()]


class Project:
    """A project in the current directory, with tasks `notify` and `pack` in `shop/tasks.py`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.write("shop/__init__.py", "")
        self.write("shop/tasks.py", TASKS)

    def write(self, path: str, text: str) -> None:
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip("\n"))

    def read(self, path: str = "shop/views.py") -> str:
        return (self.directory / path).read_text()

    def run(self, *arguments: str) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(arguments)
            except SystemExit as error:
                status = int(error.code or 0)
        return Answer(status, out.getvalue(), err.getvalue())

    def codes(self, text: str, *arguments: str) -> list[tuple[int, str]]:
        """Line and code of each finding in `shop/views.py`, which is this text."""
        self.write("shop/views.py", text)
        return self.run("check", ".", *arguments).codes


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def fixed(project: Project) -> Callable[[str], str]:
    """A function that writes `shop/views.py`, rewrites it, and returns what is there then, after the imports."""

    def fix(body: str, imports: str = "from shop.tasks import notify, pack") -> str:
        project.write("shop/views.py", f"import airlock\n{imports}\n\n\n{dedent(body).lstrip(os.linesep)}")
        project.run("fix", ".")
        return project.read().partition(f"{imports}\n\n\n")[2]

    return fix
