"""The snippets and the example projects pass mypy, as in a project that annotates only some of its code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLES = Path(__file__).parent / "examples"

CONFIGURATION = """
[mypy]
plugins = mypy_django_plugin.main
check_untyped_defs = true
explicit_package_bases = true
namespace_packages = true

# They have no types.
[mypy-huey.*,django_q.*]
ignore_missing_imports = true

[mypy.plugins.django-stubs]
django_settings_module = settings_of_package
"""

SETTINGS = """
from django_project.config.settings import *

INSTALLED_APPS = ["airlock.integrations.django", "airlock.integrations.outbox", "django_project.shop"]
"""


def in_package(package: str, source: str) -> str:
    """A module of an example project as one of a package."""
    own = "(shop|config|kiosk|airlock_kiosk|pigeon|airlock_pigeon|dramatiq_shop|huey_shop|rq_shop)"
    source = re.sub(rf"^import {own}$", rf"from {package} import \1", source, flags=re.MULTILINE)
    return re.sub(rf"^from {own}\b", rf"from {package}.\1", source, flags=re.MULTILINE)


def test_snippets_and_example_projects_pass_mypy(
    all_snippets: dict[str, list[tuple[Path, int, str]]], tmp_path: Path
) -> None:
    # All in one run, which spends most of its time on Django and Celery. Several projects have a module `shop`, so each
    # project becomes a package.
    for project in (path for path in EXAMPLES.iterdir() if path.is_dir()):
        files = {path.relative_to(project): path.read_text() for path in project.rglob("*.py")}
        for page, line, source in all_snippets.get(project.name, []):
            files[Path(f"{page.stem}_line_{line}.py".replace("-", "_"))] = source
        package = f"{project.name}_project"
        for path, source in files.items():
            target = tmp_path / package / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(in_package(package, source))
    (tmp_path / "mypy.ini").write_text(CONFIGURATION)
    (tmp_path / "settings_of_package.py").write_text(SETTINGS)

    sources = [str(tmp_path), *map(str, sorted(ROOT.glob("packages/*/src")))]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache" / "docs"), "."],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": os.pathsep.join(sources), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
