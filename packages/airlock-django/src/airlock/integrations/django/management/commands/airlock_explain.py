"""`manage.py airlock_explain`: says why scopes kept back what they kept back. Why was no mail sent?"""

from __future__ import annotations

import json
import shutil
import textwrap
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder

from airlock.integrations.django._explanation import (
    figures_of,
    look,
    places_of,
    reasons_of,
    size_of,
    time_of,
    why_kept,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from airlock.integrations.django._ring import Record


class Command(BaseCommand):
    help = "Says what scopes kept back, and why: why no mail was sent. Also what waits in the outbox, if there is one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("count", nargs="?", type=_positive, default=10, metavar="N", help="Of how many. 10.")
        parser.add_argument("--task", metavar="NAME", help="Only of this task. Its last name will do.")
        parser.add_argument("--json", action="store_true", help="As JSON.")

    def handle(self, *, count: int, task: str | None, **given: Any) -> None:
        found = look(task, count)
        if given["json"]:
            known = {"kept_back": found.kept_back, "sent_late": found.sent_late, "outbox": found.outbox}
            self.stdout.write(json.dumps(known, indent=2, cls=DjangoJSONEncoder))
        else:
            for record in found.kept_back or ():
                self._write_record(record)
            if found.kept_back == []:
                of_task = f" of the task {task}" if task else ""
                self._write(f"No scope has kept anything{of_task} back, as far as is remembered.")
            for hint in found.hints:
                self._write(hint)
            for alias, entries in (found.outbox or {}).items():
                self._write_outbox(alias, entries)
            if found.sent_late:
                self._write("Sent late:")
            for record in found.sent_late or ():
                self._write_record(record)
        if found.problems:
            raise CommandError("\n".join(found.problems))

    def _write_record(self, record: Record) -> None:
        self._write(f"{self.style.MIGRATE_HEADING(time_of(record['at']))}  {', '.join(places_of(record))}")
        for why, lines in reasons_of(record):
            self._write(why, 2)
            for line in lines:
                self._write(line["task"], 4)
                if line["origin"]:
                    self._write(f"enqueued at {line['origin']}", 6)
                self._write(line["ids"], 6)
        self.stdout.write("")

    def _write_outbox(self, alias: str, entries: dict[str, Any]) -> None:
        heading = self.style.MIGRATE_HEADING(f"The outbox on {alias!r}")
        self._write(f"{heading} {size_of(entries['counts'])}")
        for figure in figures_of(entries["counts"]):
            self._write(figure, 2)
        for entry in entries["newest"]:
            self._write(f"{entry['task']}, enqueued at {time_of(entry['enqueued'])}", 4)
            self._write(f"id {entry['id']}", 6)
            self._write(why_kept(entry), 6)

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
