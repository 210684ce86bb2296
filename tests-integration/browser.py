"""Headless Chromium, and what tests ask of a page."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from services import unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What is shown of the page: its text against its background, of an element.
COLOURS = """
    const colours = getComputedStyle(arguments[0]);
    let behind = arguments[0];
    while (behind.parentElement && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)")
        behind = behind.parentElement;
    return [arguments[0] instanceof SVGElement ? colours.fill : colours.color,
            getComputedStyle(behind).backgroundColor];
"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser."""
    from selenium import webdriver

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        unavailable("no chromium and chromedriver in PATH (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless=new",
        "--no-sandbox",  # it cannot have one as root
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as chromium:
        chromium.implicitly_wait(10)
        yield chromium


def set_scheme(chromium: Any, scheme: str) -> None:
    """Have pages think that their reader likes `light` or `dark` ones."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def complaints(chromium: Any) -> list[str]:
    """What the console says, since this was last asked."""
    return [entry["message"] for entry in chromium.get_log("browser") if "favicon" not in entry["message"]]


def one(around: Any, selector: str) -> Any:
    return around.find_element("css selector", selector)


def every(around: Any, selector: str) -> list[Any]:
    found: list[Any] = around.find_elements("css selector", selector)
    return found


def contrast(chromium: Any, element: Any) -> float:
    """That of an element with what is behind it, as WCAG defines it: from 1 to 21."""
    lights = []
    for colour in chromium.execute_script(COLOURS, element):
        # `rgb(255, 0, 0)`, or `color(srgb 1 0 0)`
        full = 1 if colour.startswith("color(srgb ") else 255
        channels = [float(number) / full for number in re.findall(r"[\d.]+", colour)[:3]]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        lights.append(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    return (max(lights) + 0.05) / (min(lights) + 0.05)
