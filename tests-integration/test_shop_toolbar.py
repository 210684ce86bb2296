"""The shop of the demo with the Debug Toolbar, in a browser: why was no mail sent?"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import browser
from browser import every, one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from processes import Process

DEMO = Path(__file__).parents[1] / "examples" / "shop" / "demo.py"
BOTH = ("send_confirmation", "notify_warehouse")
#: In one go, as the toolbar may be about to replace these rows.
SWITCH_TO_POST = """
    Array.from(arguments[0].querySelectorAll("#djdtHistoryRequests tr"))
        .find(row => row.innerText.includes("POST")).querySelector(".switchHistory").click();
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.chromium() as chromium:
        chromium.set_window_size(1280, 900)
        yield chromium


@pytest.fixture(scope="module")
def demo(start_process: Callable[..., Process]) -> Iterator[Process]:
    demo = start_process(sys.executable, str(DEMO), "serve", "--toolbar", ready="Ctrl-C")
    yield demo
    demo.stop()


@pytest.fixture(scope="module")
def shop(chromium: Any, demo: Process) -> Iterator[str]:
    """The address of the shop."""
    served = re.search(r"http://[\d.:]+", demo.log)
    assert served
    yield served[0]
    chromium.get("about:blank")  # it asks for nothing more


@pytest.fixture
def order(chromium: Any, shop: str) -> Callable[..., Any]:
    """Fills in the checkout, presses a button, and returns the toolbar of the page that comes."""

    def order(button: str = "form button:not([name])", **fields: str) -> Any:
        chromium.get(f"{shop}/checkout/")
        given = {"product": "1", "quantity": "2", "email": "ada@example.org", "card": "4242424242424242", **fields}
        for name, value in given.items():
            chromium.execute_script("arguments[0].value = arguments[1]", one(chromium, f"[name={name}]"), value)
        button_there = one(chromium, button)
        chromium.execute_script("arguments[0].click()", button_there)
        wait_until_gone(chromium, button_there)  # as this one has the toolbar, too
        return one(chromium, "#djDebugRoot").shadow_root

    return order


def wait_until_gone(chromium: Any, element: Any) -> None:
    from selenium.webdriver.support.expected_conditions import staleness_of
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(chromium, 30).until(staleness_of(element))


def answers(toolbar: Any) -> dict[str, str]:
    """What the panel says last about each intent."""
    one(toolbar, "a.AirlockPanel").click()
    one(toolbar, ".airlock-intents")
    return {
        one(row, ".airlock-intent").text.partition("(")[0]: one(row, "li:last-child span:last-child").text
        for row in every(toolbar, "tr[id^=airlockMain]")
    }


def test_one_look_at_the_first_page_answers_for_every_order_of_the_demo(chromium: Any, shop: str) -> None:
    chromium.get(f"{shop}/")
    toolbar = one(chromium, "#djDebugRoot").shadow_root
    one(toolbar, "a.AirlockPanel").click()
    whys = [each.text for each in every(toolbar, ".airlock-others .airlock-why")]

    assert {
        "dropped by a dry run",
        "rolled back with the transaction on 'default'",
        "discarded, because the response has the status 400",
        "discarded, because the response has the status 500: ConnectionError was raised",
        "discarded, because the run of the task ended with BusyError",
        "its process did not finish: the relay took it over and sent it",
    } <= set(whys)


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"card": "4000000000000002"}, "discarded, because the response has the status 400"),
        (
            {"card": "4000000000000119"},
            "discarded, because the response has the status 500: ConnectionError was raised",
        ),
        ({"button": "[name=preview]"}, "rolled back with the transaction on 'default'"),
    ],
    ids=["declined", "crash", "preview"],
)
def test_panel_answers_why_no_mail_was_sent(order: Callable[..., Any], fields: dict[str, str], answer: str) -> None:
    assert answers(order(**fields)) == dict.fromkeys(BOTH, answer)


def test_a_form_that_is_rejected_has_asked_for_nothing(order: Callable[..., Any]) -> None:
    toolbar = order(quantity="0")

    assert one(toolbar, "#djdt-AirlockPanel small").text == "no intents"


@pytest.mark.parametrize("quantity", ["2", "10"], ids=["good", "large"])
def test_a_good_order_is_in_the_history(chromium: Any, order: Callable[..., Any], quantity: str) -> None:
    left = "stored: left to the relay: the broker fails: "  # for some seconds after the demo has stopped the broker
    deadline = time.monotonic() + 60
    while "dispatched" not in (found := answers(switched_to_post(chromium, order(quantity=quantity)))).values():
        assert all(answer.startswith(left) for answer in found.values())
        assert time.monotonic() < deadline

    assert found == dict.fromkeys(BOTH, "dispatched")


def test_the_command_that_the_demo_prints_answers_in_a_terminal(demo: Process) -> None:
    printed = re.search(r"^  (env .* airlock_explain)$", demo.log, re.MULTILINE)
    assert printed
    said = subprocess.run([*shlex.split(printed[1]), "100"], capture_output=True, text=True, timeout=60, check=True)

    assert "  dropped by a dry run\n    shop.tasks.send_confirmation\n" in said.stdout


def switched_to_post(chromium: Any, toolbar: Any) -> Any:
    """Have the toolbar show the last order, which has redirected to this page."""
    one(toolbar, "a.HistoryPanel").click()
    one(toolbar, "#djdtHistoryRequests .switchHistory")
    shown_before = one(toolbar, "a.AirlockPanel")
    chromium.execute_script(SWITCH_TO_POST, toolbar)
    wait_until_gone(chromium, shown_before)
    return toolbar
