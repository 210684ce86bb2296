"""The boundary around a management command."""

from __future__ import annotations

import functools
from contextvars import ContextVar
from types import MethodType
from typing import TYPE_CHECKING, Any

import airlock

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

    from django.core.management.base import BaseCommand

    from airlock import Intent


class airlock_command:  # noqa: N801 - a decorator
    """Run a command in a scope, and let `--dry-run` show its effects instead of causing them.

        class Command(BaseCommand):
            @airlock_command
            def handle(self, *args, **options): ...

    The command gets the option `--dry-run`, unless it defines one itself. With it nothing is dispatched, and what would
    have been is listed on the command's standard output. The command does everything else as ever; it finds the option
    in `options["dry_run"]`.

    Args:
        handle: the command's `handle` method.
    """

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
            # The command may have its own, under another name. `argparse` has no public way to ask for it.
            dry_run = parser._option_string_actions.get("--dry-run") or parser.add_argument(
                "--dry-run", action="store_true", help="List the effects instead of causing them."
            )
            command._airlock_dry_run = dry_run.dest

        command_cls.add_arguments = add_arguments if own is None else functools.wraps(own)(add_arguments)

    def __get__(self, command: Any, command_cls: Any = None) -> Any:
        return self if command is None else MethodType(self, command)

    def __call__(self, command: BaseCommand, /, *args: Any, **options: Any) -> str | None:
        dry_run = options.get(getattr(command, "_airlock_dry_run", "dry_run"))
        if not dry_run or _is_dry_run.get():  # a command that another one runs leaves the list to that
            with airlock.scope():
                return self._handle(command, *args, **options)
        noted = _Noted()
        scope = airlock.scope(executor=noted)
        scope.capturable = False  # a scope around the command would dispatch its intents
        token = _is_dry_run.set(True)
        try:
            with scope:
                output = self._handle(command, *args, **options)
        finally:
            _is_dry_run.reset(token)
        would_have_gone = [
            *noted.intents,
            *scope.undispatched_intents,
        ]  # those wait for a transaction around the command
        count = len(would_have_gone)
        command.stdout.write(f"Dry run: {count} {'effect' if count == 1 else 'effects'} would have gone out.")
        for intent in would_have_gone:
            command.stdout.write(f"  {intent}")
        return output


#: Whether a command around the running code lists its effects.
_is_dry_run: ContextVar[bool] = ContextVar("airlock_dry_run", default=False)


class _Noted:
    """The executor of a dry run: notes what every policy and every transaction has let pass."""

    def __init__(self) -> None:
        self.intents: list[Intent] = []
        self._instead_of: Any = airlock.get_configuration().executor

    def __call__(self, intent: Intent, /) -> None:
        self.intents.append(intent)

    def accepts(self, task: object) -> bool:
        accepts = getattr(self._instead_of, "accepts", None)
        return bool(accepts and accepts(task))

    def check(self, intent: Intent) -> None:
        check = getattr(self._instead_of, "check", None)
        if check is not None:
            check(intent)
