"""A scope around every call of a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar, overload

from airlock._api import scope
from airlock._context import SuspendedContext
from airlock._executors import check_executor
from airlock._policies import check_policy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from airlock._executors import Executor
    from airlock._policies import Policy
    from airlock._scope import Scope

_F = TypeVar("_F", bound="Callable[..., Any]")


@overload
def scoped(function: _F, /) -> _F: ...
@overload
def scoped(
    policy: Policy | None = None,
    *,
    executor: Executor | None = None,
    _cls: Callable[..., Scope] | None = None,
    **scope_kwargs: Any,
) -> Callable[[_F], _F]: ...
def scoped(policy: Any = None, **scope_arguments: Any) -> Any:
    """Run every call of the decorated function in a scope of its own.

        @airlock.scoped
        def process(order): ...

        @airlock.scoped(DropAll())
        def backfill(): ...

    For functions, coroutine functions, generators and async generators; the scope of a generator lasts from its first
    step to its end, and is not its consumer's in between: what the consumer enqueues between two steps does not belong
    to it. A generator that is closed before its end discards.

    Args:
        policy: as for `airlock.scope`.
        executor: as for `airlock.scope`.
        _cls: as for `airlock.scope`.
        **scope_kwargs: as for `airlock.scope`.

    Raises:
        TypeError: if what it decorates is not a function, or the policy or the executor is of the wrong kind.
    """
    if callable(policy) and not scope_arguments and not hasattr(policy, "allows"):
        return _decorated(policy, scope)
    judge: Any = policy
    if judge is not None:
        check_policy(judge)
    if scope_arguments.get("executor") is not None:
        check_executor(scope_arguments["executor"])
    return lambda function: _decorated(function, functools.partial(scope, policy, **scope_arguments))


def _decorated(function: Any, new_scope: Callable[[], Scope]) -> Any:
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"scoped() decorates functions, and {function!r} is not one.")
    if inspect.isasyncgenfunction(function):
        decorate = _around_async_generators
    elif inspect.isgeneratorfunction(function):
        decorate = _around_generators
    elif inspect.iscoroutinefunction(function):
        decorate = _around_coroutines
    else:
        decorate = _around_calls
    return functools.wraps(function)(decorate(function, new_scope))


def _around_calls(function: Callable[..., Any], new_scope: Callable[[], Scope]) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with new_scope():
            return function(*args, **kwargs)

    return wrapper


def _around_coroutines(function: Callable[..., Any], new_scope: Callable[[], Scope]) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        async with new_scope():
            return await function(*args, **kwargs)

    return wrapper


def _around_generators(function: Callable[..., Any], new_scope: Callable[[], Scope]) -> Any:
    def in_scope(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with new_scope():
            return (yield from function(*args, **kwargs))

    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from _Steps(in_scope(*args, **kwargs)))

    return wrapper


def _around_async_generators(function: Callable[..., Any], new_scope: Callable[[], Scope]) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        inside = SuspendedContext()
        boundary = new_scope()
        with inside:
            await boundary.__aenter__()
        # What `yield from` does in a generator has to be spelled out in an async generator.
        resume = generator.asend(None)
        try:
            while True:
                try:
                    with inside:
                        produced = await resume
                except StopAsyncIteration:
                    break
                finally:
                    del resume  # may hold an exception, whose traceback holds this frame
                try:
                    sent = yield produced
                except GeneratorExit:
                    with inside:
                        await generator.aclose()
                    raise
                except BaseException as error:
                    resume = generator.athrow(error)
                else:
                    resume = generator.asend(sent)
        except BaseException as error:
            with inside:
                await boundary.__aexit__(type(error), error, error.__traceback__)
            raise
        with inside:
            await boundary.__aexit__(None, None, None)

    return wrapper


class _Steps(Generator[Any, Any, Any]):
    """A generator that takes each of its steps inside."""

    def __init__(self, generator: Generator[Any, Any, Any]) -> None:
        self._generator = generator
        self._inside = SuspendedContext()

    def send(self, value: Any) -> Any:
        with self._inside:
            return self._generator.send(value)

    def throw(self, *error: Any) -> Any:
        try:
            with self._inside:
                return self._generator.throw(*error)
        finally:
            del error  # its traceback holds this frame
