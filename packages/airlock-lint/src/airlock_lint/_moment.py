"""Whether what a lambda computes at the commit can be computed at once.

`on_commit(lambda: notify.delay(order.id))` reads `order.id` when the transaction commits, `enqueue(notify, order.id)`
when the line is run. That is the same unless something happens to `order` in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import libcst as cst
import libcst.matchers as m

from ._arguments import UnsafeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ._arguments import Publishing

#: Functions whose result depends on their arguments alone.
_HARMLESS = {"bool", "dict", "float", "frozenset", "int", "len", "list", "repr", "set", "sorted", "str", "tuple"}
#: What makes signatures, besides.
_SIGNATURES = {"s", "si", "signature", "set", "clone", "group", "chain", "chord"}


def check_moment(
    node: cst.Call, publishing: Publishing, parents: Mapping[cst.CSTNode, cst.CSTNode], spans: Mapping[Any, Any]
) -> None:
    """Check that the arguments will be the same.

    Raises:
        UnsafeError: if they might not be.
    """
    callback = publishing.waits_in
    own = _parameters(callback) if callback else set()
    computed = [publishing.receiver, *(argument.value for argument in publishing.args)]
    for expression in computed:
        for call in m.findall(expression, m.Call()):
            if isinstance(call, cst.Call) and not _is_harmless(call.func):
                shown = cst.Module([]).code_for_node(call.func)
                raise UnsafeError(f"`{shown}()` is called when the transaction commits")
    names, objects = _names(publishing)
    for name in sorted((names | objects) - own):
        if _may_change(name, node, parents, spans, is_object=name in objects):
            raise UnsafeError(f"`{name}` may change before the transaction commits")


def _parameters(callback: cst.Lambda) -> set[str]:
    """The parameters of `lambda order=order: ...`, whose values are those of now."""
    parameters = callback.params
    if parameters.star_kwarg or isinstance(parameters.star_arg, cst.Param) or parameters.posonly_params:
        raise UnsafeError("the lambda has parameters")
    own = set()
    for parameter in [*parameters.params, *parameters.kwonly_params]:
        name = parameter.name.value
        if not isinstance(parameter.default, cst.Name) or parameter.default.value != name:
            raise UnsafeError("the lambda has parameters")
        own.add(name)
    return own


def _is_harmless(function: cst.BaseExpression) -> bool:
    match function:
        case cst.Name(value=name):
            return name in _HARMLESS | _SIGNATURES
        case cst.Attribute(attr=cst.Name(value=name)):
            return name in _SIGNATURES
        case _:
            return False


def _names(publishing: Publishing) -> tuple[set[str], set[str]]:
    """The names that the arguments are, and the names of the objects whose attributes or items they are."""
    names: set[str] = set()
    objects: set[str] = set()
    for argument in publishing.args:
        if argument.star:
            objects |= _given(argument.value)
        for found in m.findall(argument.value, m.Attribute() | m.Subscript()):
            if root := _root(found):
                objects.add(root)
        # What is in a collection is read as well: `list(ids)`, `[line.id for line in lines]`.
        for found in m.findall(argument.value, m.CompFor() | m.Call()):
            if isinstance(found, cst.CompFor):
                objects |= _given(found.iter)
            elif isinstance(found, cst.Call):
                objects |= {name for each in found.args for name in _given(each.value)}
        names |= {found.value for found in m.findall(argument.value, m.Name()) if isinstance(found, cst.Name)}
    if isinstance(publishing.receiver, cst.Name):
        names.add(publishing.receiver.value)
    return names, objects


def _given(value: cst.BaseExpression) -> set[str]:
    """The names of what is passed on in an argument, by itself or in a literal such as `[order]`."""
    match value:
        case cst.Name(value=name):
            return {name}
        case cst.Tuple(elements=elements) | cst.List(elements=elements) | cst.Set(elements=elements):
            return {name for element in elements for name in _given(element.value)}
        case cst.Dict(elements=elements):
            return {name for element in elements for name in _given(element.value)}
        case _:
            return set()


def _root(node: cst.CSTNode) -> str | None:
    """The name that an expression such as `order.lines[0].id` begins with."""
    while isinstance(node, (cst.Attribute, cst.Subscript, cst.Call)):
        node = node.func if isinstance(node, cst.Call) else node.value
    return node.value if isinstance(node, cst.Name) else None


def _may_change(
    name: str,
    node: cst.Call,
    parents: Mapping[cst.CSTNode, cst.CSTNode],
    spans: Mapping[Any, Any],
    *,
    is_object: bool,
) -> bool:
    """Whether anything is done to what has a name between the call and the end of the function, or of a loop."""
    function, loop = _around(node, parents)
    end = spans[node].end
    for each in _inside(function):
        if each in (node, function) or (each not in loop and _before(spans, each, end)):
            continue
        match each:
            case cst.AssignTarget(target=target) | cst.AugAssign(target=target) | cst.AnnAssign(target=target):
                changed = _stored(target)
            case cst.For(target=target) | cst.CompFor(target=target) | cst.NamedExpr(target=target):
                changed = _stored(target)
            case cst.AsName(name=target):
                changed = _stored(target)
            case cst.Del(target=target):
                changed = _stored(target)
            case cst.Call(func=cst.Name(value="super")):
                changed = {"self", "cls"}
            case cst.Call(func=called, args=args):
                changed = {_root(called)} if not isinstance(called, cst.Name) else set()
                if is_object:
                    changed |= {name for argument in args for name in _given(argument.value)}
            case _:
                continue
        if name in changed:
            return True
    return False


def _stored(target: cst.CSTNode) -> set[str | None]:
    if isinstance(target, (cst.Tuple, cst.List)):
        return {name for element in target.elements for name in _stored(element.value)}
    return {_root(target)}


def _around(node: cst.CSTNode, parents: Mapping[cst.CSTNode, cst.CSTNode]) -> tuple[cst.CSTNode, set[cst.CSTNode]]:
    """The function around a call, and all that is in the outermost loop around the call in it."""
    loop: set[cst.CSTNode] = set()
    own = set(_inside(node))
    while not isinstance(node, (cst.FunctionDef, cst.Module)):
        if isinstance(node, (cst.For, cst.While)):
            loop = set(_inside(node)) - own
        node = parents[node]
    return node, loop


def _inside(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield node
    for child in node.children:
        yield from _inside(child)


def _before(spans: Mapping[Any, Any], each: cst.CSTNode, end: Any) -> bool:
    at = spans.get(each)
    return at is None or (at.start.line, at.start.column) < (end.line, end.column)
