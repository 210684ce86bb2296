"""Objects that have their primary key for good: the function has just got them from the database, or saved them."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._names import Later

KEYS = {"pk", "id"}
_MANAGER = re.compile(r"\.(?:objects|_default_manager|_base_manager)\.")
_GET = {"create", "get", "first", "last", "latest", "earliest"}
_GET_OR_CREATE = {"get_or_create", "update_or_create"}
_SHORTCUTS = {"get_object_or_404", "aget_object_or_404"}
_SAVE = {"save", "asave", "refresh_from_db", "arefresh_from_db"}


def has_its_key(name: str, later: Later) -> bool:
    """Whether what has this name is saved before the call, and keeps its key in this function."""
    if later.place(name) is not later.function or later.may_be_bound_again(name) or _loses_its_key(name, later):
        return False
    bindings = later.may_be_from(name)
    if all(_is_saved(binding, name, later) for binding in bindings):
        return True
    last = max((getattr(each, "lineno", 0), getattr(each, "col_offset", 0)) for each in bindings)
    return any(
        (statement.lineno, statement.col_offset) > last and _saves(statement, name, later)
        for statement in later.before()
    )


def _loses_its_key(name: str, later: Later) -> bool:
    """Whether the function assigns the key of anything, or deletes this, or anything at all after the call.

    Something else may be the same object by another name.
    """
    for node in ast.walk(later.function):
        match node:
            case ast.Attribute(attr=attribute, ctx=ast.Store() | ast.Del()) if attribute in KEYS:
                return True
            case ast.Call(func=ast.Attribute(value=deleted, attr="delete" | "adelete")):
                if later.is_later(node) or (isinstance(deleted, ast.Name) and deleted.id == name):
                    return True
            case ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[_, attribute, *_]):
                if later.is_later(node) or (isinstance(attribute, ast.Constant) and attribute.value in KEYS):
                    return True
    return False


def _is_saved(binding: ast.AST, name: str, later: Later) -> bool:
    """Whether a name is bound to a saved object: `order = Order.objects.create()`."""
    tree = later.tree
    match tree.parents[binding]:
        case ast.Tuple(elts=[first, *_]) as pair if first is binding:  # order, created = ...
            return _is_manager_call(tree.value_of(pair), _GET_OR_CREATE)
        case ast.arguments():
            return name == "instance" and _receives_post_save(later.function, tree.root)
    value = tree.value_of(binding)
    if isinstance(value, ast.Await):
        value = value.value
    match value:
        case ast.Call(func=ast.Name(id=function)) if function in _SHORTCUTS:
            return True
        case ast.Call(func=ast.Attribute(attr="save" | "asave"), args=[], keywords=keywords):
            return all(each.arg not in (None, "commit") for each in keywords)
        case _:
            return _is_manager_call(value, _GET)


def _is_manager_call(value: ast.expr | None, methods: set[str]) -> bool:
    if isinstance(value, ast.Await):
        value = value.value
    match value:
        case ast.Call(func=ast.Attribute(value=queryset, attr=method)):
            return method.removeprefix("a") in methods and _MANAGER.search(f"{ast.unparse(queryset)}.") is not None
        case _:
            return False


def _receives_post_save(function: ast.AST, root: ast.Module) -> bool:
    """Whether a function receives `post_save`, and no other signal."""
    signals = [
        decorator.args[0]
        for decorator in getattr(function, "decorator_list", [])
        if isinstance(decorator, ast.Call) and decorator.args and ast.unparse(decorator.func).endswith("receiver")
    ]
    signals += [
        node.func.value
        for node in ast.walk(root)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "connect"
        and node.args
        and ast.unparse(node.args[0]).rpartition(".")[2] == getattr(function, "name", "")
    ]
    return bool(signals) and all(ast.unparse(signal).rpartition(".")[2] == "post_save" for signal in signals)


def _saves(statement: ast.stmt, name: str, later: Later) -> bool:
    """Whether a statement is `order.save()`, or `super().save()` where `self` is meant."""
    match statement:
        case ast.Expr(value=ast.Await(value=ast.Call() as call) | (ast.Call() as call)):
            pass
        case _:
            return False
    match call.func:
        case ast.Attribute(value=ast.Name(id=saved), attr=method):
            return saved == name and method in _SAVE
        case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=method):
            commits = all(isinstance(each, ast.Starred) for each in call.args)
            commits = commits and all(keyword.arg != "commit" for keyword in call.keywords)
            return commits and method in _SAVE and name == _self(later.function)
        case _:
            return False


def _self(function: ast.AST) -> str:
    return next((each.arg for each in ast.walk(function) if isinstance(each, ast.arg)), "")
