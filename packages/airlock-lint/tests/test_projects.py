"""Real projects that use Django and Celery: what becomes of their calls."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from airlock_lint.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path

#: Their source distributions, and how many calls are rewritten and left in them, those of their tests included.
PROJECTS = {
    "allianceauth==5.5.0": (61, 0),
    "mayan-edms==4.12.2": (79, 14),
    "openwisp-controller==1.3.2": (25, 18),
    "openwisp-monitoring==1.3": (26, 7),
}
PUBLISHING = {"delay", "apply_async", "delay_on_commit", "apply_async_on_commit"}
LEFT = re.compile(r"^(?P<path>.+?):(?P<line>\d+):\d+: left `(?P<call>.*)\(\)`: (?P<reason>.+)$", re.MULTILINE)


@pytest.fixture(params=PROJECTS, ids=lambda requirement: requirement.partition("==")[0])
def requirement(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(requirement: str, tmp_path: Path) -> Path:
    """The source of a project."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--dest",
        str(tmp_path),
    ]
    run = subprocess.run([*pip, requirement], capture_output=True, text=True, check=False)
    archives = list(tmp_path.glob("*.tar.gz"))
    if not archives:
        if os.environ.get("CI") == "true":
            pytest.fail(run.stderr)
        pytest.skip(f"{requirement} cannot be downloaded")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (directory,) = (tmp_path / "source").iterdir()
    return directory


def tree_of(file: Path) -> ast.Module | None:
    """The syntax tree of a file, if it is Python."""
    try:
        return ast.parse(file.read_bytes())
    except SyntaxError:
        return None


def calls_in(tree: ast.Module) -> int:
    """How many calls look like publishing a task."""
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return sum(isinstance(function, ast.Attribute) and function.attr in PUBLISHING for function in called)


@pytest.mark.timeout(600)
def test_every_call_of_a_real_project_is_accounted_for(
    source: Path, requirement: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [file for file in source.rglob("*.py") if tree_of(file)]

    main(["fix", "--tests", str(source)])
    report = capsys.readouterr().out

    rewritten, left = PROJECTS[requirement]
    assert f"{rewritten} calls in " in report
    assert f" rewritten, {left} left." in report

    # What was Python is Python. Each call in it has a reason to be left, or is of something not known as a task.
    trees = {str(file): tree_of(file) for file in files}
    left_in = Counter(
        each["path"]
        for each in LEFT.finditer(report)
        if not each["call"].endswith("send_task") and "canvas" not in each["reason"]  # a canvas that is called
    )
    main(["check", "--tests", "--strict", "--select", "AIR009", "--format", "json", str(source)])
    unknown_in = Counter(
        each["path"] for each in json.loads(capsys.readouterr().out) if "send_task" not in each["message"]
    )
    assert {file: calls_in(tree) for file, tree in trees.items() if tree} == {
        file: left_in[file] + unknown_in[file] for file in trees
    }

    # A second run changes nothing.
    contents = {file: file.read_bytes() for file in files}
    main(["fix", "--tests", str(source)])
    assert f"0 calls in 0 files rewritten, {left} left." in capsys.readouterr().out
    assert {file: file.read_bytes() for file in files} == contents
