"""The last times that scopes kept something back, in Django's cache: the newest takes the place of the oldest.

And in a ring of their own, the last times that a relay has sent something late.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache

#: What happened to the intents of one scope at one time. `_explain.py` says what is in it.
Record: TypeAlias = dict[str, Any]

#: The names of the two rings: what takes long to send shall not push out what is never sent.
KEPT_BACK = "airlock:explain"
SENT_LATE = "airlock:explain:late"
#: How often the counter is looked for, and put there.
_ATTEMPTS = 20
#: How long others are given meanwhile, in seconds.
_PAUSE = 0.1
#: How long a record is kept at most, in seconds: a week.
_TIMEOUT = 7 * 24 * 60 * 60


@dataclass(frozen=True)
class Ring:
    """A place for a number of records: the counter says how many there were, and so where the next one goes."""

    #: The cache, by its alias in `CACHES`.
    alias: str
    #: How many records it has room for.
    size: int
    #: `KEPT_BACK` or `SENT_LATE`.
    name: str = KEPT_BACK

    def kind_of_private_cache(self) -> str | None:
        """The class of the cache, if each process sees only what it has written itself, or nothing."""
        cache = caches[self.alias]
        return type(cache).__name__ if isinstance(cache, (LocMemCache, DummyCache)) else None

    def add(self, records: list[Record]) -> None:
        """Write records, the oldest first, with one call for the counter and one for all of them."""
        last = self._count(len(records))
        numbered = enumerate(records, last - len(records) + 1)
        caches[self.alias].set_many(
            {self._slot(number): {**record, "number": number} for number, record in numbered}, timeout=_TIMEOUT
        )

    def newest_first(self) -> list[Record]:
        """All that is there."""
        found = caches[self.alias].get_many([self._slot(number) for number in range(self.size)])
        return sorted(found.values(), key=lambda record: int(record["number"]), reverse=True)

    def _count(self, more: int) -> int:
        cache = caches[self.alias]
        for _ in range(_ATTEMPTS):
            with suppress(ValueError):  # there is none yet, or the cache has forgotten it
                return int(cache.incr(self.name, more))
            newest = self.newest_first()[:1]
            # A cache in a database that another process has locked does not take it, and does not say so.
            if not cache.add(self.name, newest[0]["number"] if newest else 0, timeout=None):
                time.sleep(_PAUSE)
        raise LookupError("It does not keep a counter.")

    def _slot(self, number: int) -> str:
        return f"{self.name}:{number % self.size}"
