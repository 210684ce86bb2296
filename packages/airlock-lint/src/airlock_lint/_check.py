"""`airlock-lint check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._kinds import Project
from ._rules import Finding, finding
from ._scan import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._files import File
    from ._scan import Module


def findings(files: Sequence[File], modules: Sequence[Module], *, strict: bool = False) -> list[Finding]:
    """All findings in a project, by file and line."""
    project = Project(modules)
    found: list[Finding] = []
    for file, module in zip(files, modules, strict=True):
        if file.reported:
            found += findings_in(module, project, strict=strict)
    return found


def findings_in(module: Module, project: Project, *, strict: bool = False) -> list[Finding]:
    """The findings in one module, by line."""
    if module.error:
        line, message = module.error
        return [Finding(module.path, Span(line, 0, line, 0), "AIR000", message, "")]
    found = (finding(module.path, candidate, project, strict=strict) for candidate in module.candidates)
    return sorted(filter(None, found), key=lambda each: each.span)


def selected(found: Iterable[Finding], select: Sequence[str], ignore: Sequence[str]) -> list[Finding]:
    """The findings whose code begins like one of those to select, and like none of those to ignore."""
    return [
        each
        for each in found
        if (not select or each.code.startswith(tuple(select))) and not each.code.startswith(tuple(ignore))
    ]
