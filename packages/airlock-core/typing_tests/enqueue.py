"""`enqueue` checks arguments against the task. Every `ignore` below stands at a call that must be refused.

Read by mypy and pyright only, both of which complain about an `ignore` that is not needed.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, assert_type

import airlock


def send_email(user_id: int, subject: str = "", *, urgent: bool = False) -> bool:
    return bool(subject) and urgent and user_id > 0


def notify(*channels: str, **details: int) -> None: ...


async def send_async(user_id: int) -> None: ...


class Order:
    def __init__(self, number: int) -> None: ...

    def confirm(self, by: str) -> None: ...


class Task:
    """As task queues define them: the arguments are not known."""

    name = "shop.tasks.task"

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


class EnqueuedTask:
    """As Django has them: not callable."""

    def enqueue(self, user_id: int) -> None: ...


# What fits is accepted.

assert_type(airlock.enqueue(send_email, 1), airlock.Intent)
assert_type(airlock.enqueue(send_email, 1, "Hello", urgent=True), airlock.Intent)
assert_type(airlock.enqueue(send_email, user_id=1, subject="Hello"), airlock.Intent)
assert_type(airlock.enqueue(notify, "email", "sms", order=1), airlock.Intent)
assert_type(airlock.enqueue(send_async, 1), airlock.Intent)
assert_type(airlock.enqueue(Order, 1), airlock.Intent)
assert_type(airlock.enqueue(Order(1).confirm, by="clerk"), airlock.Intent)
assert_type(airlock.enqueue(partial(send_email, subject="Hello"), 1), airlock.Intent)
assert_type(airlock.enqueue(Task(), 1, "anything", at="all"), airlock.Intent)
assert_type(airlock.enqueue(EnqueuedTask(), 1), airlock.Intent)
assert_type(airlock.enqueue(EnqueuedTask(), 1, _dispatch_options={"priority": 7}), airlock.Intent)
assert_type(airlock.enqueue("shop.tasks.send_email", 1, "anything", at="all"), airlock.Intent)
assert_type(airlock.enqueue(lambda: None), airlock.Intent)

# What does not fit is refused.

airlock.enqueue(send_email)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
airlock.enqueue(send_email, "1")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
airlock.enqueue(send_email, 1, "Hello", True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
airlock.enqueue(send_email, 1, urgent="yes")  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
airlock.enqueue(send_email, 1, countdown=60)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
airlock.enqueue(notify, order="1")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
airlock.enqueue(EnqueuedTask(), "1")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
airlock.enqueue(send_async, "1")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
airlock.enqueue(Order, "1")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
airlock.enqueue(Order(1).confirm, 1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]

# So is what nobody could carry out.

airlock.enqueue(42)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
airlock.enqueue(None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
airlock.enqueue(task=send_email)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]

# With options for Airlock the arguments are not checked, but the options are.

assert_type(airlock.enqueue(send_email, 1, _name="hello"), airlock.Intent)
assert_type(airlock.enqueue(send_email, 1, _origin="checkout"), airlock.Intent)
assert_type(airlock.enqueue(send_email, 1, _dispatch_options={"countdown": 60}), airlock.Intent)
assert_type(
    airlock.enqueue(send_email, 1, urgent=True, _name="a", _origin="b", _dispatch_options={"queue": "c"}),
    airlock.Intent,
)
assert_type(airlock.enqueue("shop.tasks.send_email", 1, _dispatch_options={"queue": "emails"}), airlock.Intent)
assert_type(airlock.enqueue(Task(), 1, _name="hello"), airlock.Intent)
airlock.enqueue(send_email, 1, _name=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
airlock.enqueue(send_email, 1, _origin=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
airlock.enqueue(send_email, 1, _dispatch_options=60)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
airlock.enqueue(42, _name="hello")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def enqueue_with_options(name: str | None, origin: str | None, options: Mapping[str, int] | None) -> None:
    """Code that passes on options it may not have been given."""
    assert_type(airlock.enqueue(send_email, 1, _name=name), airlock.Intent)
    assert_type(airlock.enqueue(send_email, 1, _origin=origin), airlock.Intent)
    assert_type(airlock.enqueue(send_email, 1, _dispatch_options=options), airlock.Intent)
    assert_type(
        airlock.enqueue("shop.tasks.send_email", _name=name, _origin=origin, _dispatch_options=options), airlock.Intent
    )


# An intent can be read, and not written.

intent = airlock.enqueue(send_email, 1)
assert_type(intent.id, str)
assert_type(intent.args, tuple[Any, ...])
assert_type(intent.kwargs, Mapping[str, Any])
assert_type(intent.name, str)
assert_type(intent.full_name, str)
assert_type(intent.origin, str | None)
assert_type(intent.dispatch_options, Mapping[str, Any])
assert_type(intent.local_policies, tuple[airlock.Policy, ...])
assert_type(intent.passes_local_policies(), bool)
intent.task = send_email  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
intent.kwargs["user_id"] = 2  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
