"""`scoped` keeps signatures, with and without parentheses; `scope` gives the scope."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any, assert_type

import airlock


@airlock.scoped
def function(number: int, *, flag: bool = False) -> str:
    return str(number) if flag else ""


@airlock.scoped()
def function_too(number: int, *, flag: bool = False) -> str:
    return str(number) if flag else ""


assert_type(function(1, flag=True), str)
assert_type(function_too(1, flag=True), str)
function("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
function_too("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
function(1, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
function_too(1, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@airlock.scoped
async def coroutine_function(number: int) -> str:
    return str(number)


@airlock.scoped(airlock.DropAll(), executor=print)
async def coroutine_function_too(number: int) -> str:
    return str(number)


async def await_them() -> None:
    assert_type(await coroutine_function(1), str)
    assert_type(await coroutine_function_too(1), str)
    await coroutine_function("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await coroutine_function_too("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@airlock.scoped
def generator_function(number: int) -> Generator[int, str, bytes]:
    return (yield number).encode()


@airlock.scoped(policy=None, setting=1)
def generator_function_too(number: int) -> Iterator[int]:
    yield number


assert_type(generator_function(1), Generator[int, str, bytes])
assert_type(generator_function_too(1), Iterator[int])
generator_function("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
generator_function_too("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@airlock.scoped
async def async_generator_function(number: int) -> AsyncGenerator[int, str]:
    received = yield number
    yield len(received)


@airlock.scoped(_cls=airlock.Scope)
async def async_generator_function_too(number: int) -> AsyncIterator[int]:
    yield number


assert_type(async_generator_function(1), AsyncGenerator[int, str])
assert_type(async_generator_function_too(1), AsyncIterator[int])
async_generator_function("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async_generator_function_too("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Order:
    @airlock.scoped
    def place(self, number: int) -> str:
        return str(number)

    @airlock.scoped()
    async def pay(self, number: int) -> str:
        return str(number)


assert_type(Order().place(1), str)
place: Callable[[Order, int], str] = Order.place
pay: Callable[[Order, int], Coroutine[Any, Any, str]] = Order.pay
Order().place("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# What is no policy, no executor, or no function.

airlock.scoped(airlock.DropAll)(function)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
airlock.scoped(executor=42)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
airlock.scoped()(42)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]

# Scopes.

with airlock.scope() as scope:
    assert_type(scope, airlock.Scope)
    assert_type(scope.intents, list[airlock.Intent])
    assert_type(scope.is_active, bool)
    scope.intents = []  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]

assert_type(scope.flush(), list[airlock.Intent])
assert_type(scope.discard(), list[airlock.Intent])
assert_type(airlock.get_current_scope(), airlock.Scope | None)


async def enter_async() -> None:
    async with airlock.scope(airlock.DropAll(), executor=print, _cls=airlock.Scope, setting=1) as scope:
        assert_type(scope, airlock.Scope)


class RequestScope(airlock.Scope):
    def should_flush(self, error: BaseException | None) -> bool:
        return error is None

    def before_descendant_flushes(
        self, exiting_scope: airlock.Scope, intents: list[airlock.Intent]
    ) -> list[airlock.Intent]:
        return intents


with airlock.detached() as detached_scope:
    assert_type(detached_scope, airlock.Scope)

with RequestScope() as request_scope:
    assert_type(request_scope, RequestScope)

with airlock.scope(_cls=RequestScope) as made, airlock.policy(airlock.DropAll()) as nothing:
    assert_type(made, RequestScope)
    assert_type(nothing, None)

with airlock.scope(_cls=lambda **arguments: RequestScope(**arguments)) as made_by_a_function:
    assert_type(made_by_a_function, airlock.Scope)

assert_type(scope.rolled_back_intents, list[airlock.Intent])
assert_type(scope.unknown_intents, list[airlock.Intent])
airlock.scope(_cls=Order)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
