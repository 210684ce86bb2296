"""The first pass over a module: what it binds to its names, and the calls that may bypass Airlock."""

from __future__ import annotations

import ast
import re
import tokenize
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from ._kinds import PUBLISHING
from ._origins import Call, Pipe
from ._scopes import Scope, bindings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ._origins import Origin
    from ._scopes import Comprehension, Definition

#: Without any of these words, a module has no calls of interest.
_INTERESTING = re.compile(
    r"\b(?:delay|apply_async|delay_on_commit|apply_async_on_commit|send_task|chain|group|chord|mail"
    r"|requests|httpx)\b"
)
#: Where lines end for Python. `splitlines()` knows more ends, such as a form feed.
_LINE_END = re.compile(r"\r\n|\r|\n")
_NOQA = re.compile(r"#\s*noqa\b(?!:)|#\s*noqa:\s*(?P<codes>[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*)", re.IGNORECASE)
#: Names of modules that a file of a project must not take from the package that everybody means.
_NOT_OURS = {"celery", "django", "requests", "httpx", "airlock"}


class Span(NamedTuple):
    """Where a call is: lines count from 1, columns from 0, in characters."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A call that bypasses Airlock if `origin` is what it looks like."""

    span: Span
    #: `delay` and the like, `send_task`, `call`, or `effect`.
    method: str
    #: What is published, the app of a `send_task`, or the function that has the effect.
    origin: Origin
    #: What the call looks like, for messages: `notify.delay`.
    shown: str
    #: Whether it waits in an `on_commit`, whose call the span then is.
    on_commit: bool = False
    #: What is around an effect: the origins of context managers and decorators, `save`, and `connected` to a signal.
    around: tuple[Origin | str, ...] = ()
    #: The code of its first line.
    text: str = ""
    #: The codes that a comment on one of its lines passes over; `ALL` without codes.
    noqa: frozenset[str] | None = None


@dataclass(slots=True)
class Module:
    """What a file says about itself."""

    path: str
    names: list[str]
    bindings: dict[str, Origin] = field(default_factory=dict)
    #: The modules whose names it imports with a star.
    stars: list[str] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    #: Line and message, if it is no Python.
    error: tuple[int, str] | None = None


def names_of(path: Path, root: Path) -> list[str]:
    """The names that a file could be imported by, the longest one first."""
    path, root = path.resolve(), root.resolve()
    parts = list(path.with_suffix("").parts)
    package = path.parent
    while (package / "__init__.py").exists():
        package = package.parent
    shortest = len(package.parts)
    longest = min(shortest, len(root.parts))
    if parts[-1] == "__init__":
        parts.pop()
    names = [".".join(parts[start:]) for start in range(longest, shortest + 1)]
    return [name for name in names if name and name not in _NOT_OURS]


def scan(path: Path, root: Path) -> Module:
    """Read a file. `root` is where the project is that it belongs to."""
    names = names_of(path, root) or [path.stem]
    try:
        source = path.read_bytes()
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, OSError) as error:
        return Module(str(path), names, error=(getattr(error, "lineno", None) or 1, str(error)))
    text = _decoded(source)
    return scan_tree(str(path), names, tree, _LINE_END.split(text), interesting=_INTERESTING.search(text) is not None)


def calls(tree: ast.Module, source: bytes) -> dict[Span, ast.Call]:
    """The calls of a module, by their places."""
    lines = _LINE_END.split(_decoded(source))
    return {_span(node, lines): node for node in ast.walk(tree) if isinstance(node, ast.Call)}


def _decoded(source: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(BytesIO(source).readline)
    return source.decode(encoding)


def scan_tree(
    path: str, names: list[str], tree: ast.Module, lines: Sequence[str], *, interesting: bool = True
) -> Module:
    """Read what is parsed already."""
    package = names[0] if path.endswith("__init__.py") else names[0].rpartition(".")[0]
    own = bindings(tree.body, package)
    scope = Scope(own.names, prefix=names[0], package=package)
    module = Module(path, names, stars=own.stars)
    module.bindings = {name: scope.own(name) for name in own.names}
    if interesting:
        finder = _Finder(scope, lines, _connected(tree))
        for statement in tree.body:
            finder.visit(statement)
        module.candidates = finder.candidates
    return module


class _Finder(ast.NodeVisitor):
    """Collects candidates, and knows at each the names that are in scope and what it is in."""

    def __init__(self, scope: Scope, lines: Sequence[str], connected: set[str]) -> None:
        self.candidates: list[Candidate] = []
        self._scope = scope
        self._lines = lines
        self._around: list[Origin | str] = []
        #: Calls that were reported with the `on_commit` around them.
        self._reported: set[ast.AST] = set()
        self._connected = connected

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outside = self._scope
        for part in [*node.decorator_list, *node.bases, *node.keywords]:
            self.visit(part)
        self._scope = outside.of_class(node)
        for statement in node.body:
            self.visit(statement)
        self._scope = outside

    def visit_FunctionDef(self, node: Definition) -> None:
        outside, around = self._scope, self._around
        for part in [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self.visit(part)
        decorators = [self._scope.origin(decorator) for decorator in node.decorator_list]
        saves = ["save"] if node.name == "save" and outside.is_class else []
        receives = ["connected"] if node.name in self._connected else []
        self._around = [*saves, *receives, *decorators]
        self._scope = outside.of_function(node)
        for statement in node.body:
            self.visit(statement)
        self._scope, self._around = outside, around

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        outside, around = self._scope, self._around
        self._scope, self._around = outside.of_function(node), []
        self.visit(node.body)
        self._scope, self._around = outside, around

    def visit_ListComp(self, node: Comprehension) -> None:
        outside = self._scope
        self._scope = outside.of_comprehension(node)
        self.generic_visit(node)
        self._scope = outside

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self.visit_ListComp(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self.visit_ListComp(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self.visit_ListComp(node)

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        around = self._around
        for item in node.items:
            self.visit(item)
        self._around = [*around, *(self._scope.origin(item.context_expr) for item in node.items)]
        for statement in node.body:
            self.visit(statement)
        self._around = around

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        self.visit_With(node)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if _last_name(function) == "on_commit" and node.args and (inner := self._published(node.args[0])):
            publishing, scope = inner
            self._reported.update(ast.walk(node.args[0]))
            self._report(node, publishing.attr, scope.origin(publishing.value), publishing, on_commit=True)
        elif (
            node not in self._reported
            and isinstance(function, ast.Attribute)
            and (function.attr in PUBLISHING or function.attr == "send_task")
        ):
            self._report(node, function.attr, self._scope.origin(function.value), function)
        elif node not in self._reported and isinstance(origin := self._scope.origin(function), (Call, Pipe)):
            self._report(node, "call", origin, function)
        if node not in self._reported and self._around and (origin := self._scope.origin(function)) is not None:
            self._report(node, "effect", origin, function, around=tuple(self._around))
        self.generic_visit(node)

    def _published(self, callback: ast.expr) -> tuple[ast.Attribute, Scope] | None:
        """What a callback publishes, as in `task.delay`, if it does nothing else; and the scope to look names up in."""
        scope = self._scope
        match callback:
            case ast.Lambda(body=ast.Call(func=ast.Attribute() as publishing)):
                scope = scope.of_function(callback)
            case ast.Call(func=partial, args=[ast.Attribute() as publishing, *_]) if _last_name(partial) == "partial":
                pass
            case ast.Attribute() as publishing:
                pass
            case _:
                return None
        return (publishing, scope) if publishing.attr in PUBLISHING else None

    def _report(
        self,
        node: ast.Call,
        method: str,
        origin: Origin,
        function: ast.expr,
        *,
        on_commit: bool = False,
        around: tuple[Origin | str, ...] = (),
    ) -> None:
        span = _span(node, self._lines)
        noqa: frozenset[str] | None = None
        for line in self._lines[span.line - 1 : span.end_line]:
            if found := _NOQA.search(line):
                noqa = (noqa or frozenset()) | frozenset(re.findall(r"\w+", (found["codes"] or "ALL").upper()))
        self.candidates.append(
            Candidate(
                span,
                method,
                origin,
                _shown(function),
                on_commit,
                around,
                self._lines[span.line - 1].strip(),
                noqa,
            )
        )


def _span(node: ast.expr, lines: Sequence[str]) -> Span:
    first, last = node.lineno, node.end_lineno or node.lineno
    return Span(first, _column(first, node.col_offset, lines), last, _column(last, node.end_col_offset or 0, lines))


def _column(line: int, offset: int, lines: Sequence[str]) -> int:
    """The column in characters: `ast` counts the bytes of UTF-8."""
    text = lines[line - 1]
    return offset if text.isascii() else len(text.encode()[:offset].decode("utf-8", "ignore"))


def _connected(tree: ast.Module) -> set[str]:
    """The functions that a module connects to signals: `post_save.connect(function)`."""
    return {
        node.args[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "connect"
        and node.args
        and isinstance(node.args[0], ast.Name)
    }


def _last_name(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def _shown(function: ast.expr) -> str:
    text = " ".join(ast.unparse(function).split())
    return text if len(text) <= 60 else f"…{text[-59:]}"
