"""The recorded wish for one effect."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from airlock._context import JUDGING, Judges, call_in
from airlock._policies import first_refusing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from contextvars import Context

    from airlock._fates import Fate
    from airlock._policies import Policy


#: Held while an id is made: two threads may ask for it at once.
_making_id = threading.Lock()


class Details(NamedTuple):
    """What most intents do not have, so that they share one."""

    name: str | None = None
    origin: str | None = None
    dispatch_options: Mapping[str, Any] = MappingProxyType({})
    #: What the carriers brought.
    carried: tuple[AbstractContextManager[object], ...] = ()
    #: What the executor made of it at `enqueue`.
    prepared: object = None


NO_DETAILS = Details()


class Intent:
    """One effect that code asked for: which task, with which arguments, and how to dispatch it.

    `airlock.enqueue` makes intents. Make one yourself to test a policy or an executor. You cannot change them. They are
    compared and hashed by identity: asking twice for the same thing makes two intents.

    Args:
        task: a callable, a Celery task or signature, or a task name.
        args: positional arguments for the task.
        kwargs: keyword arguments for the task.
        name: a name for people and policies, instead of the task's own.
        origin: where it was asked for.
        dispatch_options: options for the executor.
        id: the id of an intent that was enqueued before, perhaps in another process. By default a new one.

    Raises:
        TypeError: if `dispatch_options` is not a mapping.
    """

    __slots__ = (
        "__weakref__",  # listeners remember things about intents, and must not keep them
        "_args",
        "_context",
        "_details",
        "_fates",
        "_id",
        "_is_context_used",
        "_judges",
        "_kwargs",
        "_number",
        "_task",
    )
    _id: str  # not there before it is asked for

    def __init__(
        self,
        task: Any,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        origin: str | None = None,
        dispatch_options: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002 - the name of the attribute
    ) -> None:
        if id is not None:
            self._id = id
        self._task = task
        self._args = tuple(args)
        self._kwargs = {} if kwargs is None else dict(kwargs)
        self._details = details(name, origin, dispatch_options)
        # What `enqueue` knows: the order, who judges it, the context to dispatch it in, and what it hangs on.
        self._number = 0
        self._judges = Judges()
        self._context: Context | None = None
        # Whether the executor has been in the context already, in the latest attempt to dispatch it.
        self._is_context_used = False
        self._fates: tuple[Fate, ...] = ()

    @property
    def id(self) -> str:
        """A unique string (UUID 4), made on first use and the same ever after. Celery uses it as the task id."""
        if not hasattr(self, "_id"):
            with _making_id:
                if not hasattr(self, "_id"):
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
        return self._details.name or self.full_name.rpartition(".")[2]

    @property
    def full_name(self) -> str:
        """The task's dotted name, as registered with Celery. For any other callable its module and qualified name."""
        return full_name_of(self._task)

    @property
    def origin(self) -> str | None:
        """Where it was enqueued: the `_origin` given, or `file:line` with `capture_origin`. `None` if neither."""
        return self._details.origin

    @property
    def dispatch_options(self) -> Mapping[str, Any]:
        """Options for the executor, read-only. Empty when none were given."""
        return self._details.dispatch_options

    @property
    def prepared(self) -> Any:
        """What the executor's `prepare` has made of it at the `enqueue` call, until it is dispatched or dropped."""
        return self._details.prepared

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Every policy it answers to, in the order in which they are asked."""
        return self._judges.every

    @property
    def local_policies(self) -> tuple[Policy, ...]:
        """The policies of the `with airlock.policy(...)` blocks it was enqueued in, innermost first."""
        return self._judges.local

    def passes_local_policies(self) -> bool:
        """Ask the local policies, innermost first, whether it may be dispatched.

        Raises:
            Exception: whatever a policy's `allows` raises.
        """
        return call_in(JUDGING, first_refusing, self.local_policies, self) is None

    def __str__(self) -> str:
        _, args, kwargs = unfolded(self._task, self._args, self._kwargs)
        arguments = [repr(value) for value in args]
        arguments += [f"{key}={value!r}" for key, value in kwargs.items()]
        return f"{self.name}({', '.join(arguments)})"

    def __repr__(self) -> str:
        return (
            f"Intent(id={self.id!r}, task={self._task!r}, args={self._args!r}, kwargs={self._kwargs!r}, "
            f"name={self.name!r}, origin={self.origin!r}, dispatch_options={dict(self.dispatch_options)!r}, "
            f"local_policies={self.local_policies!r})"
        )


def recorded(
    task: Any, args: tuple[Any, ...], kwargs: dict[str, Any], details: Details, judges: Judges, number: int
) -> Intent:
    """Make an intent as `Intent()` does, for `enqueue`: in half the time."""
    intent = object.__new__(Intent)
    intent._task = task
    intent._args = args
    intent._kwargs = kwargs
    intent._details = details
    intent._judges = judges
    intent._number = number
    intent._fates = ()
    intent._context = None
    intent._is_context_used = False
    return intent


def forget_contexts(intents: Iterable[Intent]) -> None:
    """Free what intents that will not be dispatched, or not again, have captured."""
    for intent in intents:
        intent._context = None
        if intent._details.prepared is not None:
            intent._details = intent._details._replace(prepared=None)


def full_name_of(task: Any) -> str:
    """The dotted name a task goes by."""
    if isinstance(task, str):
        return task
    if not hasattr(task, "__qualname__"):
        # As the tasks of most queues have it: `func` in Huey and Django, as in `functools.partial`, `fn` in Dramatiq.
        for function in (getattr(task, "func", None), getattr(task, "fn", None)):
            if isinstance(function, FunctionType):
                return full_name_of(function)
    name = getattr(task, "name", None)
    if isinstance(name, str):
        return name
    if isinstance(task, functools.partial):
        return full_name_of(task.func)
    named = task if hasattr(task, "__qualname__") else type(task)
    # `<locals>` is where a nested function was defined. Its dots are not a path one could import or match by.
    qualname: str = named.__qualname__.rpartition("<locals>.")[2]
    module = getattr(named, "__module__", None) or "builtins"
    return f"{module}.{qualname}"


def unfolded(
    task: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A call with what a partial function or a Celery signature brings."""
    kwargs = dict(kwargs)
    while True:
        if isinstance(task, functools.partial):
            task, args, kwargs = task.func, (*task.args, *args), {**task.keywords, **kwargs}
        elif isinstance(task, dict) and {"task", "args", "kwargs"} <= task.keys():  # a Celery signature
            is_chain = task.get("subtask_type") == "chain"
            if task.get("immutable"):
                args, kwargs = (), {}
            task, args, kwargs = task["task"], (*args, *task["args"]), {**task["kwargs"], **kwargs}
            if is_chain and "tasks" in kwargs:  # a list or a tuple, by how it was made
                kwargs["tasks"] = list(kwargs["tasks"])
        else:
            return task, args, kwargs


def details(name: str | None, origin: str | None, dispatch_options: Mapping[str, Any] | None) -> Details:
    if name is None and origin is None and dispatch_options is None:
        return NO_DETAILS
    options = {} if dispatch_options is None else dispatch_options
    if not isinstance(options, Mapping):
        raise TypeError(f"Dispatch options are a mapping of names to values, and {options!r} is none.")
    # A copy: an intent does not change when the caller's dictionary does.
    return Details(name, origin, MappingProxyType(dict(options)))
