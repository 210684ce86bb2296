"""The tests that the page on testing shows pass, each in a project that has nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent / "examples"


@pytest.mark.parametrize("example", ["plain", "celery"])
def test_tests_of_the_example_pass(example: str) -> None:
    elsewhere = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider", "--rootdir", ".", "."]

    run = subprocess.run(
        command, cwd=EXAMPLES / example, env=elsewhere, capture_output=True, text=True, timeout=240, check=False
    )

    assert run.returncode == 0, run.stdout + run.stderr
