"""Rewrites the calls of one module that publish tasks, with LibCST."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider

from ._arguments import Publishing, UnsafeError, comments, enqueue_call
from ._boundary import check_boundary
from ._imports import add_import, way_to_enqueue
from ._moment import check_moment
from ._names import Later, Tree
from ._scan import Span, calls

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import PurePath

    from ._scan import Candidate

_OWN_PUBLISHING = {"delay", "apply_async", "delay_on_commit", "apply_async_on_commit", "send_task"}
#: What failing to publish raises. Who catches one of these does it for the sake of the call.
_BROKER_ERRORS = ("OperationalError", "ConnectionError", "TimeoutError", "OSError", "EncodeError", "KombuError")


@dataclass(slots=True)
class Rewritten:
    """What became of a module."""

    code: bytes
    done: list[Candidate] = field(default_factory=list)
    #: With the reason.
    left: list[tuple[Candidate, UnsafeError]] = field(default_factory=list)


def rewrite(
    path: PurePath,
    source: bytes,
    candidates: Iterable[Candidate],
    project_packages: Collection[str] = (),
    *,
    read_now: bool = False,
) -> Rewritten:
    """Rewrite what can be rewritten safely.

    Args:
        path: where the module is, which tells what it is.
        source: the module.
        candidates: the calls in it that publish tasks.
        project_packages: the names of the packages whose imports come last.
        read_now: whether lambdas are rewritten though what they read may be different when the transaction commits.
    """
    module = cst.parse_module(source)
    result = Rewritten(source)
    candidates = list(candidates)
    try:
        _check_module(path, module)
        enqueue = way_to_enqueue(module)
    except UnsafeError as left:
        result.left = [(candidate, left) for candidate in candidates]
        return result
    wrapper = MetadataWrapper(module, unsafe_skip_copy=True)  # a tree that was just parsed has no node twice
    parents = wrapper.resolve(ParentNodeProvider)
    nodes = {
        Span(at.start.line, at.start.column, at.end.line, at.end.column): node
        for node, at in wrapper.resolve(PositionProvider).items()
        if isinstance(node, cst.Call)
    }
    tree = Tree(ast.parse(source))
    parsed = calls(tree.root, source)
    replacements: dict[cst.CSTNode, cst.Call] = {}
    for candidate in candidates:
        try:
            node = nodes.get(candidate.span)
            if node is None:
                raise UnsafeError("it is inside of a string")  # noqa: TRY301
            if any(code == "ALL" or code.startswith("AIR") for code in candidate.noqa or ()):
                raise UnsafeError("it has a `# noqa`")  # noqa: TRY301
            _check_place(node, parents)
            later = Later(tree, parsed[candidate.span])
            check_boundary(later)
            if candidate.method == "call":
                publishing = Publishing.of_called_canvas(node)
            else:
                publishing = Publishing.of(node, on_commit=candidate.on_commit)
            new = enqueue_call(enqueue.function, publishing, module)
            check_moment(later, on_commit=candidate.on_commit, read_now=read_now)
            enqueue.check_name(later)
            if comments(node) != comments(new):
                raise UnsafeError("a comment in it would get lost")  # noqa: TRY301
        except UnsafeError as left:
            result.left.append((candidate, left))
        else:
            replacements[node] = new
            result.done.append(candidate)
    if replacements:
        changed = wrapper.module.visit(_Replace(replacements))
        if not enqueue.is_imported:
            changed = add_import(changed, project_packages)
        bom = b"\xef\xbb\xbf"
        result.code = changed.bytes
        if source.startswith(bom) and not result.code.startswith(bom):
            result.code = bom + result.code
    return result


class _Replace(cst.CSTTransformer):
    def __init__(self, replacements: Mapping[cst.CSTNode, cst.Call]) -> None:
        super().__init__()
        self._replacements = replacements

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:
        return self._replacements.get(original_node, updated_node)


def _check_module(path: PurePath, module: cst.Module) -> None:
    """Check that there may be a scope when functions of the module are called.

    Raises:
        UnsafeError: if there is none.
    """
    if "migrations" in path.parts[:-1]:
        raise UnsafeError("a migration runs in no scope")
    is_command = path.parts[-3:-1] == ("management", "commands")
    if is_command and not any(name in module.code for name in ("airlock_command", "airlock.scope", "scoped")):
        raise UnsafeError("a command runs in no scope before it has `@airlock_command`")


def _check_place(node: cst.Call, parents: Mapping[cst.CSTNode, cst.CSTNode]) -> None:
    """Check that the call is a statement of its own, in a function, and that nobody waits for it to fail.

    Raises:
        UnsafeError: if not.
    """
    parent = parents[node]
    match parent:
        case cst.Expr():
            pass
        case cst.Attribute(attr=cst.Name(value=name)):
            raise UnsafeError(f"`.{name}` of its result is used")
        case cst.Return():
            raise UnsafeError("its result is returned")
        case cst.Lambda():
            raise UnsafeError("its result is that of a lambda")
        case _:
            raise UnsafeError("its result is used")
    inside: cst.CSTNode = node
    function: cst.FunctionDef | None = None
    while not isinstance(inside, cst.Module):
        around = parents[inside]
        if isinstance(around, cst.FunctionDef):
            function = around
            break
        if isinstance(around, (cst.Try, cst.TryStar)) and inside is around.body and (caught := _handles(around)):
            raise UnsafeError(f"an `except {caught}` is there for an error of publishing")
        if isinstance(around, cst.With) and inside is around.body and (caught := _suppresses(around)):
            raise UnsafeError(f"a `suppress({caught})` is there for an error of publishing")
        if isinstance(around, cst.ClassDef):
            break
        inside = around
    if function is None:
        raise UnsafeError("it runs when the module is imported, in no scope")
    if function.name.value in _OWN_PUBLISHING:
        raise UnsafeError(f"it is part of a `{function.name.value}()` of your own")


def _handles(node: cst.Try | cst.TryStar) -> str | None:
    """What a `try` catches, if that is an error of publishing, or if it does nothing else."""
    return _of_publishing([handler.type for handler in node.handlers], node.body)


def _suppresses(node: cst.With) -> str | None:
    """The same of a `with suppress(...)`."""
    suppress = m.Name("suppress") | m.Attribute(attr=m.Name("suppress"))
    calls = [item.item for item in node.items if m.matches(item.item, m.Call(suppress))]
    return _of_publishing([each.value for call in calls if isinstance(call, cst.Call) for each in call.args], node.body)


def _of_publishing(types: Sequence[cst.BaseExpression | None], body: cst.BaseSuite) -> str | None:
    alone = len(body.body) == 1 and isinstance(body.body[0], cst.SimpleStatementLine)
    for each in types:
        caught = cst.Module([]).code_for_node(each) if each else "Exception"
        if alone or any(name in caught for name in _BROKER_ERRORS):
            return caught
    return None
