"""`manage.py airlock_explain`: says why scopes kept back what they kept back. Why was no mail sent?"""

from __future__ import annotations

import json
import shutil
import textwrap
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError
from django.utils import timezone

from airlock.integrations.django._ring import Record, Ring
from airlock.integrations.django._settings import explain_options

if TYPE_CHECKING:
    from argparse import ArgumentParser

_HOW_TO_REMEMBER = (
    'Nothing is remembered. Set AIRLOCK["EXPLAIN"] = {"CACHE": "default"}, with a cache that all processes share, '
    "and start them again."
)
_OTHER_PROCESS = (
    "The cache {!r} is a {}, so this process cannot see what others remember. Name a cache that all processes share "
    'in AIRLOCK["EXPLAIN"], such as Redis, Memcached or a database.'
)
_HOW_TO_SEE_WHERE = 'Where they were enqueued was not recorded. Set AIRLOCK["CAPTURE_ORIGIN"] = True.'
#: How much is shown of the error of an entry, in characters.
_LONGEST_ERROR = 300

_WHAT_TO_DO = {
    "parked": "nobody tries again, unless you run: manage.py airlock_outbox retry",
    "due": "should have been dispatched by now, the oldest for {}. Does a relay run?",
    "waiting": "failed, and are tried again",
    "paused": "their task is paused: manage.py airlock_outbox resume TASK",
    "held": "their scope has not ended, or their process has died",
    "in_flight": "are being dispatched",
}


class Command(BaseCommand):
    help = "Says what scopes kept back, and why: why no mail was sent. Also what waits in the outbox, if there is one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("count", nargs="?", type=_positive, default=10, metavar="N", help="Of how many. 10.")
        parser.add_argument("--task", metavar="NAME", help="Only of this task. Its last name will do.")
        parser.add_argument("--json", action="store_true", help="As JSON.")

    def handle(self, *, count: int, task: str | None, **given: Any) -> None:
        options = explain_options()
        ring = None if options is None else Ring(options.cache, options.scopes)
        remembered = None if ring is None else _chosen(_read(ring), task)[:count]
        outbox, problem = _look_at_outbox(task)
        if given["json"]:
            found = {"kept_back": remembered, "outbox": outbox}
            self.stdout.write(json.dumps(found, indent=2, cls=DjangoJSONEncoder))
        else:
            if ring is None or remembered is None:
                self._write(_HOW_TO_REMEMBER)
            else:
                self._write_records(remembered, ring, task)
            for alias, entries in (outbox or {}).items():
                self._write_outbox(alias, entries)
        if problem:
            raise CommandError(problem)

    def _write_records(self, remembered: list[Record], ring: Ring, task: str | None) -> None:
        if not remembered:
            of_task = f" of the task {task}" if task else ""
            self._write(f"No scope has kept anything{of_task} back, as far as is remembered.")
            if kind := ring.kind_of_private_cache():
                self._write(_OTHER_PROCESS.format(ring.alias, kind))
        for record in remembered:
            self._write_record(record)
        if any(line["origin"] is None for record in remembered for line in record["intents"]):
            self._write(_HOW_TO_SEE_WHERE)

    def _write_record(self, record: Record) -> None:
        at = _shown(record["at"])
        where = ", ".join(filter(None, [record["scope"], record["process"]]))
        self._write(f"{self.style.MIGRATE_HEADING(at)}  {where}")
        for why, lines in groupby(record["intents"], lambda line: line["why"]):
            self._write(why, 2)
            for line in lines:
                times = f" ({line['count']} times)" if line["count"] > 1 else ""
                self._write(f"{line['task']}{times}", 4)
                if line["origin"]:
                    self._write(f"enqueued at {line['origin']}", 6)
                more = line["count"] - len(line["ids"])
                ids = ", ".join(line["ids"]) + (f" and {more} more" if more else "")
                self._write(f"id{'s' if line['count'] > 1 else ''} {ids}", 6)
        self.stdout.write("")

    def _write_outbox(self, alias: str, entries: dict[str, Any]) -> None:
        counts = entries["counts"]
        heading = self.style.MIGRATE_HEADING(f"The outbox on {alias!r}")
        if not counts["total"]:
            self._write(f"{heading} is empty.")
            return
        self._write(f"{heading} has {counts['total']} {'entry' if counts['total'] == 1 else 'entries'}:")
        for state, what in _WHAT_TO_DO.items():
            if counts[state]:
                age = timedelta(seconds=round(counts["oldest_due_seconds"]))
                self._write(f"{counts[state]} {state.replace('_', ' ')}: {what.format(age)}", 2)
        for entry in entries["newest"]:
            self._write(f"{entry['task']}, enqueued at {_shown(entry['enqueued'])}", 4)
            self._write(f"id {entry['id']}", 6)
            self._write(_why(entry), 6)

    def _write(self, text: str, indent: int = 0) -> None:
        """Write a paragraph, as wide as the terminal. What is no terminal gets it in one line, to search in."""
        width = shutil.get_terminal_size().columns if self.stdout.isatty() else 10_000
        self.stdout.write(
            textwrap.fill(
                text,
                max(width, 40),
                initial_indent=" " * indent,
                subsequent_indent=" " * (indent + 2),
                break_long_words=False,  # ids and paths are there to be copied
                break_on_hyphens=False,
            )
        )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text} is no number from 1 on")
    return int(text)


def _read(ring: Ring) -> list[Record]:
    try:
        return ring.newest_first()
    except Exception as error:  # whatever the driver of the cache raises
        raise CommandError(f"The cache {ring.alias!r} cannot be read. {type(error).__name__}: {error}") from error


def _shown(at: datetime) -> str:
    if timezone.is_aware(at):
        at = timezone.localtime(at) if settings.USE_TZ else at.astimezone()
    return f"{at:%Y-%m-%d %H:%M:%S %Z}".rstrip()


def _why(entry: dict[str, Any]) -> str:
    """What keeps an entry in the outbox."""
    match entry["state"]:
        case "parked":
            why = "parked"
        case "waiting":
            why = f"failed, and is tried again at {_shown(entry['due'])}"
        case state:
            return str(state)
    return textwrap.shorten(f"{why}: {entry['error']}", _LONGEST_ERROR)


def _chosen(records: list[Record], task: str | None) -> list[Record]:
    """The records, with a date instead of a number, and with what is about one task alone, if one is given."""
    chosen = []
    for record in records:
        lines = [line for line in record["intents"] if task is None or _is_named(line["task"], task)]
        if lines:
            at = datetime.fromtimestamp(record["at"], UTC)
            chosen.append({"at": at, "scope": record["scope"], "process": record["process"], "intents": lines})
    return chosen


def _is_named(full_name: str, task: str) -> bool:
    return full_name == task or full_name.endswith(f".{task}")


def _look_at_outbox(task: str | None) -> tuple[dict[str, Any] | None, str]:
    """What is in the outbox, if there is one, and why nobody can say, if that is so."""
    if not apps.is_installed("airlock.integrations.outbox"):
        return None, ""
    from airlock.integrations.outbox import kept_entries, status

    try:
        kept = kept_entries(task)
        return {alias: {"counts": status(alias).as_dict(), "newest": kept[alias]} for alias in kept}, ""
    except DatabaseError as error:
        return None, f"The outbox cannot be read. {type(error).__name__}: {error}\nIs the database there, and migrated?"
