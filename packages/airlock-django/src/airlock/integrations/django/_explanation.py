"""Why something was not sent, or late, in words: for `manage.py airlock_explain`, and for the Debug Toolbar."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from airlock.integrations.django._ring import KEPT_BACK, SENT_LATE, Record, Ring
from airlock.integrations.django._settings import explain_options

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


@dataclass
class Explanation:
    """What is known. `None`: nothing is remembered, or there is no outbox."""

    kept_back: list[Record] | None = None
    sent_late: list[Record] | None = None
    #: For each database, how many entries there are, and the newest.
    outbox: dict[str, Any] | None = None
    #: What to set to know more.
    hints: list[str] = field(default_factory=list)
    #: What could not be read.
    problems: list[str] = field(default_factory=list)


def look(task: str | None = None, count: int = 10) -> Explanation:
    """Read what is remembered, and what the outbox has.

    Args:
        task: the name of a task, simple or full, to know of it alone.
        count: how many records, the newest of each kind, and how many entries of the outbox, the newest of each state.

    Raises:
        ImproperlyConfigured: if the setting cannot be used.
    """
    found = Explanation()
    _look_back(found, task, count)
    if apps.is_installed("airlock.integrations.outbox"):
        _look_at_outbox(found, task, count)
    return found


def _look_back(found: Explanation, task: str | None, count: int) -> None:
    options = explain_options()
    if options is None:
        found.hints.append(_HOW_TO_REMEMBER)
        return
    ring = Ring(options.cache, options.scopes, KEPT_BACK)
    try:
        found.kept_back = _chosen(ring.newest_first(), task)[:count]
        found.sent_late = _chosen(Ring(options.cache, options.scopes, SENT_LATE).newest_first(), task)[:count]
    except Exception as error:  # whatever the driver of the cache raises
        found.problems.append(f"The cache {options.cache!r} cannot be read. {type(error).__name__}: {error}")
        return
    kind = None if found.kept_back else ring.kind_of_private_cache()
    if kind is not None:
        found.hints.append(_OTHER_PROCESS.format(ring.alias, kind))
    # What relays and skipped runs tell of is in no scope, and has no origin.
    if any(line["origin"] is None for record in found.kept_back if record["scope"] for line in record["intents"]):
        found.hints.append(_HOW_TO_SEE_WHERE)


def _look_at_outbox(found: Explanation, task: str | None, count: int) -> None:
    from airlock.integrations.outbox import kept_entries, status

    try:
        kept = kept_entries(task, count)
        found.outbox = {alias: {"counts": status(alias).as_dict(), "newest": kept[alias]} for alias in kept}
    except DatabaseError as error:
        found.problems.append(
            f"The outbox cannot be read. {type(error).__name__}: {error}\nIs the database there, and migrated?"
        )


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


# -- In words ----------------------------------------------------------------------------------------------------------


def time_of(at: datetime) -> str:
    """A time, in the time zone of the project."""
    if timezone.is_aware(at):
        at = timezone.localtime(at) if settings.USE_TZ else at.astimezone()
    return f"{at:%Y-%m-%d %H:%M:%S %Z}".rstrip()


def places_of(record: Record) -> list[str]:
    """The scope, if there was one, and the process."""
    return list(filter(None, [record["scope"], record["process"]]))


def reasons_of(record: Record) -> list[tuple[str, list[dict[str, Any]]]]:
    """Each reason, and what it is that of."""
    return [
        (why, [_words_for(line) for line in lines])
        for why, lines in groupby(record["intents"], lambda line: line["why"])
    ]


def _words_for(line: dict[str, Any]) -> dict[str, Any]:
    count, ids = line["count"], ", ".join(line["ids"])
    more = f" and {count - len(line['ids'])} more" if count > len(line["ids"]) else ""
    return {
        "event": line["event"],
        "task": f"{line['task']} ({count} times)" if count > 1 else line["task"],
        "origin": line["origin"] or "",
        "known_ids": line["ids"],
        "ids": f"id{'s' if count > 1 else ''} {ids}{more}",
    }


def size_of(counts: dict[str, Any]) -> str:
    """How many entries a database has."""
    if not counts["total"]:
        return "is empty."
    return f"has {counts['total']} {'entry' if counts['total'] == 1 else 'entries'}:"


def figures_of(counts: dict[str, Any]) -> list[str]:
    """How many entries are in each state, and what to do about them."""
    age = timedelta(seconds=round(counts["oldest_due_seconds"]))
    return [
        f"{counts[state]} {state.replace('_', ' ')}: {what.format(age)}"
        for state, what in _WHAT_TO_DO.items()
        if counts[state]
    ]


def why_kept(entry: dict[str, Any]) -> str:
    """What keeps an entry in the outbox."""
    why, attempts, due = entry["state"], entry["attempts"], entry["due"]
    tries = f"after {attempts} {'attempt' if attempts == 1 else 'attempts'}"
    match why:
        case "parked":
            why = f"parked {tries}" if attempts else "parked"
        case "waiting":
            why = f"failed {tries}, and is tried again at {time_of(due)}"
        case "held":
            why = f"held: the relay takes it over at {time_of(due)}, if its process has died"
        case "due":
            why = f"due since {time_of(due)}"
        case "in flight":
            why = "a relay tries just now"
    if entry["is_orphan"] and entry["state"] in ("due", "in flight"):
        why += ": its process did not finish, so the relay takes it over"
    return textwrap.shorten(f"{why}: {entry['error']}" if entry["error"] else why, _LONGEST_ERROR)
