"""The plugin for flake8. It sees one file at a time, so it knows the tasks of other modules by their module's name."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ._check import findings_in
from ._kinds import Project
from ._scan import names_of, scan_tree

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator


class Plugin:
    """What flake8 makes for each file."""

    name: ClassVar[str] = "airlock-lint"
    version: ClassVar[str] = version("airlock-lint")

    def __init__(self, tree: ast.Module, filename: str, lines: list[str]) -> None:
        path = Path(filename)
        names = names_of(path, path.parent) or [path.stem]
        self._module = scan_tree(filename, names, tree, [line.rstrip("\r\n") for line in lines])

    def run(self) -> Iterator[tuple[int, int, str, type[Plugin]]]:
        """The findings: line, column from 0, text."""
        for each in findings_in(self._module, Project([self._module])):
            yield each.span.line, each.span.column, f"{each.code} {each.message}", type(self)
