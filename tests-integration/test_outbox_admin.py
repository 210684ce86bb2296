"""The admin of the outbox in a browser: headless Chromium, wide and narrow, light and dark."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

import browser
import outbox_site
from browser import contrast, every, one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from processes import Process

#: The text of each bar of the chart, and how high its parts are drawn.
BARS = """
    return Array.from(document.querySelectorAll(".airlock-chart svg g"), bar => [
        bar.querySelector("title").textContent,
        Array.from(bar.querySelectorAll("rect:not(.airlock-column)"), rect => rect.getBoundingClientRect().height),
    ]);
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.chromium() as chromium:
        yield chromium


@pytest.fixture
def site(chromium: Any, start_process: Callable[..., Process], tmp_path: Path) -> Iterator[str]:
    """The address of a site of its own, with nobody signed in. Nothing may fail in its pages."""
    chromium.delete_all_cookies()
    process = start_process(sys.executable, outbox_site.__file__, str(tmp_path), ready="/admin/.")
    served = re.search(r"http://\S+/admin/", process.log)
    assert served
    yield served[0]
    chromium.get("about:blank")  # it asks for nothing more
    complaints = browser.complaints(chromium)
    process.stop()
    assert complaints == []


@pytest.fixture
def open_outbox(chromium: Any, site: str) -> Callable[..., None]:
    """Signs somebody in, and opens the list of entries."""

    def open_outbox(user: str = "alex", width: int = 1200, scheme: str = "light") -> None:
        chromium.set_window_size(width, 900)
        browser.set_scheme(chromium, scheme)
        chromium.get(f"{site}airlock_outbox/entry/")
        one(chromium, "[name=username]").send_keys(user)
        one(chromium, "[name=password]").send_keys(outbox_site.PASSWORD)
        follow(chromium, one(chromium, "[type=submit]"))
        one(chromium, ".airlock-outbox")

    return open_outbox


def follow(chromium: Any, element: Any) -> None:
    """Click, and wait for the next page."""
    from selenium.webdriver.support.expected_conditions import staleness_of
    from selenium.webdriver.support.wait import WebDriverWait

    page = one(chromium, "html")
    element.click()
    WebDriverWait(chromium, 30).until(staleness_of(page))


def act(chromium: Any, action: str) -> None:
    """Select the first entry of the list, and do something about it."""
    one(chromium, "#result_list tbody .action-select").click()
    one(chromium, f"[name=action] option[value={action}]").click()
    follow(chromium, one(chromium, "#changelist [name=index]"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 500])
def test_summary_and_chart_can_be_read(
    chromium: Any, open_outbox: Callable[..., None], width: int, scheme: str
) -> None:
    open_outbox(width=width, scheme=scheme)
    outbox = one(chromium, ".airlock-outbox")

    assert re.sub(r"\s+", " ", one(chromium, ".airlock-figures").text).startswith("Held 1 Due 31 the oldest for 15")
    assert "8 parked, 32 others, at most " in outbox.text
    texts = every(chromium, ".airlock-outbox :is(dt, dd, small, figcaption, .airlock-axis span)")
    assert min(contrast(chromium, text) for text in texts) >= 4.5

    page = chromium.execute_script("return [document.body.scrollWidth, window.innerWidth]")
    assert page[0] <= page[1], "the page is wider than the window"
    assert outbox.rect["x"] >= 0
    assert outbox.rect["x"] + outbox.rect["width"] <= page[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_bars_are_as_high_as_their_numbers(chromium: Any, open_outbox: Callable[..., None], scheme: str) -> None:
    open_outbox(scheme=scheme)
    rects = every(chromium, ".airlock-chart rect:not(.airlock-column)")
    assert min(contrast(chromium, rect) for rect in rects) >= 3

    bars = chromium.execute_script(BARS)
    counts = [[int(number) for number in re.findall(r"(\d+) (?:parked|other)", title)] for title, _ in bars]
    assert len(bars) == 24
    assert [sum(column) for column in zip(*counts, strict=True)] == [8, 32]
    unit = 80 / max(map(sum, counts))
    for (_, drawn), numbers in zip(bars, counts, strict=True):
        assert drawn == pytest.approx([number * unit for number in numbers if number], abs=0.5)
    name = one(chromium, ".airlock-chart svg").accessible_name
    assert name.startswith("Created in the last 24 hours, and still here: 8 parked, 32 others")


def test_retry_and_discard_by_hand(chromium: Any, open_outbox: Callable[..., None]) -> None:
    open_outbox()
    follow(chromium, one(chromium, "#changelist-filter a[href*='state=parked']"))
    assert len(every(chromium, "#result_list tbody tr")) == 8

    act(chromium, "retry")
    assert one(chromium, ".messagelist .success").text == "1 entry will be dispatched soon."
    assert len(every(chromium, "#result_list tbody tr")) == 7

    act(chromium, "discard")
    assert "1 entry will never be dispatched." in one(chromium, "#content").text
    follow(chromium, one(chromium, "#content [type=submit]"))
    assert one(chromium, ".messagelist .success").text == "1 entry discarded."
    assert len(every(chromium, "#result_list tbody tr")) == 6


def test_payload_is_for_who_may_view_it(chromium: Any, open_outbox: Callable[..., None]) -> None:
    open_outbox("alex")
    one(chromium, "#searchbar").send_keys("send_receipt")
    follow(chromium, one(chromium, "#changelist-search [type=submit]"))
    details = one(chromium, "#result_list tbody th a")
    assert details.text == "shop.tasks.send_receipt"
    address = details.get_attribute("href")
    follow(chromium, details)
    assert '"customer": "<b>Ada</b>"' in one(chromium, ".airlock-payload").text

    chromium.delete_all_cookies()
    open_outbox("robin")
    chromium.get(address)
    assert "shop.tasks.send_receipt" in one(chromium, "#content").text
    assert "Ada" not in chromium.page_source
