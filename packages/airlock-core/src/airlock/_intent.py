"""The recorded wish for one effect."""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from airlock._place import judging

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airlock._place import Place
    from airlock._policies import Policy


class Details(NamedTuple):
    """What an intent has only if the `enqueue` call asked for it."""

    name: str | None = None
    origin: str | None = None
    dispatch_options: Mapping[str, Any] = MappingProxyType({})


_NO_DETAILS = Details()


class Intent:
    """One effect that code asked for: which task, with which arguments, and how to dispatch it.

    `airlock.enqueue` makes intents; policies and executors read them. They are immutable, and compared and hashed by
    identity: asking twice for the same thing makes two intents.
    """

    # One intent is made for every effect, so it holds six references at most: what all intents of one place have in
    # common lives in that place, and what hardly any intent has (a name, an origin, options) shares one slot.
    # `enqueue` fills the slots itself: calling an `__init__` would take a fifth of its time. Two may stay empty.
    __slots__ = ("_args", "_details", "_id", "_kwargs", "_place", "_task")
    _task: Any
    _args: tuple[Any, ...]
    _kwargs: dict[str, Any]
    _place: Place
    _details: Details
    _id: str

    @property
    def id(self) -> str:
        """A unique string (UUID 4), made on first use and the same ever after; Celery uses it as the task id."""
        try:
            return self._id
        except AttributeError:
            self._id = str(uuid4())
            return self._id

    @property
    def task(self) -> Any:
        """What was given to `enqueue`: a callable, a Celery task or signature, or a task name."""
        return self._task

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments for the task."""
        return self._args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """The keyword arguments for the task, read-only."""
        return MappingProxyType(self._kwargs)

    @property
    def name(self) -> str:
        """A short name for people and policies.

        The `_name` given to `enqueue`, else the last part of the task's dotted name, else the callable's `__name__`.
        """
        return self._detail.name or self.full_name.rpartition(".")[2]

    @property
    def full_name(self) -> str:
        """The task's dotted name, as registered with Celery; for any other callable its module and qualified name."""
        return full_name_of(self._task)

    @property
    def origin(self) -> str | None:
        """Where it was enqueued: the `_origin` given, or `file:line` with `capture_origin`; `None` if neither."""
        return self._detail.origin

    @property
    def dispatch_options(self) -> Mapping[str, Any]:
        """Options for the executor, read-only; empty when none were given."""
        return self._detail.dispatch_options

    @property
    def local_policies(self) -> tuple[Policy, ...]:
        """The policies of the `with airlock.policy(...)` blocks it was enqueued in, innermost first."""
        return self._place.local_policies

    def passes_local_policies(self) -> bool:
        """Ask the local policies, innermost first, whether it may be dispatched.

        Raises:
            Exception: whatever a policy's `allows` raises.
        """
        with judging(self._place):
            return all(policy.allows(self) for policy in self._place.local_policies)

    @property
    def _detail(self) -> Details:
        return getattr(self, "_details", _NO_DETAILS)

    def __str__(self) -> str:
        arguments = [repr(value) for value in self._args]
        arguments += [f"{key}={value!r}" for key, value in self._kwargs.items()]
        return f"{self.name}({', '.join(arguments)})"

    def __repr__(self) -> str:
        return (
            f"Intent(id={self.id!r}, task={self._task!r}, args={self._args!r}, kwargs={self._kwargs!r}, "
            f"name={self.name!r}, origin={self.origin!r}, dispatch_options={dict(self.dispatch_options)!r}, "
            f"local_policies={self.local_policies!r})"
        )


def full_name_of(task: Any) -> str:
    """The dotted name a task goes by."""
    if isinstance(task, str):
        return task
    name = getattr(task, "name", None)
    if isinstance(name, str):
        return name
    if isinstance(task, functools.partial):
        return full_name_of(task.func)
    named = task if hasattr(task, "__qualname__") else type(task)
    # `<locals>` is where a nested function was defined; its dots are not a path one could import or match by.
    qualname: str = named.__qualname__.rpartition("<locals>.")[2]
    module = getattr(named, "__module__", None) or "builtins"
    return f"{module}.{qualname}"
