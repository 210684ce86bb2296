"""The tests that the pages show pass, each in a project that has nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent / "examples"
PYTEST = ["-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider", "--rootdir", ".", "--confcutdir", ".", "."]

#: The others enqueue bound methods, which an outbox cannot record.
ON_OUTBOX = ["shop.tests.test_checkout", "shop.tests.test_effects"]


@pytest.mark.parametrize(
    ("example", "command"),
    [
        ("plain", PYTEST),
        ("celery", PYTEST),
        ("django", ["manage.py", "test", "--settings=config.test_settings"]),
        ("django", ["manage.py", "test", "--settings=config.outbox_test_settings", *ON_OUTBOX]),
        ("django", [*PYTEST[:-1], "--ds=config.test_settings", "shop/tests/test_with_pytest.py"]),
        ("integration", PYTEST),
    ],
)
def test_tests_of_the_example_pass(example: str, command: list[str]) -> None:
    # Nor do they get any help: no other settings, and no broker than that of the project.
    elsewhere = {
        name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "DJANGO_", "PYTEST_"))
    }

    run = subprocess.run(
        [sys.executable, *command],
        cwd=EXAMPLES / example,
        env=elsewhere,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
