"""What the demo cannot find out about itself: that it can fail, and that nothing is left when it is gone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from processes import Process

SHOP = Path(__file__).parents[1] / "examples" / "shop"


def result_of_demo(shop: Path) -> tuple[int, str]:
    """Run the demo; return its exit code and what it printed."""
    command = [sys.executable, str(shop / "demo.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        try:
            output, _ = demo.communicate(timeout=240)
        finally:
            demo.terminate()  # not `kill`, as it has processes to end
    return demo.returncode, output


def test_demo_fails_when_an_effect_does_not_wait_for_its_request(tmp_path: Path) -> None:
    shop = shutil.copytree(SHOP, tmp_path / "shop")
    services = shop / "shop" / "services.py"
    before = services.read_text()
    after = before.replace(
        "airlock.enqueue(tasks.send_confirmation, order.pk)", "tasks.send_confirmation.delay(order.pk)"
    )
    assert after != before
    services.write_text(after)

    exit_code, output = result_of_demo(shop)

    assert exit_code == 1
    verdicts = dict(re.findall(r"^(.+?) +(yes|NO)$", output, re.MULTILINE))
    assert verdicts["500     POST /checkout/  a crash, as the payment provider fails"] == "NO"
    assert verdicts["400     POST /checkout/  a form that is rejected"] == "yes"
    assert re.search(r"^[1-9]\d* +task runs that nobody asked for +NO$", output, re.MULTILINE)


def processes() -> list[tuple[int, int]]:
    """The parent and the process group of every process."""
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,pgid="], check=True, capture_output=True, text=True).stdout
    return [(int(parent), int(group)) for parent, group in map(str.split, listed.splitlines())]


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_interrupted_shop_leaves_no_process_and_no_file(
    start_process: Callable[..., Process], interrupt: signal.Signals
) -> None:
    # In a short path, as it has a socket in it.
    with tempfile.TemporaryDirectory() as directory:
        shop = start_process(sys.executable, str(SHOP / "demo.py"), "serve", ready="Ctrl-C", env={"TMPDIR": directory})
        (address,) = re.findall(r"http://\S+/orders/", shop.log)
        assert httpx.get(address, trust_env=False).status_code == 200
        groups = {group for parent, group in processes() if parent == shop.pid}
        assert len(groups) >= 2  # of the worker and the web server, at least
        assert list(Path(directory).iterdir())

        os.kill(shop.pid, interrupt)

        assert shop.stop() == 0
        # What was killed is not gone before the system has noticed.
        deadline = time.monotonic() + 30
        while groups.intersection(group for _, group in processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not groups.intersection(group for _, group in processes())
        assert not list(Path(directory).iterdir())
