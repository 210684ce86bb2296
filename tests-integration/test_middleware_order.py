"""Where the middleware belongs among others: what `docs/boundaries.md` says of each, with the real ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

#: What came of it with AirlockMiddleware above the other one, and below.
CASES: dict[str, tuple[Any, Any]] = {
    # The spans, in the order in which they end.
    "opentelemetry": (["request", "dispatch"], ["dispatch", "request"]),
    # What the page says.
    "debug_toolbar": ("1 waiting", "1 dispatched"),
    # Whether Airlock's line in the log has the request id.
    "structlog": (False, True),
    # The user in the history: of a sync view, and of an async one.
    "simple_history": (["ada", None], ["ada", None]),
    # What went out though the session could not be saved.
    "session": ({"status": 400, "effects": []}, {"status": 400, "effects": ["effect"]}),
    # Asking for the user has an effect.
    "authentication": (
        {"status": 200, "effects": ["asked for the user"]},
        {"status": 200, "effects": ["asked for the user"]},
    ),
    # Logging in has an effect.
    "remote_user": ({"status": 200, "effects": ["logged in"]}, {"status": 500, "effects": []}),
    # The view and the body have effects. Nobody runs the body.
    "conditional_get": ({"status": 304, "effects": ["view"]}, {"status": 304, "effects": []}),
    "gzip_": (
        {"read": ["first", "second"], "read async": ["first", "second"], "left": []},
        {"read": ["first", "second"], "read async": ["first", "second"], "left": []},
    ),
}


@pytest.mark.parametrize("order", ["airlock-first", "airlock-last"])
@pytest.mark.parametrize("other", CASES)
def test_order_of_middleware_does_what_the_page_says(other: str, order: str) -> None:
    command = [sys.executable, "-m", "middleware_order", other, order]
    ended = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == CASES[other][order == "airlock-last"]
