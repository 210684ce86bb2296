"""What the admin shows of entries: figures and a chart of the last day, and payloads to read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count
from django.db.models.functions import TruncHour
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.timesince import timesince

from airlock.integrations.outbox._recording import UnreadablePayloadError, unsigned
from airlock.integrations.outbox._states import PARKED
from airlock.integrations.outbox._status import Status, status
from airlock.integrations.outbox.models import Entry

_HOUR = timedelta(hours=1)
_HOURS = 24
#: The units of the chart, which is drawn as wide as there is room.
_WIDTH, _HEIGHT, _GAP = 720, 80, 4


@dataclass(frozen=True)
class Bar:
    """The entries that were created in one hour, and are still here. Those that are parked are at the bottom."""

    begin: datetime
    parked: int
    others: int
    x: float
    parked_y: float
    others_y: float
    width: float = _WIDTH / _HOURS - _GAP

    @property
    def end(self) -> datetime:
        """When the hour ends."""
        return self.begin + _HOUR

    @property
    def parked_height(self) -> float:
        """In the units of the chart."""
        return _HEIGHT - self.parked_y

    @property
    def others_height(self) -> float:
        """In the units of the chart."""
        return self.parked_y - self.others_y


@dataclass(frozen=True)
class Chart:
    """The entries that were created in the last day, and are still here, by the hour."""

    bars: list[Bar]
    width: int = _WIDTH
    height: int = _HEIGHT

    @property
    def marks(self) -> list[Bar]:
        """Those whose time is written below them."""
        return self.bars[:: _HOURS // 4]

    @property
    def parked(self) -> int:
        """How many entries are parked."""
        return sum(bar.parked for bar in self.bars)

    @property
    def others(self) -> int:
        """How many are not."""
        return sum(bar.others for bar in self.bars)

    @property
    def highest(self) -> int:
        """How many the highest bar stands for."""
        return max(bar.parked + bar.others for bar in self.bars)


class Overview:
    """What is shown above the list, looked up when it is.

    Args:
        alias: the database.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias

    @cached_property
    def status(self) -> Status:
        """The figures."""
        return status(self._alias)

    @cached_property
    def chart(self) -> Chart:
        """The last day."""
        return last_day(self._alias)

    @property
    def oldest_due(self) -> str:
        """For how long the oldest of those that are due has been so."""
        return _in_words(self.status.oldest_due_seconds)

    @property
    def oldest_parked(self) -> str:
        """How long ago the oldest of those that are parked was enqueued."""
        return _in_words(self.status.oldest_parked_seconds)


def _in_words(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    now = timezone.now()
    return timesince(now - timedelta(seconds=seconds), now, depth=1)


def last_day(alias: str) -> Chart:
    """Look at what was created in the last day."""
    now = timezone.now()
    first = now.replace(minute=0, second=0, microsecond=0) - (_HOURS - 1) * _HOUR
    # In UTC, as MariaDB may know no other time zones. Where those are half an hour off, so are the bars.
    hour = TruncHour("created", tzinfo=UTC if settings.USE_TZ else None)
    rows = (
        Entry.objects.using(alias)
        .filter(created__gte=first)
        .order_by()
        .annotate(hour=hour)
        .values("hour")
        .annotate(parked=Count("id", filter=PARKED), total=Count("id"))
    )
    found = {row["hour"]: (row["parked"], row["total"] - row["parked"]) for row in rows}
    hours = [first + number * _HOUR for number in range(_HOURS)]
    counts = [found.get(begin, (0, 0)) for begin in hours]
    scale = _HEIGHT / max(1, *(parked + others for parked, others in counts))
    bars = []
    for number, (begin, (parked, others)) in enumerate(zip(hours, counts, strict=True)):
        heights = _HEIGHT - parked * scale, _HEIGHT - (parked + others) * scale
        bars.append(Bar(begin, parked, others, number * _WIDTH / _HOURS, *heights))
    return Chart(bars)


def readable(entry: Entry) -> tuple[str, str]:
    """The payload of an entry as text to read, and what is wrong with it, if something is."""
    problem = ""
    try:
        text = unsigned(entry.payload)
    except UnreadablePayloadError as error:
        problem = str(error)
        text = entry.payload.rpartition(":")[0]
    try:
        stored = json.loads(text)
    except ValueError:
        return entry.payload, problem
    for publication in _publications(stored):
        try:
            publication["body"] = json.loads(publication["body"])
        except (KeyError, TypeError, ValueError):
            continue  # no JSON: YAML, say
    return json.dumps(stored, indent=2, ensure_ascii=False), problem


def _publications(stored: Any) -> list[dict[str, Any]]:
    """Those of a message. Anybody may have written this."""
    try:
        return [publication for publication in stored["message"]["publications"] if isinstance(publication, dict)]
    except (KeyError, TypeError):
        return []
