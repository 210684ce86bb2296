"""`airlock-lint fix`."""

from __future__ import annotations

import difflib
import sys
import tokenize
from io import BytesIO, StringIO
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

from . import _files
from ._arguments import UnsafeError
from ._kinds import PUBLISHING, Project
from ._known import Kind
from ._progress import Progress
from ._rewrite import Rewritten, rewrite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._files import File
    from ._scan import Candidate, Module


#: Starting processes takes as long as rewriting this many files.
_FEW = 8


def run(files: Sequence[File], *, diff: bool, read_now: bool = False) -> int:
    """Rewrite files, print what was left, and say how many there were.

    Returns:
        1 if calls were left, otherwise 0.
    """
    with Progress("reading") as progress:
        modules = _files.read(files, progress)
    project = Project(modules)
    packages = {module.names[0].partition(".")[0] for module in modules}
    work = [
        (module.path, publishing)
        for file, module in zip(files, modules, strict=True)
        if file.reported and (publishing := _publishing(module, project))
    ]
    done = changed = 0
    left: list[str] = []
    patches: list[str] = []
    with Progress("rewriting") as progress, _files.mapping(len(work), few=_FEW) as map_:
        paths = [path for path, _ in work]
        rewritten = map_(_rewritten, paths, [publishing for _, publishing in work], repeat(packages), repeat(read_now))
        for number, (path, (source, result)) in enumerate(zip(paths, rewritten, strict=True), 1):
            if result.done and diff:
                patches.append(_patch(path, source, result.code))
            elif result.done:
                Path(path).write_bytes(result.code)
            done += len(result.done)
            changed += bool(result.done)
            # Where they are now: who reads this opens the file that was written.
            lines = _lines_now(source, result.code) if result.done and result.left and not diff else {}
            left += (
                f"{path}:{lines.get(line := each.span.line, line)}:{each.span.column + 1}: "
                f"left `{each.shown}()`: {why.reason(lines)}\n"
                for each, why in result.left
            )
            progress(number, len(work))
    sys.stdout.write("".join(patches))
    # A patch is to be piped into a file, without anything else.
    report = sys.stderr if diff else sys.stdout
    for module in modules:
        if module.error:
            left.append(f"{module.path}:{module.error[0]}:1: left: {module.error[1]}\n")
    report.write("".join(left))
    verb = "would be rewritten" if diff else "rewritten"
    report.write(f"{done} calls in {changed} files {verb}, {len(left)} left.\n")
    if unknown := sum(_is_unknown(each, project) for module in modules for each in module.candidates):
        report.write(f"{unknown} calls are of things not known as tasks: see `airlock-lint check --strict`.\n")
    return 1 if left else 0


def _rewritten(
    path: str, publishing: Sequence[Candidate], packages: set[str], read_now: bool
) -> tuple[bytes, Rewritten]:
    """The source of a file, and what becomes of it."""
    source = Path(path).read_bytes()
    result = rewrite(Path(path), source, publishing, packages, read_now=read_now)
    try:
        compile(result.code, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        why = UnsafeError(f"the file would be no Python: {error.msg}")
        result = Rewritten(source, left=[(each, why) for each in publishing])
    return source, result


def _publishing(module: Module, project: Project) -> list[Candidate]:
    """The calls that publish tasks, in the order of their lines."""
    kinds = {**dict.fromkeys(PUBLISHING, (Kind.TASK, Kind.SIGNATURE)), "send_task": (Kind.APP,)}
    found = [
        each
        for each in module.candidates
        if project.kind(each.origin) in kinds.get(each.method, ())
        or (each.method == "call" and project.is_canvas(each.origin))
    ]
    return sorted(found, key=lambda each: each.span)


def _is_unknown(candidate: Candidate, project: Project) -> bool:
    return candidate.method not in ("effect", "call") and project.kind(candidate.origin) is None


def _lines_now(before: bytes, after: bytes) -> dict[int, int]:
    """The number that each line of a file has after it was rewritten."""
    matcher = difflib.SequenceMatcher(None, _lines(before), _lines(after), autojunk=False)
    return {
        old + 1: min(new, last - 1) + 1
        for _, first, end, start, last in matcher.get_opcodes()
        for old, new in zip(range(first, end), range(start, start + end - first), strict=True)
    }


def _patch(path: str, before: bytes, after: bytes) -> str:
    old, new = (_lines(source) for source in (before, after))
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in difflib.unified_diff(old, new, f"a/{path.removeprefix('/')}", f"b/{path.removeprefix('/')}")
    )


def _lines(source: bytes) -> list[str]:
    """Lines as a patch counts them. A mark at the start of a file belongs to the first one."""
    encoding, _ = tokenize.detect_encoding(BytesIO(source).readline)
    text = source.decode("utf-8" if encoding == "utf-8-sig" else encoding)
    return StringIO(text, newline="\n").readlines()
