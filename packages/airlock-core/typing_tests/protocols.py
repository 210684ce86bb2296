"""Executors and policies are whatever has the methods; nothing has to be inherited."""

from collections.abc import Collection
from contextlib import nullcontext
from typing import Literal, assert_type

import airlock
from airlock.ext import register_carrier, register_fates, run_in_context, set_defaults, suspend, when_no_scope
from airlock.integrations.executors.sync import SyncExecutor, sync_executor

# Executors


def as_function(intent: airlock.Intent) -> None: ...


def with_another_name(it: airlock.Intent) -> int:
    return len(it.args)


class AsObject:
    def accepts(self, task: object) -> bool:
        return isinstance(task, str)

    def __call__(self, intent: airlock.Intent, /) -> object:
        return intent.id


async def as_coroutine_function(intent: airlock.Intent) -> None: ...


recorded: list[airlock.Intent] = []

airlock.scope(executor=as_function)
airlock.scope(executor=with_another_name)
airlock.scope(executor=AsObject())
airlock.scope(executor=recorded.append)
airlock.scope(executor=lambda intent: intent.name)
airlock.scope(executor=sync_executor)
airlock.scope(executor=None)
assert_type(sync_executor, SyncExecutor)


def takes_nothing() -> None: ...


def takes_numbers(number: int) -> None: ...


airlock.scope(executor=takes_nothing)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
airlock.scope(executor=takes_numbers)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
airlock.scope(executor="celery")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]

# Policies


class Structural:
    def on_enqueue(self, intent: airlock.Intent) -> None: ...

    def allows(self, intent: airlock.Intent) -> bool:
        return intent.name != "send_email"


class Inherited(airlock.Policy):
    def allows(self, intent: airlock.Intent, /) -> bool:
        return intent.name != "send_email"


class WithoutObserving:
    def allows(self, intent: airlock.Intent) -> bool:
        return True


class Undecided:
    def on_enqueue(self, intent: airlock.Intent) -> None: ...

    def allows(self, intent: airlock.Intent) -> str:
        return intent.name


airlock.scope(Structural())
airlock.scope(policy=Inherited())
airlock.policy(Structural())
airlock.policy(airlock.BlockTasks({"send_email"}, raise_on_enqueue=True))
airlock.policy(airlock.AllowTasks(["send_email"]))
airlock.scope(airlock.LogOnFlush())
airlock.scope(WithoutObserving())  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
airlock.policy(Undecided())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
airlock.scope(airlock.DropAll)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
airlock.policy("drop all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# Configuration


class RequestScope(airlock.Scope):
    def __init__(
        self, policy: airlock.Policy | None = None, *, executor: airlock.Executor | None = None, user: str = ""
    ) -> None:
        super().__init__(policy, executor=executor)
        self.user = user


airlock.configure(
    scope_cls=RequestScope,
    policy=Structural(),
    executor=AsObject(),
    scope_kwargs={"user": "anonymous"},
    capture_origin=True,
    carriers=[lambda: nullcontext(), lambda: None],
)
airlock.configure(scope_cls=lambda **arguments: RequestScope(**arguments))
airlock.configure(carriers=[nullcontext, 42])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
airlock.configure(scope_cls=None, policy=None, executor=None)
airlock.configure(policy=airlock.DropAll)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
airlock.configure(executor=42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
airlock.configure(unknown=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
assert_type(airlock.get_configuration(), airlock.Configuration)
assert_type(airlock.get_configuration().capture_origin, bool)
assert_type(airlock.get_configuration().policy, airlock.Policy | None)
airlock.get_configuration().policy = None  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]

# Integrations


class Block:
    state: Literal["open", "kept", "gone"] = "open"

    @property
    def transaction(self) -> "Block":
        return self

    def when_over(self, tell: object) -> None: ...


class Database:
    def open_fates(self) -> tuple[Block, ...]:
        return ()

    def refresh(self, fates: Collection[object]) -> None: ...


def number_of(number: int) -> str:
    return str(number)


register_carrier(nullcontext)
register_fates(Database())
register_fates(Block())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
set_defaults(lambda: {"policy": airlock.DropAll()})
when_no_scope(lambda what: RequestScope() if what else None)
assert_type(run_in_context(airlock.Intent(number_of, (1,)), number_of, 1), str)
with suspend(airlock.Scope()) as nothing:
    assert_type(nothing, None)
