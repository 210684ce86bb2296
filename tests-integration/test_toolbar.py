"""The panel of the Django Debug Toolbar in a browser: headless Chromium, wide and narrow, light and dark."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import browser
import toolbar_picture
from browser import contrast, every, one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from processes import Process

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def site(chromium: Any, start_process: Callable[..., Process]) -> Iterator[str]:
    """The address of the shop. Nothing may fail in its pages."""
    process = start_process(sys.executable, "-m", "toolbar_shop.site", ready="/.")
    yield address_of(process)
    chromium.get("about:blank")  # it asks for nothing more
    complaints = [each for each in browser.complaints(chromium) if "402" not in each]
    process.stop()
    assert complaints == []


@pytest.fixture
def site_with_outbox(start_process: Callable[..., Process], tmp_path: Path) -> Iterator[str]:
    process = start_process(sys.executable, "-m", "toolbar_shop.site", str(tmp_path), ready="/.")
    yield address_of(process)
    process.stop()


def address_of(site: Process) -> str:
    served = re.search(r"http://\S+/", site.log)
    assert served
    return served[0]


def outcomes(panel: Any) -> dict[str, str]:
    """The last line about each intent."""
    return {
        one(row, ".airlock-intent").text.partition("(")[0]: one(row, "li:last-child span:last-child").text
        for row in every(panel, "tr[id^=airlockMain]")
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 900, 500])
def test_panel_says_at_a_look_why_no_mail_was_sent(chromium: Any, site: str, width: int, scheme: str) -> None:
    panel = toolbar_picture.open_panel(chromium, site, width, scheme)
    shown = outcomes(panel)

    assert shown.pop("reserve_parcel").startswith("rolled back with the savepoint s")
    assert shown == {
        "send_confirmation": "dispatched",
        "add_points": "failed: ConnectionError('loyalty.example does not answer')",
        "send_newsletter": "dropped by BlockTasks(['send_newsletter'], raise_on_enqueue=False)",
    }
    texts = every(panel, "#AirlockPanel :is(th:not(:empty), td > div, li span:not(:empty))")
    texts += every(panel, "#djdt-AirlockPanel small .airlock-bad")
    assert min(contrast(chromium, text) for text in texts) >= 4.5
    size = "return [arguments[0].scrollWidth, arguments[0].clientWidth]"
    full, visible = chromium.execute_script(size, one(panel, "#AirlockPanel .djdt-scroll"))
    assert full <= visible, "it scrolls sideways"
    assert min(cell.rect["width"] for cell in every(panel, "#AirlockPanel td > div")) >= 130, "words are cut to pieces"


def test_failure_is_red_in_the_side_bar(chromium: Any, site: str) -> None:
    panel = toolbar_picture.open_panel(chromium, site, 1280, "light")
    failed = one(panel, "#djdt-AirlockPanel small .airlock-bad")

    assert failed.text == "1 failed"
    red, green, blue = (int(number) for number in re.findall(r"\d+", failed.value_of_css_property("color"))[:3])
    assert red > 1.5 * max(green, blue)


def test_row_unfolds_to_the_code_that_has_enqueued(chromium: Any, site: str) -> None:
    panel = toolbar_picture.open_panel(chromium, site, 1280, "light")
    stack = one(panel, ".djToggleDetails_1 .djdt-stack")
    assert not stack.is_displayed()
    one(panel, ".djToggleSwitch[data-toggle-id='1']").click()

    assert stack.is_displayed()
    assert stack.text.endswith("airlock.enqueue(tasks.send_confirmation, 42, email=email)")


def test_panel_follows_requests_of_scripts(chromium: Any, site: str) -> None:
    panel = toolbar_picture.open_panel(chromium, site, 1280, "light")
    chromium.execute_script("fetch('/decline')")

    assert one(panel, "#djdt-AirlockPanel:not(:has(.airlock-bad)) small").text == "1 discarded"
    one(panel, "a.AirlockPanel").click()
    last = one(panel, "#AirlockPanel li:last-child span:last-child")
    assert last.text == "discarded, because the response has the status 402"


def test_panel_says_what_the_outbox_has_left_to_the_relay(chromium: Any, site_with_outbox: str) -> None:
    shown = outcomes(toolbar_picture.open_panel(chromium, site_with_outbox, 1280, "light"))

    assert shown["send_confirmation"] == "stored: left to the relay: its task is paused"
    assert shown["reserve_parcel"].startswith("rolled back with the savepoint s")


def test_panel_says_what_the_outbox_has_and_what_others_kept_back(chromium: Any, site_with_outbox: str) -> None:
    chromium.get(f"{site_with_outbox}decline")
    panel = toolbar_picture.open_panel(chromium, site_with_outbox, 1280, "light")
    reasons = {
        re.sub(r"\d{4}-\S+ \S+ UTC", "10:00", one(row, ".airlock-why").text): one(row, ".airlock-intent").text
        for row in every(panel, ".airlock-others tbody tr")
    }

    assert reasons == {
        "discarded, because the response has the status 402": "toolbar_shop.tasks.send_confirmation",
        "paused": "toolbar_shop.tasks.send_confirmation",
        "due since 10:00: left to the relay: ConnectionError('loyalty.example does not answer')": (
            "toolbar_shop.tasks.add_points"
        ),
    }
    assert "1 paused: their task is paused: manage.py airlock_outbox resume TASK" in one(panel, "#AirlockPanel").text


def test_picture_in_the_docs_is_of_what_is_shown(chromium: Any, site: str) -> None:
    def without_numbers(text: str) -> str:
        return re.sub(r"\bs\d+_x\d+", "s1_x1", text)

    described = without_numbers((DOCS / "toolbar.md").read_text())
    shown = outcomes(toolbar_picture.open_panel(chromium, site, 1280, "light"))

    assert len(shown) == 4
    for name, outcome in shown.items():
        assert f"{name}: {without_numbers(outcome)}." in described
