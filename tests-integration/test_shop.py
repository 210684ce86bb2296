"""The demo in examples/shop: that it can fail, what it shows in the browser, and that it cleans up."""

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
    from collections.abc import Callable, Iterator

    from processes import Process

SHOP = Path(__file__).parents[1] / "examples" / "shop"


def run_changed_demo(directory: Path, file: str, old: str, new: str) -> subprocess.CompletedProcess[str]:
    shop = shutil.copytree(SHOP, directory / "shop")
    source = (shop / file).read_text()
    assert old in source
    (shop / file).write_text(source.replace(old, new))
    return subprocess.run([sys.executable, str(shop / "demo.py")], capture_output=True, text=True, timeout=240)


def test_demo_fails_when_an_effect_does_not_wait_for_its_request(tmp_path: Path) -> None:
    enqueue = "airlock.enqueue(tasks.send_confirmation, order.pk)"

    demo = run_changed_demo(tmp_path, "shop/services.py", enqueue, "tasks.send_confirmation.delay(order.pk)")

    assert demo.returncode == 1
    assert re.search(r"^500 .* a crash: .* NO$", demo.stdout, re.MULTILINE)
    assert re.search(r"^400 .* a form that is rejected .* yes$", demo.stdout, re.MULTILINE)
    assert re.search(r"^[1-9]\d* +task runs that nobody asked for +NO$", demo.stdout, re.MULTILINE)


def test_demo_fails_without_an_outbox(tmp_path: Path) -> None:
    outbox, none = "airlock.integrations.outbox.OutboxScope", "airlock.integrations.django.DjangoScope"

    demo = run_changed_demo(tmp_path, "shop/settings.py", outbox, none)

    assert demo.returncode == 1
    assert re.search(r"^302 .* a good order .* yes$", demo.stdout, re.MULTILINE)
    assert re.search(r"^none .* killed between COMMIT and publish .* NO$", demo.stdout, re.MULTILINE)
    assert re.search(r"^0 +e-mails to alan@example.org +NO$", demo.stdout, re.MULTILINE)


@pytest.fixture(scope="module")
def browser(start_process: Callable[..., Process]) -> Iterator[httpx.Client]:
    shop = start_process(sys.executable, str(SHOP / "demo.py"), "serve", ready="Ctrl-C")
    address = re.search(r"http://[\d.:]+", shop.log)[0]
    with shop, httpx.Client(base_url=address, trust_env=False) as client:
        yield client


def order_on_front_page(browser: httpx.Client, title: str) -> str:
    orders = re.findall(r"<article.*?</article>", browser.get("/").text, re.DOTALL)
    return next(order for order in orders if f">{title}" in order)


def test_front_page_shows_the_outcome_of_each_effect(browser: httpx.Client) -> None:
    outcome = re.compile(r'class="badge [\w-]+">(.+?)<')
    assert outcome.findall(order_on_front_page(browser, "A card that is declined")) == ["discarded", "discarded"]
    assert outcome.findall(order_on_front_page(browser, "A preview")) == ["rolled back", "rolled back"]
    assert outcome.findall(order_on_front_page(browser, "A command, as a dry run")) == ["dropped"]
    left = outcome.findall(order_on_front_page(browser, "The server is killed"))
    assert left[:2] == ["in the outbox", "in the outbox"]


def test_front_page_says_what_delay_would_have_done(browser: httpx.Client) -> None:
    assert "before the order was committed" in order_on_front_page(browser, "A good order")
    assert "for an order that was rolled back" in order_on_front_page(browser, "A preview")


def test_order_leads_to_its_journal(browser: httpx.Client) -> None:
    link = re.search(r'href="(/journal/\d+/)"', order_on_front_page(browser, "A card that is declined"))
    journal = browser.get(link[1]).text
    assert re.findall(r"<dt>Why</dt><dd>(.+?)</dd>", journal) == ["status 400", "status 400"]
    assert len(re.findall(r"shop/services.py:\d+", journal)) == 2


def test_order_of_a_visitor_appears_on_the_front_page(browser: httpx.Client) -> None:
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', browser.get("/checkout/").text)[1]
    order = {"product": 1, "quantity": 1, "email": "you@example.org", "card": "4000000000000002"}
    browser.post("/checkout/", data={**order, "csrfmiddlewaretoken": token})
    assert "card 0002 (declined)" in order_on_front_page(browser, "Your order")


def process_groups(parent: int | None = None) -> set[int]:  # of all processes, or of the children of one
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,pgid="], check=True, capture_output=True, text=True).stdout
    return {int(group) for ppid, group in map(str.split, listed.splitlines()) if parent in {None, int(ppid)}}


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_interrupted_shop_leaves_no_process_and_no_file(
    start_process: Callable[..., Process], interrupt: signal.Signals
) -> None:
    with tempfile.TemporaryDirectory() as directory:  # a short path, because there will be a socket in it
        shop = start_process(sys.executable, str(SHOP / "demo.py"), "serve", ready="Ctrl-C", env={"TMPDIR": directory})
        running = process_groups(shop.pid)
        assert len(running) >= 2  # at least the worker and the web server

        os.kill(shop.pid, interrupt)

        assert shop.stop() == 0
        while running & process_groups():  # or else the test runs out of time
            time.sleep(0.1)
        assert not list(Path(directory).iterdir())
