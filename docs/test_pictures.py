"""The picture of the demo shows what the demo prints, and all pictures read well in the dark."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

PICTURES = Path(__file__).parent / "_static"
SCENARIO = Path(__file__).parents[1] / "examples" / "shop" / "scenario.py"


def texts(picture: str) -> set[str]:
    return {
        "".join(element.itertext()) for element in ET.parse(PICTURES / picture).iter() if element.tag.endswith("}text")
    }


def titles_and_outcomes() -> set[str]:
    """What the scenario of the demo says about its steps, without running it."""
    found: set[str] = set()
    for call in ast.walk(ast.parse(SCENARIO.read_text())):
        match call:
            case ast.Call(func=ast.Name(id="Step"), args=[ast.Constant(value=str(title)), *_]):
                found.add(title)
            case ast.Call(func=ast.Name(id="nothing_sent"), args=[ast.Constant(value=str(outcome))]):
                found.add(outcome)
            case ast.Call(func=ast.Name(id="Effect"), args=[_, ast.Constant(value=str(outcome)), *_]):
                found.add(outcome)
            case ast.Assign(targets=[ast.Name(id="ORDERED" | "LEFT")], value=ast.Constant(value=str(outcome))):
                found.add(outcome)
    return found


def test_picture_of_the_demo_has_each_step_and_each_outcome() -> None:
    expected = titles_and_outcomes()

    assert len(expected) > 12
    assert expected - texts("demo.svg") == set()


# Those of the toolbar: tests-integration/test_toolbar.py.
@pytest.mark.parametrize("picture", ["demo.svg", "path.svg"])
def test_picture_has_colours_for_dark_pages(picture: str) -> None:
    source = (PICTURES / picture).read_text()

    assert "prefers-color-scheme: dark" in source
    assert 'class="paper"' in source  # a background of its own, wherever it is shown
