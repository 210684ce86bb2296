"""What the pages show of airlock-lint is what it prints and writes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = ["docs/lint.md", "packages/airlock-lint/README.md"]
TASKS = re.findall(
    r"^```python\n# (shop/tasks\.py)\n(.*?)^```$", (ROOT / PAGES[0]).read_text(), re.DOTALL | re.MULTILINE
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def run(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of a page: `airlock-lint check .`."""
    name, *arguments = command.split()
    assert name == "airlock-lint"
    return subprocess.run(
        [sys.executable, "-m", "airlock_lint", *arguments], cwd=directory, capture_output=True, text=True, check=False
    )


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The project of the page, without its views."""
    ((path, tasks),) = TASKS
    (tmp_path / "shop").mkdir()
    (tmp_path / path).write_text(tasks)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_commands_print_and_write_what_the_page_shows(page: str, shop: Path) -> None:
    views = [block for block in blocks(page, "python") if block.startswith("# shop/views.py\n")]
    before, after = views
    (shop / "shop" / "views.py").write_text(before)
    shown = dict(
        block.removeprefix("$ ").split("\n", 1)
        for block in blocks(page, "console")
        if block.startswith("$ airlock-lint")
    )

    assert run("airlock-lint check .", shop).stdout == shown.pop("airlock-lint check .")
    fixed = run("airlock-lint fix .", shop)
    assert fixed.stdout == shown.get("airlock-lint fix .", fixed.stdout)
    assert (shop / "shop" / "views.py").read_text() == after


def test_steps_of_the_migration_print_what_the_page_shows(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs" / "examples" / "celery", tmp_path, dirs_exist_ok=True)
    shown = [block.removeprefix("$ ").split("\n", 1) for block in blocks("docs/migration.md", "console")]
    steps = {command: output for command, output in shown if command != "airlock-lint check ." or output}

    assert run("airlock-lint check .", tmp_path).stdout == steps["airlock-lint check ."]
    assert run("airlock-lint fix .", tmp_path).stdout == steps["airlock-lint fix ."]
    assert run("airlock-lint check .", tmp_path).stdout == ""
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert steps["python -m pytest -q"].strip() in tests.stdout


def test_baseline_of_the_page_passes_over_what_was_there(shop: Path) -> None:
    (block,) = (block for block in blocks(PAGES[0], "console") if "--write-baseline" in block)
    write, check = block.replace("$ ", "").splitlines()
    (shop / "shop" / "views.py").write_text(blocks(PAGES[0], "python")[1])

    assert run("airlock-lint check .", shop).returncode == 1
    assert run(write, shop).returncode == 0
    assert run(check, shop).returncode == 0


def test_lambda_of_the_page_is_rewritten_with_read_now_alone(shop: Path) -> None:
    (block,) = (block for block in blocks(PAGES[0], "console") if "--read-now" in block)
    (shop / "shop" / "views.py").write_text(
        "from django.db.transaction import on_commit\nfrom shop.tasks import notify_warehouse\n\n\n"
        "def checkout(order):\n    on_commit(lambda: notify_warehouse.delay(order.status))\n"
    )

    left = run("airlock-lint fix .", shop).stdout

    assert "it reads `order.status` when the transaction commits; bind it to a name first" in left
    patch = run(block.removeprefix("$ ").strip(), shop).stdout
    assert "+    airlock.enqueue(notify_warehouse, order.status)\n" in patch


def test_every_code_has_a_section() -> None:
    from airlock_lint import RULES

    sections = re.findall(r"^### (AIR\d+)$", (ROOT / PAGES[0]).read_text(), re.MULTILINE)
    assert sections == list(RULES)


def test_hook_of_the_repository_is_that_of_the_page() -> None:
    (shown,) = yaml.safe_load(blocks(PAGES[0], "yaml")[0])["repos"][0]["hooks"]
    (ours,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())

    for key in ("id", "name", "entry", "language", "types", "pass_filenames"):
        assert shown[key] == ours[key]
