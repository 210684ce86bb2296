"""Whether a call is in a scope when it is run, and whether that scope can have effects."""

from __future__ import annotations

import ast
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from ._arguments import UnsafeError
from ._names import LOOPS, Function

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._names import Later, Place, Tree

#: What Celery calls before and after a run, and with what argument.
_HANDLERS = {"before_start", "on_success", "on_failure", "on_retry", "after_return"}
_OF_HANDLERS = "task_id"
#: The signals of Celery, and those that Django sends before and after a request, or when it has failed.
_SIGNALS = re.compile(
    r"\b((?:after_task|before_task|beat|celeryd|on_after|task|worker)_\w+"
    r"|request_started|request_finished|got_request_exception)$"
)
#: A response of a view that `AirlockMiddleware` takes for a failure.
_FAILED_RESPONSE = re.compile(
    r"\bstatus(?:_code)?=[45]\d\d"
    r"|\bResponse\(.*, [45]\d\d\)$"  # of Django REST framework
    r"|^return \([45]\d\d, "  # of django-ninja
    r"|\bHTTP_[45]\d\d"
    rf"|\bHTTPStatus\.(?:{'|'.join(each.name for each in HTTPStatus if each >= HTTPStatus.BAD_REQUEST)})\b"
    r"|\bHttpResponse(?:BadRequest|Forbidden|Gone|NotAllowed|NotFound|ServerError)\("
)
#: What runs a function without the context of who starts it.
_THREADS = {"Process", "Thread", "Timer"}
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
        yield from _context_managers(each)
        if isinstance(each, Function):
            yield from map(ast.unparse, each.decorator_list)


def _context_managers(node: ast.AST) -> list[str]:
    items = node.items if isinstance(node, (ast.With, ast.AsyncWith)) else []
    return [ast.unparse(item.context_expr) for item in items]


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
        if function.name == "run" and re.search(r"(?:Process|Thread|Timer)\b", bases):
            raise UnsafeError("`run()` runs in a thread or process of its own, in no scope")
    if any(_runs_elsewhere(node, function.name) for node in ast.walk(tree.root)):
        raise UnsafeError(f"`{function.name}()` runs in a thread or process of its own, in no scope")
    for signal in _received(function, tree):
        if found := _SIGNALS.search(signal):
            raise UnsafeError(f"it receives `{found[1]}`, which is sent in no scope, or in one that fails")


def _runs_elsewhere(node: ast.AST, name: str) -> bool:
    """Whether something gives a function to a thread or process: `Thread(target=remind)`, `pool.submit(remind)`."""
    match node:
        case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called)) if called in _THREADS:
            given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg in ("target", "function"))]
        case ast.Call(func=ast.Attribute(attr="map" | "submit"), args=[first, *_]):
            given = [first]
        case ast.Call(func=ast.Attribute(attr="run_in_executor"), args=[_, second, *_]):
            given = [second]
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
    """Check that the scope ends, and that nothing is sure to discard it: an exception, or a response that failed."""
    inside: ast.AST = later.call
    is_in_scope = False
    for around in later.tree.around(later.call):
        is_in_scope = is_in_scope or any(map(_OPENS_A_SCOPE.search, _context_managers(around)))
        if _is_endless(around, later.tree) and not is_in_scope:
            raise UnsafeError("it is in an endless loop, so the scope around it would not end")
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(around, block, None)
            if not isinstance(statements, list) or inside not in statements:
                continue
            if block == "finalbody":
                raise UnsafeError("it is in a `finally`, and after an exception `enqueue` has no effect")
            for each in statements[statements.index(inside) + 1 :]:
                if _raises(each, later.function):
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


def _is_endless(node: ast.AST, tree: Tree) -> bool:
    """Whether something is a `while True` that only an exception leaves."""
    match node:
        case ast.While(test=ast.Constant(value=value)) if value:
            inside = list(ast.walk(node))
            breaks = [each for each in inside if isinstance(each, ast.Break)]
            leaves = any(isinstance(each, (ast.Return, ast.Yield, ast.YieldFrom)) for each in inside)
            return not leaves and all(_loop_around(each, tree) is not node for each in breaks)
        case _:
            return False


def _loop_around(node: ast.AST, tree: Tree) -> ast.AST:
    return next(each for each in tree.around(node) if isinstance(each, LOOPS))


def _raises(statement: ast.stmt, function: Place) -> bool:
    """Whether a statement raises: `raise`, the `self.retry()` of a task, or `sys.exit()`."""
    match statement:
        case ast.Raise():
            return True
        case ast.Expr(value=ast.Call(func=called)) | ast.Return(value=ast.Call(func=called)):
            return ast.unparse(called) in ("sys.exit", "self.retry", *_retries(function))
        case _:
            return False


def _retries(function: Place) -> list[str]:
    """What retries a task: the method of its first parameter, or its own."""
    if isinstance(function, ast.Module):
        return []
    is_bound = any("bind=True" in ast.unparse(each) for each in function.decorator_list)
    parameters = [each.arg for each in function.args.args[:1] if is_bound]
    return [f"{each}.retry" for each in (function.name, *parameters)]
