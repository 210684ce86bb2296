"""What can become of a value between a call and the dispatch."""

from __future__ import annotations

import ast
import re
from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING

from ._kinds import PUBLISHING
from ._names import Function

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._names import Later, Tree

#: Functions whose result is immutable, and depends on their arguments alone.
PURE = {"bool", "bytes", "float", "hash", "int", "len", "repr", "round", "str"}
#: Methods and functions that make signatures.
OF_TASK = {"clone", "s", "set", "si", "signature", "subtask"}
CANVAS = {"chain", "chord", "group", "signature"}
#: What looks at its arguments: functions, loggers, and what publishes them or is rewritten to it.
_LOOKING = PURE | {"id", "isinstance", "print", "type"}
_LOGGER = re.compile(r"(?:^|[._])(?:log|logger|logging)$", re.IGNORECASE)
_PUBLISHING = {*PUBLISHING, "send_task", "enqueue"}
#: Words that an annotation consists of if what it describes is immutable.
_IMMUTABLE = {
    *("bool", "bytes", "date", "datetime", "Decimal", "decimal", "float", "int", "None", "Optional", "str"),
    *("time", "timedelta", "typing", "Union", "UUID", "uuid"),
}
#: The methods that change a list, a dict, a set and the like.
_CHANGING = {name for kind in (bytearray, deque, dict, list, set) for name in dir(kind)} - {
    name for kind in (bytes, frozenset, MappingProxyType, str, tuple) for name in dir(kind)
}
_MAKING = {"defaultdict", "deque", "dict", "list", "set", "sorted"}
_DISPLAYS = (ast.Dict, ast.List, ast.Set, ast.Tuple)
_NAMES = (ast.Name, ast.Attribute, ast.Subscript)


def is_immutable(name: str, later: Later) -> bool:
    """Whether all that a name is ever bound to is visibly immutable."""
    bindings = later.may_be_from(name)
    if _is_key(name):
        return not any(are_made_here(name, later))
    return bool(bindings) and all(_is_immutable(binding, later.tree) for binding in bindings)


def _is_key(name: str) -> bool:
    """Whether something is the key of an object, to judge by its name."""
    return name in ("pk", "id") or name.endswith(("_pk", "_id"))


def _is_immutable(binding: ast.AST, tree: Tree) -> bool:
    match binding:
        case ast.arg(annotation=ast.expr() as annotation):
            return not _is_made_here(binding, tree) and set(re.findall(r"\w+", ast.unparse(annotation))) <= _IMMUTABLE
    match tree.parents[binding]:
        case ast.AnnAssign(annotation=annotation) if set(re.findall(r"\w+", ast.unparse(annotation))) <= _IMMUTABLE:
            return True
        case ast.AugAssign():  # adding to a number or a string makes another one
            return True
    return _gives_immutable(tree.value_of(binding))


def _gives_immutable(value: ast.expr | None) -> bool:
    match value:
        case ast.Constant() | ast.JoinedStr() | ast.UnaryOp(op=ast.Not()):
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in PURE
        case ast.Attribute(attr=name):
            return _is_key(name)
        case ast.IfExp(body=body, orelse=other):
            return _gives_immutable(body) and _gives_immutable(other)
        case _:
            return False


def are_made_here(name: str, later: Later) -> list[bool]:
    """Of each binding of a name, whether it is to a list, a dict or a set that the function itself makes."""
    return [_is_made_here(binding, later.tree) for binding in later.may_be_from(name)]


def _is_made_here(binding: ast.AST, tree: Tree) -> bool:
    around = tree.parents[binding]
    if isinstance(around, ast.arguments):
        return binding in (around.vararg, around.kwarg)
    match tree.value_of(binding):
        case ast.List() | ast.Dict() | ast.Set() | ast.ListComp() | ast.DictComp() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in _MAKING
        case _:
            return False


def is_read(use: ast.AST, tree: Tree) -> bool:
    """Whether a value is only looked at: compared, formatted, logged, or published."""
    node, parent = use, tree.parents[use]
    while isinstance(parent, (*_DISPLAYS, ast.BoolOp, ast.keyword)):
        node, parent = parent, tree.parents[parent]
    match parent:
        case ast.Compare() | ast.FormattedValue() | ast.UnaryOp(op=ast.Not()) | ast.Expr():
            return True
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) | ast.Assert(test=test):
            return test is node
        case ast.arguments(args=names):  # `lambda order=order:`, in which it is looked for as well
            return isinstance(use, ast.Name) and use.id in [each.arg for each in names]
        case ast.BinOp(left=left, op=ast.Mod()):  # "..." % order_id
            return isinstance(left, ast.Constant) and left is not node
        case ast.Call(func=function) if function is not node:
            return _looks(function, parent)
        case _:
            return False


def _looks(function: ast.expr, call: ast.Call) -> bool:
    """Whether what is called only looks at its arguments."""
    match function:
        case ast.Name(id="partial") | ast.Attribute(attr="partial"):
            first = call.args[0] if call.args else None
            return isinstance(first, ast.Attribute) and first.attr in _PUBLISHING
        case ast.Name(id=name):
            return name in _LOOKING or name == "enqueue"
        case ast.Attribute(value=of, attr=name):
            return name in _PUBLISHING | OF_TASK or _LOGGER.search(ast.unparse(of)) is not None
        case _:
            return False


def changes(passed: set[str], later: Later) -> Iterator[tuple[str, int]]:
    """Where the function changes, after the call, what has one of these names in place, and which one it is."""
    functions = [each for each in later.places if isinstance(each, Function)]
    for node in ast.walk(functions[-1]) if passed and functions else ():
        match node:
            case ast.Attribute(value=changed, ctx=ast.Store() | ast.Del()):
                pass
            case ast.Subscript(value=changed, ctx=ast.Store() | ast.Del()):
                pass
            case ast.Call(func=ast.Attribute(value=changed, attr=method)) if method in _CHANGING:
                pass
            case ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[changed, *_]):
                pass
            case ast.AugAssign(target=ast.Name() | ast.Attribute() as changed, value=value):
                if isinstance(value, ast.Constant):  # a number or a string, which is bound anew
                    continue
            case _:
                continue
        shown = ast.unparse(changed)
        for name in passed:
            is_it = shown == name or shown.startswith((f"{name}.", f"{name}["))
            if is_it and later.is_later(node, since=later.last_binding(name)):
                yield name, node.lineno


def passed_on(node: ast.expr, later: Later) -> set[str]:
    """The names and attributes whose values are passed on as they are, and may be changed in place."""
    match node:
        case ast.Name(id=name):
            if is_immutable(name, later):
                return set()
            return put_in(name, later) | other_names(name, later) | (set() if _is_bound_next(name, later) else {name})
        case ast.Attribute(attr="pk" | "id"):
            return set()
        case ast.Attribute() | ast.Subscript():
            return {shown := ast.unparse(node)} | other_names(shown, later)
        case ast.Dict(values=parts) | ast.List(elts=parts) | ast.Set(elts=parts) | ast.Tuple(elts=parts):
            pass
        case ast.BoolOp(values=parts):
            pass
        case ast.IfExp(body=body, orelse=other):
            parts = [body, other]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            parts = [left, right]
        case ast.Call(func=ast.Attribute(value=of, attr=name)) if name in OF_TASK | CANVAS | _PUBLISHING | {"partial"}:
            parts = [of, *_arguments(node)]
        case ast.Call(func=ast.Name(id=name)) if name in CANVAS | {"partial"}:
            parts = _arguments(node)
        case ast.Call(func=(ast.Call() | ast.BinOp()) as canvas):  # chord(header)(callback)
            parts = [canvas, *_arguments(node)]
        case _:
            return set()
    return {name for part in parts for name in passed_on(part, later)}


def put_in(name: str, later: Later) -> set[str]:
    """What a name is made of: `lines` after `data = {"lines": lines}` or `data = dict(lines=lines)`."""
    return {part for each in later.may_be_from(name) for part in _parts(later.tree.value_of(each))}


def _parts(value: ast.expr | None) -> set[str]:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in _MAKING:
        parts = _arguments(value)
    elif isinstance(value, ast.Dict):
        parts = value.values
    elif isinstance(value, (ast.List, ast.Set, ast.Tuple)):
        parts = value.elts
    else:
        return set()
    named = {ast.unparse(part) for part in parts if isinstance(part, _NAMES)}
    return named.union(*map(_parts, parts))


def _arguments(call: ast.Call) -> list[ast.expr]:
    """The arguments of a call, but for `*these`, whose items are copied."""
    return [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg)]


def other_names(name: str, later: Later) -> set[str]:
    """What else the function calls the value of a name: `lines` and `self.lines` after `lines = self.lines`."""
    assigned: list[set[str]] = []
    for node in ast.walk(later.function):
        match node:
            case ast.Assign(value=value, targets=targets):
                sides = [value, *targets]
            case ast.AnnAssign(value=ast.expr() as value, target=target) | ast.NamedExpr(value=value, target=target):
                sides = [value, target]
            case _:
                continue
        assigned.append({ast.unparse(each) for each in sides if isinstance(each, _NAMES)})
    found = {name}
    while more := {each for names in assigned if names & found for each in names} - found:
        found |= more
    return found - {name}


def is_renamed(use: ast.AST, tree: Tree) -> bool:
    """Whether a value only gets another name."""
    parent = tree.parents[use]
    return isinstance(parent, ast.Assign) and all(isinstance(target, ast.Name) for target in parent.targets)


def _is_bound_next(name: str, later: Later) -> bool:
    """Whether the first thing that happens to a name after the call is a new value: `task.delay(ids); ids = []`."""
    statement = later.tree.parents[later.call]
    blocks = [block for _, block in ast.iter_fields(later.tree.parents[statement]) if isinstance(block, list)]
    block = next(block for block in blocks if statement in block)
    for following in block[block.index(statement) + 1 :]:
        inside = list(ast.walk(following))
        if any(isinstance(each, (ast.Break, ast.Continue)) for each in inside):
            return False
        if named := [each for each in inside if isinstance(each, ast.Name) and each.id == name]:
            return isinstance(following, ast.Assign) and all(each in following.targets for each in named)
    return False
