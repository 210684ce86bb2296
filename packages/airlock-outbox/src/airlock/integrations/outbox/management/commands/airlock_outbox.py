"""`manage.py airlock_outbox`: shows what is in the outbox, and does something about it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery import current_app
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections
from django.utils import timezone

from airlock.integrations.outbox._operations import discard, retry
from airlock.integrations.outbox._pausing import REMEMBERED, pause, resume
from airlock.integrations.outbox._relay import databases, forget_old_runs
from airlock.integrations.outbox._states import FREE, PARKED
from airlock.integrations.outbox._status import Status, status
from airlock.integrations.outbox.models import Entry, PausedTask

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.db.models import Q, QuerySet


def _days(text: str) -> timedelta:
    return timedelta(days=float(text))


class Command(BaseCommand):
    help = "Shows what is in the outbox, and retries, discards or pauses it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        every: dict[str, Any] = {
            "action": "append",
            "choices": list(connections),
            "help": "Only this database. May be repeated. By default all that may have the table.",
        }
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

        action = actions.add_parser("status", help="Count the entries.")
        action.add_argument("--json", action="store_true", help="As JSON.")
        action.add_argument("--database", **every)

        action = actions.add_parser(
            "retry", help="Have a relay dispatch entries now, with as many attempts as new ones."
        )
        action.add_argument("ids", nargs="*", type=UUID, metavar="ID", help="These.")
        action.add_argument(
            "--task", help="Those of the task of this full name that are parked, or wait to be retried."
        )
        action.add_argument("--all-parked", action="store_true", help="All that are parked.")
        action.add_argument("--database", **every)

        action = actions.add_parser("discard", help="Delete entries that nobody is dispatching just now.")
        action.add_argument("ids", nargs="*", type=UUID, metavar="ID", help="These.")
        action.add_argument("--task", help="Those of the task of this full name.")
        action.add_argument("--parked", action="store_true", help="Those that are parked.")
        action.add_argument("--no-input", action="store_true", help="Do not ask.")
        action.add_argument("--database", **every)

        action = actions.add_parser(
            "purge", help="Delete what is older than need be: runs of tasks that are effective once."
        )
        action.add_argument(
            "--parked-older-than", type=_days, metavar="DAYS", help="And entries that are parked, and older than this."
        )
        action.add_argument("--no-input", action="store_true", help="Do not ask.")
        action.add_argument("--database", **every)

        for name, what in ("pause", "Do not dispatch a task any more."), ("resume", "Dispatch a task again."):
            action = actions.add_parser(name, help=what)
            action.add_argument("task", help="Its full name.")
            action.add_argument("--database", **every)

    def handle(self, *args: Any, **given: Any) -> None:
        aliases = given["database"] or databases()
        if not aliases:
            raise CommandError("No database may have the table of the outbox: see DATABASE_ROUTERS.")
        try:
            getattr(self, f"_{given['action']}")(aliases, given)
        except DatabaseError as error:
            raise CommandError(f"{type(error).__name__}: {error}\nIs the database there, and migrated?") from error

    # -- Looking -------------------------------------------------------------------------------------------------------

    def _status(self, aliases: list[str], given: dict[str, Any]) -> None:
        found = {alias: status(alias) for alias in aliases}
        if given["json"]:
            self.stdout.write(json.dumps({alias: figures.as_dict() for alias, figures in found.items()}, indent=2))
            return
        for alias, figures in found.items():
            if len(found) > 1:
                self.stdout.write(self.style.MIGRATE_HEADING(alias))
            self._write_status(alias, figures)

    def _write_status(self, alias: str, figures: Status) -> None:
        age = self._age(figures.oldest_due_seconds, "the oldest for")
        self._write_figure("due", figures.due, f"should have been dispatched by now{age}")
        self._write_figure("held", figures.held, "their scope has not ended")
        self._write_figure("in flight", figures.in_flight, "are being dispatched")
        self._write_figure("waiting", figures.waiting, "failed, and are tried again")
        age = self._age(figures.oldest_parked_seconds, "the oldest was enqueued", " ago")
        self._write_figure("parked", figures.parked, f"failed for good{age}")
        paused = ", ".join(PausedTask.objects.using(alias).order_by("task").values_list("task", flat=True))
        self._write_figure("paused", figures.paused, f"wait for: {paused}" if paused else "no task is paused")
        self._write_figure("total", figures.total)

    def _write_figure(self, name: str, figure: int, what: str = "") -> None:
        self.stdout.write(f"{name:<9} {figure:>9}  {what}".rstrip())

    def _age(self, seconds: float, before: str, after: str = "") -> str:
        return f", {before} {timedelta(seconds=round(seconds))}{after}" if seconds else ""

    # -- Retrying and discarding ---------------------------------------------------------------------------------------

    def _retry(self, aliases: list[str], given: dict[str, Any]) -> None:
        chosen = _chosen(given, PARKED if given["all_parked"] else None, "--all-parked")
        self._say_of_chosen("retried", aliases, given, {alias: retry(chosen.using(alias)) for alias in aliases})

    def _discard(self, aliases: list[str], given: dict[str, Any]) -> None:
        chosen = _chosen(given, PARKED if given["parked"] else None, "--parked")
        count = sum(chosen.using(alias).filter(FREE).count() for alias in aliases)
        if self._may_discard(count, given):
            counts = {alias: discard(chosen.using(alias)) for alias in aliases}
            self._say_of_chosen("discarded", aliases, given, counts)

    def _say_of_chosen(self, done: str, aliases: list[str], given: dict[str, Any], counts: dict[str, int]) -> None:
        count = sum(counts.values())
        self.stdout.write(f"{_entries(count)} {done}.")
        wanted = len(set(given["ids"]))
        if count < wanted:
            raise CommandError(
                f"{wanted - count} of those named could not be {done}. They are not there, or do not match the other "
                f"options, or are {_STAYS[done]} now. (Looked on {', '.join(aliases)}.)"
            )

    def _may_discard(self, count: int, given: dict[str, Any]) -> bool:
        """Ask, if there is something to ask about."""
        if not count or given["no_input"]:
            return True
        self.stdout.write(f"{_entries(count)} will never be dispatched. Discard? [y/N] ", ending="")
        self.stdout.flush()
        try:
            answer = input()
        except EOFError:
            raise CommandError("There is nobody to ask. Use --no-input.") from None
        if answer.strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was discarded.")
        return True

    def _purge(self, aliases: list[str], given: dict[str, Any]) -> None:
        runs = sum(forget_old_runs(alias) for alias in aliases)
        self.stdout.write(f"{runs} old {'run' if runs == 1 else 'runs'} forgotten.")
        if given["parked_older_than"] is None:
            return
        old = Entry.objects.filter(PARKED, created__lt=timezone.now() - given["parked_older_than"])
        count = sum(old.using(alias).count() for alias in aliases)
        if self._may_discard(count, given):
            count = sum(discard(old.using(alias)) for alias in aliases)
            self.stdout.write(f"{_entries(count)} discarded.")

    # -- Pausing -------------------------------------------------------------------------------------------------------

    def _pause(self, aliases: list[str], given: dict[str, Any]) -> None:
        task = given["task"]
        is_new = [pause(alias, task) for alias in aliases]
        if any(is_new):
            self.stdout.write(f"{task} is paused. It takes up to {REMEMBERED} seconds until all processes have heard.")
        else:
            self.stdout.write(f"{task} was paused already.")
        if task not in current_app.tasks and not any(_has_entries(alias, task) for alias in aliases):
            self.stderr.write(
                f"Note: Celery knows no task {task!r} here, and there is no entry of it. Is this its full name?"
            )

    def _resume(self, aliases: list[str], given: dict[str, Any]) -> None:
        task = given["task"]
        counts = [resume(alias, task) for alias in aliases]
        resumed = [count for count in counts if count is not None]
        if not resumed:
            raise CommandError(f"{task} is not paused. {_paused(aliases)}")
        self.stdout.write(f"{task} is dispatched again. {_entries(sum(resumed))} of it waited.")


#: What cannot be retried, and what cannot be discarded.
_STAYS = {"retried": "due, held or in flight", "discarded": "held or in flight"}


def _chosen(given: dict[str, Any], condition: Q | None, option: str) -> QuerySet[Entry]:
    """The entries that the arguments name."""
    if not (given["ids"] or given["task"] or condition):
        raise CommandError(f"Say which: by their ids, with --task, or with {option}.")
    entries = Entry.objects.all()
    if given["ids"]:
        entries = entries.filter(id__in=set(given["ids"]))
    if given["task"]:
        entries = entries.filter(task=given["task"])
    return entries if condition is None else entries.filter(condition)


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"


def _has_entries(alias: str, task: str) -> bool:
    return Entry.objects.using(alias).filter(task=task).exists()


def _paused(aliases: list[str]) -> str:
    tasks = {task for alias in aliases for task in PausedTask.objects.using(alias).values_list("task", flat=True)}
    return f"These are: {', '.join(sorted(tasks))}." if tasks else "No task is."
