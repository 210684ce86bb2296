"""Makes the pictures of the panel for the docs: `python tests-integration/toolbar_picture.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from browser import chromium, one, set_scheme

HERE = Path(__file__).parent
PICTURES = HERE.parent / "docs" / "_static"


def open_panel(chromium: Any, site: str, width: int, scheme: str) -> Any:
    """Open the page of the shop, and the panel in it. Returns the toolbar."""
    chromium.set_window_size(width, 850)
    set_scheme(chromium, scheme)
    chromium.get(site)
    toolbar = one(chromium, "#djDebugRoot").shadow_root
    one(toolbar, "a.AirlockPanel").click()
    one(toolbar, ".airlock-intents")
    return toolbar


def main() -> None:
    for scheme in "light", "dark":
        take_picture(scheme)


def take_picture(scheme: str) -> None:
    command = [sys.executable, "-m", "toolbar_shop.site"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout
            served = re.search(r"http://\S+/", server.stdout.readline())
            assert served
            with chromium() as window:
                window.get(f"{served[0]}decline")  # what is shown of another request
                open_panel(window, served[0], 1080, scheme)
                window.save_screenshot(str(PICTURES / f"toolbar-{scheme}.png"))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
