"""The codes, and which calls they are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._known import Kind

if TYPE_CHECKING:
    from ._kinds import Project
    from ._scan import Candidate, Span

#: One sentence for each code. docs/lint.md has a section for each.
RULES = {
    "AIR000": "The file cannot be read or parsed.",
    "AIR001": "A task is published by `.delay()`, or by calling a chain, group or chord.",
    "AIR002": "A task is published by `.apply_async()`.",
    "AIR003": "A task is published by `.delay_on_commit()` or `.apply_async_on_commit()`.",
    "AIR004": "A task is published by `send_task()`.",
    "AIR005": "A task is published in `on_commit()`.",
    "AIR006": "A `save()` method sends an e-mail or an HTTP request.",
    "AIR007": "A signal receiver sends an e-mail or an HTTP request.",
    "AIR008": "An `atomic()` block sends an e-mail or an HTTP request.",
    "AIR009": "Something that may be a task is published. Only with `--strict`.",
}
_OF_METHODS = {
    "delay": "AIR001",
    "apply_async": "AIR002",
    "delay_on_commit": "AIR003",
    "apply_async_on_commit": "AIR003",
}
_PLACES = {"AIR006": "save()", "AIR007": "a signal receiver", "AIR008": "atomic()"}


@dataclass(frozen=True, slots=True)
class Finding:
    """A call that bypasses Airlock."""

    path: str
    span: Span
    code: str
    message: str
    #: The code of its first line, by which a baseline knows it.
    text: str
    candidate: Candidate | None = None


def finding(path: str, candidate: Candidate, project: Project, *, strict: bool = False) -> Finding | None:
    """What there is to say about a call, if anything."""
    code = _code(candidate, project, strict=strict)
    if code is None or (candidate.noqa and candidate.noqa & {"ALL", code}):
        return None
    return Finding(path, candidate.span, code, _message(code, candidate), candidate.text, candidate)


def _code(candidate: Candidate, project: Project, *, strict: bool) -> str | None:
    kind = project.kind(candidate.origin)
    if candidate.method == "effect":
        return _code_of_effect(candidate, project) if kind is Kind.EFFECT else None
    if candidate.method == "send_task":
        return "AIR004" if kind is Kind.APP else "AIR009" if strict and kind is None else None
    if candidate.method == "call":
        return "AIR001" if project.is_canvas(candidate.origin) else None
    if kind in (Kind.TASK, Kind.SIGNATURE):
        return "AIR005" if candidate.on_commit else _OF_METHODS[candidate.method]
    return "AIR009" if strict and kind is None else None


def _code_of_effect(candidate: Candidate, project: Project) -> str | None:
    for around in reversed(candidate.around):
        kind = None if isinstance(around, str) else project.kind(around)
        if kind is Kind.ATOMIC:
            return "AIR008"
        if kind is Kind.RECEIVER or around == "connected":
            return "AIR007"
        if around == "save":
            return "AIR006"
    return None


def _message(code: str, candidate: Candidate) -> str:
    shown = f"`{candidate.shown}()`"
    if code == "AIR005":
        return f"{shown} in `on_commit()` bypasses Airlock; use `airlock.enqueue()` instead of both"
    if code == "AIR009":
        return f"{shown} may publish a task, and bypass Airlock"
    if candidate.method != "effect":
        return f"{shown} bypasses Airlock; use `airlock.enqueue()`"
    return f"{shown} in {_PLACES[code]} takes place even if the transaction rolls back; use `airlock.enqueue()`"
