"""Whether `enqueue` gets the arguments that the task would have got.

`on_commit(lambda: notify.delay(order.id))` reads `order.id` when the transaction commits, `enqueue(notify, order.id)`
when the line is run. So what is read must be the same then:

1. A name is passed as it is, if nothing can bind it again and the function only looks at its value from then on.
2. What is computed is computed from immutable values alone, such as the primary key of an object that the function has
   just got from the database or saved.
3. Everything else is left.

When a call has its arguments at once, as `notify.delay(ids)` does, one question remains: `enqueue` keeps a reference
until the dispatch, so the function must not change `ids` in place afterwards.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NoReturn

from ._arguments import UnsafeError
from ._saved import KEYS, has_its_key
from ._values import (
    CANVAS,
    OF_TASK,
    PURE,
    are_made_here,
    changes,
    is_immutable,
    is_read,
    is_renamed,
    other_names,
    passed_on,
    put_in,
)

if TYPE_CHECKING:
    from ._names import Later

_ADVICE = "; bind it to a name first if its value now is what you mean"
#: What computes a value of those that are in it.
_OPERATIONS = (ast.Tuple, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.FormattedValue, ast.IfExp, ast.JoinedStr)


def check_moment(later: Later, *, on_commit: bool, read_now: bool) -> None:
    """Check that `enqueue` gets the arguments that the task would have got.

    Args:
        later: what happens after the call.
        on_commit: whether the call is an `on_commit`, which publishes later.
        read_now: whether a lambda may be rewritten though what it reads may be different when the transaction commits.

    Raises:
        UnsafeError: if the arguments might be others.
    """
    published: ast.expr = later.call.args[0] if on_commit else later.call
    if isinstance(published, ast.Lambda):
        _check_lambda(published, later, read_now=read_now)
        published = published.body
    for name, line in changes(passed_on(published, later), later):
        reason = f"`{name}` is changed in line {{line}}, perhaps before the task gets it; pass a copy"
        raise UnsafeError(reason, line)


def _check_lambda(callback: ast.Lambda, later: Later, *, read_now: bool) -> None:
    given = _parameters(callback)
    for node in ast.walk(callback.body):
        if isinstance(node, (ast.NamedExpr, ast.Yield, ast.YieldFrom)):
            raise UnsafeError(f"`{ast.unparse(node)}` cannot be taken out of the lambda")
        if isinstance(node, ast.Name) and node.id not in given and later.has_no_value(node.id):
            raise UnsafeError(f"`{node.id}` has no value yet")
    call = callback.body
    if not read_now and isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
        late = _Late(later, given)
        late.check_task(call.func.value)
        late.check_arguments(call)


def _parameters(callback: ast.Lambda) -> set[str]:
    """The parameters of `lambda order=order: ...`, whose values are those of now."""
    parameters = callback.args
    names = [each.arg for each in [*parameters.args, *parameters.kwonlyargs]]
    defaults = [*parameters.defaults, *parameters.kw_defaults]
    same = [value.id if isinstance(value, ast.Name) else None for value in defaults] == names
    if not same or parameters.posonlyargs or parameters.vararg or parameters.kwarg:
        raise UnsafeError("the lambda has parameters")
    return set(names)


class _Late:
    """Judges what a lambda reads when the transaction commits."""

    def __init__(self, later: Later, given: set[str]) -> None:
        self._later = later
        #: Names that are bound to the lambda when the line is run.
        self._given = given

    def check_task(self, node: ast.expr) -> None:
        """Check what is published: a task, or a signature with its arguments."""
        match node:
            case ast.Name(id=name) if isinstance(self._later.place(name), ast.Module):
                self._check_same(name)
            case ast.Name(id=name):
                self._check_name(name)
            case ast.Attribute() if self._is_in_module(node):
                pass
            case ast.Call(func=ast.Attribute(value=task, attr=method)) if method in OF_TASK:
                self.check_task(task)
                self.check_arguments(node)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in CANVAS:
                self.check_arguments(node)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                self.check_task(left)
                self.check_task(right)
            case _:
                self._leave(node)

    def check_arguments(self, call: ast.Call) -> None:
        """Check the arguments of a call."""
        for argument in call.args:
            self._check(argument)
        for keyword in call.keywords:
            if keyword.arg is None:
                self._check_items(keyword.value)
            else:
                self._check(keyword.value)

    def _check(self, node: ast.expr) -> None:
        if self._is_fixed(node):
            return
        match node:
            case ast.Name(id=name):
                self._check_name(name)
            case ast.List(elts=values) | ast.Set(elts=values) | ast.Tuple(elts=values):
                for value in values:
                    self._check(value)
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if key is None:
                        self._check_items(value)
                    else:
                        self._check(key)
                        self._check(value)
            case ast.Starred(value=value):
                self._check_items(value)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in OF_TASK | CANVAS:
                self.check_task(node)
            case _:
                self._leave(node)

    def _check_same(self, name: str) -> None:
        if name not in self._given and self._later.may_be_bound_again(name):
            raise UnsafeError(f"`{name}` may be bound again before the transaction commits")

    def _check_name(self, name: str) -> None:
        """Check that a name stays what it is, and that the function does no more than look at its value."""
        later = self._later
        self._check_same(name)
        if later.is_defined(name):
            return
        before: tuple[type[ast.AST], ...] = (ast.Attribute, ast.Subscript)  # filling it is no harm yet
        if not any(are_made_here(name, later)):  # others have it anyway
            before += (ast.Call, ast.keyword, ast.Starred)
        for each in {name} | other_names(name, later):
            for use, is_later in later.uses(each):
                if is_later or not (isinstance(later.tree.parents[use], before) or is_renamed(use, later.tree)):
                    self._check_use(use)
        for each in put_in(name, later):
            for use, is_later in later.uses(each):
                if is_later and not is_immutable(each, later):
                    self._check_use(use)

    def _check_use(self, use: ast.Name) -> None:
        tree = self._later.tree
        if not is_read(use, tree) and not is_renamed(use, tree):
            raise UnsafeError(
                f"what is done with `{use.id}` in line {use.lineno} may change it before the transaction commits"
            )

    def _check_items(self, node: ast.expr) -> None:
        """Check that what is in `*lines` or `**options` stays the same: the function has made it, and keeps it."""
        if isinstance(node, ast.Name) and node.id not in self._given:
            made_here = are_made_here(node.id, self._later)
            if made_here and all(made_here) and self._later.place(node.id) is self._later.function:
                self._check_name(node.id)
                return
        raise UnsafeError(f"it reads what is in `{ast.unparse(node)}` when the transaction commits{_ADVICE}")

    def _is_fixed(self, node: ast.expr) -> bool:
        """Whether something is immutable, and the same when the transaction commits."""
        match node:
            case ast.Constant():
                return True
            case ast.Name(id=name):
                is_same = name in self._given or not self._later.may_be_bound_again(name)
                return is_same and is_immutable(name, self._later)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                return attribute in KEYS and has_its_key(name, self._later)
            case ast.Call():
                return self._is_pure(node) and all(map(self._is_fixed, node.args))
            case _:
                return isinstance(node, _OPERATIONS) and all(
                    self._is_fixed(each) for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)
                )

    def _is_pure(self, call: ast.Call) -> bool:
        match call:
            case ast.Call(func=ast.Name(id=name), keywords=[]):
                return name in PURE and self._later.place(name) is None
            case _:
                return False

    def _is_in_module(self, node: ast.expr) -> bool:
        """Whether something is an attribute of a module or class: `tasks.notify`."""
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and self._later.is_defined(node.id)

    def _leave(self, node: ast.expr) -> NoReturn:
        """Say what it is in an expression that may change.

        Raises:
            UnsafeError: always.
        """
        if isinstance(node, _OPERATIONS) or (isinstance(node, ast.Call) and self._is_pure(node)):
            parts = node.args if isinstance(node, ast.Call) else ast.iter_child_nodes(node)
            for part in parts:
                if isinstance(part, ast.expr) and not self._is_fixed(part):
                    self._leave(part)
        if isinstance(node, ast.Call):
            raise UnsafeError(f"it calls `{ast.unparse(node.func)}()` when the transaction commits{_ADVICE}")
        raise UnsafeError(f"it reads `{ast.unparse(node)}` when the transaction commits{_ADVICE}")
