"""The boundary around a management command."""

from __future__ import annotations

import functools
from contextvars import ContextVar
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import airlock
from airlock import DropAll

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

    from django.core.management.base import BaseCommand

    from airlock import Intent


_HandleT = TypeVar("_HandleT", bound="Callable[..., str | None]")


def airlock_command(handle: _HandleT) -> _HandleT:
    """Run a command in a scope, and let `--dry-run` show its effects instead of causing them.

        class Command(BaseCommand):
            @airlock_command
            def handle(self, *args, **options): ...

    The command gets the option `--dry-run`, unless it defines one itself. With it nothing is dispatched, and what would
    have been is listed on the command's standard output. The command does everything else as ever; it finds the option
    in `options["dry_run"]`.

    Put it outermost if `handle` has several decorators.

    Args:
        handle: the command's `handle` method.
    """
    return cast("_HandleT", _HandleInScope(handle))


class _HandleInScope:
    """The attribute `handle` of a command: a method that runs in a scope."""

    def __init__(self, handle: Callable[..., str | None]) -> None:
        functools.update_wrapper(self, handle)
        self._handle = handle

    def __set_name__(self, command_cls: Any, name: str) -> None:
        own = vars(command_cls).get("add_arguments")

        def add_arguments(command: Any, parser: ArgumentParser) -> None:
            if own is None:
                inherited: Any = super(command_cls, command)
                inherited.add_arguments(parser)
            else:
                own(command, parser)
            # The command may have its own, under another name, and `argparse` has no public way to ask for that.
            of_command = parser._option_string_actions.get("--dry-run")  # noqa: SLF001
            dry_run = of_command or parser.add_argument(
                "--dry-run", action="store_true", help="List the effects instead of causing them."
            )
            command.airlock_dry_run = dry_run.dest

        command_cls.add_arguments = add_arguments if own is None else functools.wraps(own)(add_arguments)

    def __get__(self, command: Any, command_cls: Any = None) -> Any:
        return self if command is None else MethodType(self, command)

    def __call__(self, command: BaseCommand, /, *args: Any, **options: Any) -> str | None:
        dry_run = options.get(getattr(command, "airlock_dry_run", "dry_run"))
        if not dry_run or _is_dry_run.get():  # a command that another one runs leaves the list to that
            with airlock.scope():
                return self._handle(command, *args, **options)
        noting = _DropAndNote()
        scope = airlock.scope()
        scope.capturable = False  # so that the intents are judged now, and not when a scope around the command ends
        token = _is_dry_run.set(True)
        try:
            with scope, airlock.policy(noting):
                output = self._handle(command, *args, **options)
        finally:
            _is_dry_run.reset(token)
        count = len(noting.noted)
        command.stdout.write(f"Dry run: {count} {'effect' if count == 1 else 'effects'} would have gone out.")
        for intent in noting.noted:
            command.stdout.write(f"  {intent}")
        return output


#: Whether a command around the running code lists its effects.
_is_dry_run: ContextVar[bool] = ContextVar("airlock_dry_run", default=False)


class _DropAndNote(DropAll):
    """Drops everything, and notes what every other policy in force lets pass."""

    def __init__(self) -> None:
        self.noted: list[Intent] = []

    def allows(self, intent: Intent, /) -> bool:
        # The policies before this one have allowed it. Those behind it will not be asked any more.
        policies = intent.policies
        behind = policies[next(n for n, policy in enumerate(policies) if policy is self) + 1 :]
        if all(policy.allows(intent) for policy in behind):
            self.noted.append(intent)
        return False

    def __repr__(self) -> str:
        return "a dry run"
