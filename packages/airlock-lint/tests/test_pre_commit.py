"""The hook for pre-commit, run by pre-commit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HOOKS = Path(__file__).parents[3] / ".pre-commit-hooks.yaml"


def run(*command: str, directory: Path, **env: str) -> subprocess.CompletedProcess[str]:
    # The hook runs the command of the environment that is active.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    identity = {f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {**os.environ, **identity, "PATH": path, **env}
    return subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=False)


def test_hook_looks_at_the_whole_project(project, tmp_path_factory):
    hooks = tmp_path_factory.mktemp("hooks")
    shutil.copy(HOOKS, hooks)
    for directory in (hooks, project.directory):
        run("git", "init", "--quiet", directory=directory)
        run("git", "add", ".", directory=directory)
        run("git", "commit", "--quiet", "--no-verify", "--message", "first", directory=directory)
    project.write("shop/views.py", "from shop.tasks import notify\ndef view():\n    notify.delay(1)\n")
    run("git", "add", ".", directory=project.directory)

    home = str(tmp_path_factory.mktemp("home"))
    tried = run(
        sys.executable,
        "-m",
        "pre_commit",
        "try-repo",
        str(hooks),
        "airlock-lint",
        directory=project.directory,
        PRE_COMMIT_HOME=home,
    )

    assert tried.returncode == 1, tried.stdout + tried.stderr
    assert "shop/views.py:3:5: AIR001 `notify.delay()` bypasses Airlock" in tried.stdout
