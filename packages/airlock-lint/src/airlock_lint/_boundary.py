"""Whether a call is in a scope when it is run, and whether that scope can have effects."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from ._arguments import UnsafeError
from ._names import Function

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._names import Later, Tree

#: What Celery calls before and after a run, and with what argument.
_HANDLERS = {"before_start", "on_success", "on_failure", "on_retry", "after_return"}
_OF_HANDLERS = "task_id"
#: What raises as `raise` does.
_RAISING = {"self.retry", "sys.exit"}
#: The signals of Celery, and those that Django sends before and after a request, or when it has failed.
_SIGNALS = re.compile(
    r"\b((?:after_task|before_task|beat|celeryd|on_after|task|worker)_\w+"
    r"|request_started|request_finished|got_request_exception)$"
)
#: A response of a view that `AirlockMiddleware` takes for a failure.
_FAILED_RESPONSE = re.compile(
    r"\bstatus(?:_code)?=(?:\w+\.)*(?:HTTP_)?[45]\d\d"
    r"|\bHttpResponse(?:BadRequest|Forbidden|Gone|NotAllowed|NotFound|ServerError)\("
)
_OPENS_A_SCOPE = re.compile(r"\b(?:scope|scoped|detached|\w*Scope)\b")


def check_boundary(later: Later) -> None:
    """Check that a call is in a scope, and that the scope is not sure to fail.

    Raises:
        UnsafeError: if `enqueue` would raise, or would never be followed by a dispatch.
    """
    if not any(_OPENS_A_SCOPE.search(each) for each in _around(later)):
        for place in later.places:
            if isinstance(place, Function):
                _check_caller(place, later.tree)
    _check_end(later)


def _around(later: Later) -> Iterator[str]:
    """The context managers and decorators around a call."""
    for each in later.tree.around(later.call):
        if isinstance(each, (ast.With, ast.AsyncWith)):
            yield from (ast.unparse(item.context_expr) for item in each.items)
        elif isinstance(each, Function):
            yield from map(ast.unparse, each.decorator_list)


def _check_caller(function: Function, tree: Tree) -> None:
    """Check that nobody calls a function where no scope is."""
    around = tree.parents[function]
    if isinstance(around, ast.ClassDef):
        bases = " ".join(map(ast.unparse, around.bases))
        parameters = {each.arg for each in function.args.args}
        if function.name in _HANDLERS and (_OF_HANDLERS in parameters or re.search(r"Task\b", bases)):
            raise UnsafeError(f"Celery calls `{function.name}()` outside of the scope of a run")
        if function.name == "ready" and re.search(r"Config\b", bases):
            raise UnsafeError("`ready()` runs when Django starts, in no scope")
    if any(_runs_in_thread(node, function.name) for node in ast.walk(tree.root)):
        raise UnsafeError(f"`{function.name}()` runs in a thread, in no scope")
    for signal in _received(function, tree):
        if found := _SIGNALS.search(signal):
            raise UnsafeError(f"it receives `{found[1]}`, which is sent in no scope, or in one that fails")


def _runs_in_thread(node: ast.AST, name: str) -> bool:
    """Whether something gives a function to a thread of its own: `Thread(target=remind)`, `pool.submit(remind)`."""
    match node:
        case ast.Call(func=ast.Name(id="Thread" | "Timer") | ast.Attribute(attr="Thread" | "Timer")):
            given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg in ("target", "function"))]
        case ast.Call(func=ast.Attribute(attr="submit"), args=[first, *_]):
            given = [first]
        case _:
            return False
    return any(isinstance(each, (ast.Name, ast.Attribute)) and _last_name(each) == name for each in given)


def _last_name(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


def _received(function: Function, tree: Tree) -> Iterator[str]:
    """The signals that a function receives."""
    for decorator in function.decorator_list:
        match decorator:
            case (
                ast.Call(func=ast.Attribute(attr="connect", value=signal)) | ast.Attribute(attr="connect", value=signal)
            ):
                yield ast.unparse(signal)
            case ast.Call(func=ast.Name(id="receiver") | ast.Attribute(attr="receiver"), args=[signals, *_]):
                for each in signals.elts if isinstance(signals, (ast.List, ast.Tuple)) else [signals]:
                    yield ast.unparse(each)
    for node in ast.walk(tree.root):
        match node:
            case ast.Call(func=ast.Attribute(attr="connect", value=signal), args=[ast.Name(id=name), *_]):
                if name == function.name:
                    yield ast.unparse(signal)


def _check_end(later: Later) -> None:
    """Check that the call is not sure to be followed by what discards: an exception, or a response that failed."""
    inside: ast.AST = later.call
    for around in later.tree.around(later.call):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(around, block, None)
            if not isinstance(statements, list) or inside not in statements:
                continue
            if block == "finalbody":
                raise UnsafeError("it is in a `finally`, and after an exception `enqueue` has no effect")
            for each in statements[statements.index(inside) + 1 :]:
                if _raises(each):
                    raise UnsafeError(
                        "a `raise` or the like follows, which discards; put it in `with airlock.detached():`"
                    )
                if isinstance(each, ast.Return) and _FAILED_RESPONSE.search(ast.unparse(each)):
                    raise UnsafeError(
                        "a response with status 4xx or 5xx follows, which discards; put it in "
                        "`with airlock.detached():`"
                    )
                if isinstance(each, (ast.Return, ast.Break, ast.Continue)):
                    return
        if isinstance(around, Function):
            return
        if isinstance(around, (ast.With, ast.AsyncWith)) and "detached" in ast.unparse(around.items[-1]):
            return
        inside = around


def _raises(statement: ast.stmt) -> bool:
    """Whether a statement raises: `raise`, the `self.retry()` of a task, or `sys.exit()`."""
    match statement:
        case ast.Raise():
            return True
        case ast.Expr(value=ast.Call(func=called)) | ast.Return(value=ast.Call(func=called)):
            return ast.unparse(called) in _RAISING
        case _:
            return False
