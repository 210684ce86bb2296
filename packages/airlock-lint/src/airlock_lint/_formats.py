"""The forms that findings are printed in."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._rules import RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._rules import Finding


def text(found: Sequence[Finding]) -> str:
    """A line for each, as compilers write them."""
    return "".join(
        f"{each.path}:{each.span.line}:{each.span.column + 1}: {each.code} {each.message}\n" for each in found
    )


def as_json(found: Sequence[Finding]) -> str:
    """A list of objects. Lines and columns count from 1."""
    return (
        json.dumps(
            [{"path": each.path, "code": each.code, "message": each.message, **_place(each)} for each in found],
            indent=1,
        )
        + "\n"
    )


def _place(each: Finding) -> dict[str, int]:
    span = each.span
    return {
        "line": span.line,
        "column": span.column + 1,
        "end_line": span.end_line,
        "end_column": span.end_column + 1,
    }


def github(found: Sequence[Finding]) -> str:
    """Workflow commands, which GitHub shows beside the lines of a pull request."""
    return "".join(
        f"::warning file={_escaped(each.path, property_=True)},line={each.span.line},col={each.span.column + 1},"
        f"endLine={each.span.end_line},title={each.code}::{_escaped(each.message)}\n"
        for each in found
    )


def _escaped(value: str, *, property_: bool = False) -> str:
    for character in "%\r\n" + (":," if property_ else ""):
        value = value.replace(character, f"%{ord(character):02X}")
    return value


def sarif(found: Sequence[Finding]) -> str:
    """SARIF 2.1.0."""
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "airlock-lint",
                "version": version("airlock-lint"),
                "rules": [{"id": code, "shortDescription": {"text": meaning}} for code, meaning in RULES.items()],
            }
        },
        # Columns count characters, not the 16-bit units that SARIF otherwise supposes.
        "columnKind": "unicodeCodePoints",
        "results": [
            {
                "ruleId": each.code,
                "level": "warning",
                "message": {"text": each.message},
                "locations": [
                    {
                        "physicalLocation": {
                            "artifactLocation": {"uri": Path(each.path).as_posix()},
                            "region": {
                                "startLine": each.span.line,
                                "startColumn": each.span.column + 1,
                                "endLine": each.span.end_line,
                                "endColumn": each.span.end_column + 1,
                            },
                        }
                    }
                ],
            }
            for each in found
        ],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


FORMATS: dict[str, Callable[[Sequence[Finding]], str]] = {
    "text": text,
    "json": as_json,
    "sarif": sarif,
    "github": github,
}
