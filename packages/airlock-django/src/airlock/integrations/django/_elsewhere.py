"""What the panel of the Debug Toolbar shows of other requests, commands and processes: what `airlock_explain` knows."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured

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
    from airlock.integrations.django._ring import Record

#: How good or bad it is, as the styles have it. What is not here was withheld.
_LEVELS = {"failed": "bad", "unknown": "bad", "parked": "bad", "relayed": "good"}


class Group(NamedTuple):
    """What has one reason."""

    why: str
    level: str
    #: When and where that was, if it is over.
    places: list[str]
    lines: list[dict[str, Any]]


def elsewhere(intents: list[dict[str, Any]]) -> dict[str, Any]:
    """Look it up, but for what the panel says of the intents of its own request anyway."""
    try:
        found = look()
    except ImproperlyConfigured as error:
        return {"problems": [str(error)]}
    own = {(intent["id"], event["kind"]) for intent in intents for event in intent["events"]}
    return {
        "is_remembered": found.kept_back is not None,
        "kept_back": _groups(found.kept_back or [], own),
        "hints": found.hints,
        "problems": found.problems,
        "outbox": [
            {
                "alias": alias,
                "size": size_of(entries["counts"]),
                "figures": figures_of(entries["counts"]),
                "groups": _groups_in_outbox(entries["newest"]),
            }
            for alias, entries in (found.outbox or {}).items()
        ],
        "sent_late": _groups(found.sent_late or [], own),
    }


def _groups(records: list[Record], own: set[tuple[str, str]]) -> list[Group]:
    return [
        Group(
            why,
            _LEVELS.get(lines[0]["event"], "withheld"),
            [time_of(record["at"]), *places_of(record)],
            [{**line, "parts": parts_of(line["origin"])} for line in lines],
        )
        for record in records
        for why, lines in reasons_of(record)
        if not any((known, line["event"]) in own for line in lines for known in line["known_ids"])
    ]


def _groups_in_outbox(entries: list[dict[str, Any]]) -> list[Group]:
    groups = []
    for (state, why), together in groupby(entries, lambda entry: (entry["state"], why_kept(entry))):
        lines = [
            {"task": entry["task"], "enqueued": time_of(entry["enqueued"]), "ids": f"id {entry['id']}"}
            for entry in together
        ]
        groups.append(Group(why, "bad" if state == "parked" else "open", [], lines))
    return groups


def parts_of(origin: str) -> list[str]:
    """The end of a path, in parts between which a line may break."""
    return origin.replace("\\", "/").rsplit("/", 2)[-2:]
