"""Names in a function: what binds them, and what is done to their values after a call."""

from __future__ import annotations

import ast
import builtins
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
Place = Function | ast.Module
LOOPS = (ast.For, ast.AsyncFor, ast.While)
#: What has a scope of its own, and what runs when somebody asks for it.
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_DEFERRED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.GeneratorExp)


class Tree:
    """A module, with the parent of each node."""

    def __init__(self, root: ast.Module) -> None:
        self.root = root
        self.parents = {child: node for node in ast.walk(root) for child in ast.iter_child_nodes(node)}
        self._bound: dict[Place, dict[str, list[ast.AST]]] = {}

    @cached_property
    def shared(self) -> set[str]:
        """The names that some function binds for others, with `global` or `nonlocal`."""
        declared = (node for node in ast.walk(self.root) if isinstance(node, (ast.Global, ast.Nonlocal)))
        return {name for node in declared for name in node.names}

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """What is around a node, the nearest first."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def places(self, node: ast.AST) -> list[Place]:
        """The functions around a node, the nearest first, and the module."""
        return [each for each in self.around(node) if isinstance(each, Place)]

    def bound(self, place: Place) -> dict[str, list[ast.AST]]:
        """The nodes that bind or delete each name of a function or module."""
        if place not in self._bound:
            found = self._bound[place] = {}
            for node in _own(place):
                for name in _names_bound(node):
                    found.setdefault(name, []).append(node)
        return self._bound[place]

    def value_of(self, binding: ast.AST) -> ast.expr | None:
        """The expression that a name is bound to, if that is all the statement does."""
        match self.parents[binding]:
            case ast.Assign(value=value) | ast.AnnAssign(value=value) | ast.NamedExpr(value=value):
                return value
            case _:
                return None


class Later:
    """What can happen between a call and the end of the functions around it."""

    def __init__(self, tree: Tree, call: ast.Call) -> None:
        self.tree = tree
        self.call = call
        self.places = tree.places(call)
        self.function = self.places[0]
        self._inside = set(ast.walk(call))
        self._around = list(tree.around(call))
        self._loops = [each for each in self._around if isinstance(each, LOOPS)]

    def is_later(self, node: ast.AST, since: ast.AST | None = None) -> bool:
        """Whether a node of this function, or of one around it, can run after the call.

        It can if it is below, in the same loop, or deferred. With `since`, which runs before the call in each turn of a
        loop, only the rest of the turn counts.
        """
        if node in self._inside:
            return False
        if _start(node) >= (self.call.end_lineno or 0, self.call.end_col_offset or 0):
            return True
        around = list(self.tree.around(node))
        if any(isinstance(each, _DEFERRED) and each not in self._around for each in around):
            return True
        same_turn = set(self.tree.around(since)) if since and _start(since) < _start(node) else set()
        if self.function in around:  # each call of the function has values of its own
            same_turn |= set(self.tree.around(self.function))
        return any(loop in around and loop not in same_turn for loop in self._loops)

    def before(self) -> Iterator[ast.stmt]:
        """The statements of the function that have run when the call is reached."""
        inside: ast.AST = self.call
        while inside is not self.function:
            around = self.tree.parents[inside]
            for block in ("body", "orelse", "finalbody"):
                statements = getattr(around, block, [])
                if isinstance(statements, list) and inside in statements:
                    yield from _with_those_inside(statements[: statements.index(inside)])
            inside = around

    def last_binding(self, name: str) -> ast.AST | None:
        """What has bound a name when the call is reached, if it has surely run in the same turn of a loop."""
        inside = self._around[: self._around.index(self.function)]
        targets: list[ast.AST] = [loop.target for loop in inside if isinstance(loop, (ast.For, ast.AsyncFor))]
        for statement in self.before():
            if isinstance(statement, ast.Assign):
                targets += statement.targets
        found = [each for target in targets for each in ast.walk(target) if name in _names_bound(each)]
        return max(found, key=_start, default=None)

    def place(self, name: str) -> Place | None:
        """The function around the call, or the module, that a name belongs to; `None` if it is a builtin."""
        return next((place for place in self.places if name in self.tree.bound(place)), None)

    def bindings(self, name: str) -> list[ast.AST]:
        """What binds a name, wherever it belongs."""
        place = self.place(name)
        return self.tree.bound(place)[name] if place else []

    def may_be_from(self, name: str) -> list[ast.AST]:
        """The bindings that a name may have its value from at the call."""
        bindings = self.bindings(name)
        last = self.last_binding(name)
        return [last] if last is max(bindings, key=_start, default=None) and last is not None else bindings

    def is_defined(self, name: str) -> bool:
        """Whether a name is that of an import, a function or a class."""
        kinds = (ast.alias, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        return all(isinstance(each, kinds) for each in self.bindings(name)) and not self.may_be_bound_again(name)

    def has_no_value(self, name: str) -> bool:
        """Whether a name of this function is bound below the call alone."""
        end = _start(self.call)
        return self.place(name) is self.function and all(_start(each) > end for each in self.bindings(name))

    def may_be_bound_again(self, name: str) -> bool:
        """Whether a name may mean something else after the call."""
        place = self.place(name)
        if place is None:
            return not hasattr(builtins, name)
        if name in self.tree.shared:
            return True
        bindings = self.bindings(name)
        if place is self.function:  # an `except ... as name` deletes the name at its end
            return any(isinstance(each, ast.ExceptHandler) or self.is_later(each) for each in bindings)
        if isinstance(place, ast.Module):  # it has run
            return False
        around = (each for binding in bindings for each in self.tree.around(binding))
        return len(bindings) > 1 or any(isinstance(each, LOOPS) for each in around)

    def uses(self, name: str) -> Iterator[tuple[ast.Name, bool]]:
        """Where the value of a name is used, but for the call itself, and whether that is later."""
        place = self.place(name) or self.tree.root
        for node in ast.walk(place):
            if node in self._inside or not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
                continue
            if node.id == name:
                yield node, isinstance(place, ast.Module) or self.is_later(node)


def _start(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def _with_those_inside(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in statements:
        yield statement
        if isinstance(statement, ast.With) and all("atomic" in ast.unparse(each) for each in statement.items):
            yield from _with_those_inside(statement.body)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """All in a function or module, without what is in the scopes of others."""
    children = list(ast.iter_child_nodes(node))
    for child in children:
        yield child
        if isinstance(child, _SCOPES):
            for part in _outside_of_its_scope(child):
                yield part
                yield from _own(part)
        elif isinstance(child, ast.comprehension):
            for part in (child.iter, *child.ifs):
                yield part
                yield from _own(part)
        else:
            yield from _own(child)


def _outside_of_its_scope(node: ast.AST) -> list[ast.expr]:
    parts: list[ast.expr] = []
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        parts += [*node.args.defaults, *filter(None, node.args.kw_defaults)]
    if isinstance(node, ast.ClassDef):
        parts += [*node.bases, *(keyword.value for keyword in node.keywords)]
    if not isinstance(node, ast.Lambda):
        parts += getattr(node, "decorator_list", [])
    return parts


def _names_bound(node: ast.AST) -> list[str]:
    """The names that one node binds or deletes."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
        case ast.alias(name=imported, asname=alias):
            return [alias or imported.partition(".")[0]]
        case _:
            return []
