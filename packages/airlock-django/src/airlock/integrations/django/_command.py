"""The boundary around a management command."""

from __future__ import annotations

import functools
from types import MethodType
from typing import TYPE_CHECKING, Any

import airlock
from airlock import DropAll
from airlock._place import here
from airlock.integrations.django import _settings
from airlock.integrations.django._settings import make_scope

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

    from django.core.management.base import BaseCommand

    from airlock import Intent, Policy


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
            dry_run = parser._option_string_actions.get("--dry-run") or parser.add_argument(
                "--dry-run", action="store_true", help="List the effects instead of causing them."
            )
            command._airlock_dry_run = dry_run.dest  # the command may have its own, under another name

        command_cls.add_arguments = add_arguments if own is None else functools.wraps(own)(add_arguments)

    def __get__(self, command: Any, command_cls: Any = None) -> Any:
        return self if command is None else MethodType(self, command)

    def __call__(self, command: BaseCommand, /, *args: Any, **options: Any) -> str | None:
        dry_run = options.get(getattr(command, "_airlock_dry_run", "dry_run"))
        _, place = here.get()
        # A command that another one runs in its dry run leaves the list to that.
        if not dry_run or any(isinstance(policy, _DropAndNote) for policy in place.policies):
            with make_scope():
                return self._handle(command, *args, **options)
        noting = _DropAndNote()
        scope = make_scope(noting)
        scope._is_detached = True  # a scope around the command would keep the intents, and not know them dropped yet
        with scope:
            output = self._handle(command, *args, **options)
        count = len(noting.noted)
        command.stdout.write(f"Dry run: {count} {'effect' if count == 1 else 'effects'} would have gone out.")
        for intent in noting.noted:
            command.stdout.write(f"  {intent}")
        return output


class _DropAndNote(DropAll):
    """Drops everything, and notes what every other policy in force would let pass."""

    def __init__(self) -> None:
        configured: Policy | None = _settings.get("POLICY")
        #: What it stands in for.
        self._configured = airlock.get_configuration().policy if configured is None else configured
        self.noted: list[Intent] = []

    def on_enqueue(self, intent: Intent, /) -> None:
        if self._configured is not None:
            self._configured.on_enqueue(intent)

    def allows(self, intent: Intent, /) -> bool:
        # Those before it have let the intent pass. Those behind it, of scopes around, will not be asked any more.
        policies = intent._place.policies
        behind = policies[next(n for n, policy in enumerate(policies) if policy is self) + 1 :]
        configured = () if self._configured is None else (self._configured,)
        if all(policy.allows(intent) for policy in (*configured, *behind)):
            self.noted.append(intent)
        return False
