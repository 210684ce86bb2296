"""Names in a module, and where their values come from."""

from __future__ import annotations

import ast
import builtins
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ._origins import Call, Class, Function, Item, Name, Origin, Pipe, attribute, either

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Definition = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
#: What may be bound to a name: an expression, a definition, an origin that is known, or something unknown.
Bound = ast.expr | Definition | ast.ClassDef | Origin


@dataclass(slots=True)
class Bindings:
    """What the statements of a module, class or function bind; the same name perhaps several times."""

    names: dict[str, list[Bound]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)

    def add(self, name: str, bound: Bound) -> None:
        self.names.setdefault(name, []).append(bound)


def bindings(statements: Iterable[ast.stmt], package: str) -> Bindings:
    """What statements bind, without those of functions and classes inside them."""
    found = Bindings()
    pending: list[ast.AST] = list(statements)
    for node in pending:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name, node)
            case ast.Import():
                for alias in node.names:
                    imported = alias.name if alias.asname else alias.name.partition(".")[0]
                    found.add(alias.asname or imported, Name(imported))
            case ast.ImportFrom():
                module = _absolute(node, package)
                for alias in node.names:
                    if alias.name == "*":
                        found.stars.append(module)
                    else:
                        found.add(alias.asname or alias.name, Name(f"{module}.{alias.name}" if module else alias.name))
            case ast.Assign():
                for target in node.targets:
                    _bind(found, target, node.value)
            case ast.AnnAssign(value=ast.expr() as value):
                _bind(found, node.target, value)
            case ast.AugAssign():
                _bind(found, node.target, None)
            case ast.For() | ast.AsyncFor():
                _bind(found, node.target, _element(node.iter))
                pending += [*node.body, *node.orelse]
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    if item.optional_vars is not None:
                        _bind(found, item.optional_vars, None)
                pending += node.body
            case ast.If() | ast.While():
                pending += [*node.body, *node.orelse]
            case ast.Try() | ast.TryStar():
                pending += [*node.body, *node.handlers, *node.orelse, *node.finalbody]
            case ast.ExceptHandler():
                if node.name:
                    found.add(node.name, None)
                pending += node.body
            case ast.Match():
                for case in node.cases:
                    for name in _captured(case.pattern):
                        found.add(name, None)
                pending += [statement for case in node.cases for statement in case.body]
        for assigned in _walruses(node):
            _bind(found, assigned.target, assigned.value)
    return found


def _captured(pattern: ast.pattern) -> Iterator[str]:
    """The names that a `case` binds."""
    for node in ast.walk(pattern):
        match node:
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name


def _walruses(statement: ast.AST) -> Iterator[ast.NamedExpr]:
    """The `:=` in a statement, without those of the statements in it, and of lambdas, which bind names of their own."""
    pending = [statement]
    for node in pending:
        if isinstance(node, ast.NamedExpr):
            yield node
        pending += [
            child
            for child in ast.iter_child_nodes(node)
            if not isinstance(child, (ast.stmt, ast.excepthandler, ast.Lambda, ast.match_case))
        ]


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The full name of the module that something is imported from."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _bind(found: Bindings, target: ast.expr, value: Bound) -> None:
    match target:
        case ast.Name(id=name):
            found.add(name, value)
        case ast.Tuple(elts=targets) | ast.List(elts=targets):
            values = (
                value.elts if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(targets) else None
            )
            for index, each in enumerate(targets):
                _bind(found, each, values[index] if values else None)
        case ast.Starred(value=inner):
            _bind(found, inner, None)


def _element(iterable: ast.expr) -> Bound:
    """What a loop over a literal goes through; something unknown otherwise."""
    match iterable:
        case ast.Tuple(elts=[first, *others]) | ast.List(elts=[first, *others]) if len(others) < 20:
            chosen = first
            for other in others:
                chosen = ast.IfExp(test=ast.Constant(True), body=chosen, orelse=other)
            return chosen
        case _:
            return None


class Scope:
    """The names that can be seen from one place of a module."""

    def __init__(
        self,
        names: dict[str, list[Bound]],
        *,
        prefix: str = "",
        package: str = "",
        outside: Scope | None = None,
        class_name: str | None = None,
    ) -> None:
        self.names = names
        #: The dotted name of the module or class, for names that other modules can see.
        self.prefix = prefix
        self._package = package
        self.outside = outside
        self.is_class = class_name is not None
        self._resolving: set[str] = set()

    def of_class(self, node: ast.ClassDef) -> Scope:
        """The scope of the body of a class."""
        prefix = f"{self.prefix}.{node.name}" if self.prefix else ""
        own = bindings(node.body, self._package).names
        return Scope(own, prefix=prefix, package=self._package, outside=self, class_name=node.name)

    def of_function(self, node: Definition | ast.Lambda) -> Scope:
        """The scope of the body of a function or lambda."""
        own = {} if isinstance(node, ast.Lambda) else bindings(node.body, self._package).names
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args]
        for argument in [*every, *arguments.kwonlyargs, *filter(None, (arguments.vararg, arguments.kwarg))]:
            own.setdefault(argument.arg, []).insert(0, None)
        if every and not isinstance(node, ast.Lambda):
            own[every[0].arg][0] = self._first_argument(node)
        return Scope(own, package=self._package, outside=self)

    def of_comprehension(self, node: Comprehension) -> Scope:
        """The scope of a comprehension."""
        own = Bindings()
        for loop in node.generators:
            _bind(own, loop.target, _element(loop.iter))
        return Scope(own.names, package=self._package, outside=self)

    def _first_argument(self, node: Definition) -> Origin:
        """What `self` is: an instance of the class around the function, or the task that a bound function becomes."""
        decorated = [decorator for decorator in node.decorator_list if isinstance(decorator, ast.Call)]
        if any(_is_bound(decorator) for decorator in decorated):
            return self._definition(node)
        if self.is_class and self.prefix and not any(_is_static(each) for each in node.decorator_list):
            instance_of = Name(self.prefix)
            is_class_method = any(
                isinstance(each, ast.Name) and each.id == "classmethod" for each in node.decorator_list
            )
            return instance_of if is_class_method else Call(instance_of)
        return None

    def own(self, name: str) -> Origin:
        """What this scope itself binds to a name."""
        if name in self._resolving:
            return None
        self._resolving.add(name)
        try:
            return either([self._origin_of_bound(bound) for bound in self.names[name] if not _is_none(bound)])
        finally:
            self._resolving.discard(name)

    def look_up(self, name: str) -> Origin:
        """What a name means here."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                # Others can look at the names of a module as well, and tell what is behind them.
                visible = scope.prefix and not scope.is_class
                bound = scope.names[name]
                imported = len(bound) == 1 and isinstance(bound[0], Name)
                return Name(f"{scope.prefix}.{name}") if visible and not imported else scope.own(name)
            scope = scope.outside
            while scope is not None and scope.is_class:  # functions do not see the names of a class around them
                scope = scope.outside
        return Name(f"{self._module}.{name}") if name not in _BUILTINS else None

    @property
    def _module(self) -> str:
        scope = self
        while scope.outside is not None:
            scope = scope.outside
        return scope.prefix

    def origin(self, node: ast.expr) -> Origin:
        """Where the value of an expression comes from."""
        match node:
            case ast.Name(id=name):
                return self.look_up(name)
            case ast.Attribute(value=value, attr=name):
                return attribute(self.origin(value), name)
            case ast.Call(func=function, args=arguments):
                called = self.origin(function)
                return None if called is None else Call(called, positional=bool(arguments))
            case ast.Subscript(value=value):
                of = self.origin(value)
                return None if of is None else Item(of)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return Pipe(self.origin(left), self.origin(right))
            case ast.IfExp(body=body, orelse=orelse):
                return either([self.origin(body), self.origin(orelse)])
            case ast.BoolOp(values=values):
                return either([self.origin(value) for value in values])
            case ast.NamedExpr(value=value):
                return self.origin(value)
            case _:
                return None

    def _origin_of_bound(self, bound: Bound) -> Origin:
        match bound:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return self._definition(bound)
            case ast.ClassDef():
                inside = self.of_class(bound)
                members = tuple((name, inside.own(name)) for name in inside.names)
                return Class(tuple(self.origin(base) for base in bound.bases), members)
            case ast.expr():
                return self.origin(bound)
            case _:
                return bound

    def _definition(self, node: Definition) -> Function:
        returned = [each.value for each in node.body if isinstance(each, ast.Return) and each.value is not None]
        returns = (
            self.of_function_body(node).origin(returned[0])
            if len(returned) == 1 and node.decorator_list == []
            else None
        )
        return Function(tuple(self.origin(decorator) for decorator in node.decorator_list), returns)

    def of_function_body(self, node: Definition) -> Scope:
        """The scope of the body of a function whose `self` is of no interest."""
        own = bindings(node.body, self._package).names
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                own.setdefault(argument.arg, []).append(None)
        return Scope(own, package=self._package, outside=self)


_BUILTINS = frozenset(dir(builtins))


def _is_none(bound: Bound) -> bool:
    return isinstance(bound, ast.Constant) and bound.value is None


def _is_static(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id == "staticmethod"


def _is_bound(decorator: ast.Call) -> bool:
    """Whether it is `@app.task(bind=True)`."""
    return any(
        keyword.arg == "bind" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        for keyword in decorator.keywords
    )
