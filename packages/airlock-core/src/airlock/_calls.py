"""Calls of tasks, as tests name them: whether one is an intent's, and if not, how it differs."""

from __future__ import annotations

import difflib
import inspect
from pprint import pformat
from typing import TYPE_CHECKING, Any, TypeAlias

from airlock._intent import full_name_of, unfolded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airlock._intent import Intent

#: Arguments by the names of their parameters; positional ones by their number, where those are not known.
Arguments: TypeAlias = dict[str | int, Any]


class Call:
    """A task, and perhaps arguments. Without any it stands for all calls of the task.

    Args:
        task: what was given to `enqueue`, or a simple or dotted name of it. A Celery signature, or a partial function,
            brings arguments of its own.
        args: positional arguments.
        kwargs: keyword arguments.

    Raises:
        TypeError: if it is no task, or if the task has no such call.
    """

    def __init__(self, task: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.task, self.args, self.kwargs = unfolded(task, args, kwargs)
        if self.task is None or isinstance(self.task, (int, float)):  # what a task returns that is called by mistake
            raise TypeError(
                f"{task!r} is no task. Give the task itself, not called yet, and then its arguments: "
                "assert_enqueued(send_email, user_id)."
            )
        self.has_arguments = bool(self.args or self.kwargs)
        if self.has_arguments:
            self._check(_signature_of(self.task))

    def is_of_same_task(self, intent: Intent) -> bool:
        """Whether an intent is a call of the task, with whatever arguments."""
        task = unfolded(intent.task, (), {})[0]
        if isinstance(self.task, str) and self.task in (intent.name, full_name_of(task), _simple_name_of(task)):
            return True
        if task == self.task:
            return True
        return _has_name(task) and _has_name(self.task) and full_name_of(task) == full_name_of(self.task)

    def is_of(self, intent: Intent) -> bool:
        """Whether an intent is this call: however the arguments were given, as positional or as keyword ones."""
        if not self.is_of_same_task(intent):
            return False
        wanted, given = self._arguments(intent)
        return not self.has_arguments or wanted == given

    def count_same_arguments(self, intent: Intent) -> int:
        """How many arguments of an intent are as in this call."""
        wanted, given = self._arguments(intent)
        return sum(key in given and value == given[key] for key, value in wanted.items())

    def diff(self, intent: Intent) -> Iterator[str]:
        """The lines of a comparison: `-` is before what this call has, `+` before what the intent has."""
        wanted, given = self._arguments(intent)
        # What is equal may look different, such as `unittest.mock.ANY`.
        wanted = {key: given[key] if key in given and value == given[key] else value for key, value in wanted.items()}
        for line in difflib.ndiff(_lines(intent.name, wanted), _lines(intent.name, given)):
            if not line.startswith("?"):
                yield line

    def _arguments(self, intent: Intent) -> tuple[Arguments, Arguments]:
        """Those of this call and those of an intent, in the same form."""
        task, args, kwargs = unfolded(intent.task, intent.args, intent.kwargs)
        signature = _signature_of(task) or _signature_of(self.task)
        try:
            return _bound(signature, self.args, self.kwargs), _bound(signature, args, kwargs)
        except TypeError:  # as for a task that takes what it does not say
            return _bound(None, self.args, self.kwargs), _bound(None, args, kwargs)

    def _check(self, signature: inspect.Signature | None) -> None:
        try:
            _bound(signature, self.args, self.kwargs)
        except TypeError as error:
            raise TypeError(
                f"{self} is no call of {_simple_name_of(self.task)}{signature}: {error}. Give all arguments; "
                "unittest.mock.ANY stands for one that does not matter. Without any arguments, any call counts."
            ) from None

    def __str__(self) -> str:
        arguments = [repr(value) for value in self.args] + [f"{key}={value!r}" for key, value in self.kwargs.items()]
        return f"{_simple_name_of(self.task)}({', '.join(arguments) if self.has_arguments else '...'})"


def _signature_of(task: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(getattr(task, "run", task))  # a Celery task is what its `run` does
    except (TypeError, ValueError):  # a name, or something built in
        return None


def _bound(signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    arguments: Arguments = {}
    if signature is None:
        arguments.update(enumerate(args))
        arguments.update(kwargs)
    else:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments.update(bound.arguments)
    return arguments


def _has_name(task: Any) -> bool:
    """Whether it is a name, or is registered by one: two objects may stand for the same task then."""
    return isinstance(task, str) or isinstance(getattr(task, "name", None), str)


def _simple_name_of(task: Any) -> str:
    return full_name_of(task).rpartition(".")[2]


def _lines(name: str, arguments: Arguments) -> list[str]:
    lines = [f"{name}("]
    for key, value in arguments.items():
        prefix = f"    {key}=" if isinstance(key, str) else "    "
        first, *others = pformat(value, width=100 - len(prefix), sort_dicts=False).splitlines()
        lines += [f"{prefix}{first}", *(" " * len(prefix) + line for line in others)]
        lines[-1] += ","
    return [*lines, ")"]
