"""The options of the outbox: `AIRLOCK["OUTBOX"]`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Options:
    """What can be set, with its defaults. In the setting, the names are written in capitals."""

    #: How long an entry waits for the scope it was enqueued in, if nobody hears of that any more.
    hold_seconds: float = 300
    #: What becomes of an entry whose scope nobody hears of any more: its process has died.
    orphans: Literal["dispatch", "park"] = "dispatch"
    #: How long a request waits for the broker at most. 0: not at all, the relay dispatches everything.
    fast_path_seconds: float = 1
    #: How long requests leave a broker alone that has failed.
    breaker_seconds: float = 10
    #: How long a relay may take for a batch before others take it over.
    lease_seconds: float = 60
    #: How many entries a relay takes at a time.
    batch_size: int = 500
    #: How often a relay tries to dispatch an entry before it parks it.
    max_attempts: int = 10
    #: How long it waits after the first failure of an entry. The wait doubles with each further one...
    backoff_seconds: float = 2
    #: ... up to this.
    max_backoff_seconds: float = 600
    #: How long an idle relay sleeps before it looks again.
    poll_seconds: float = 1
    #: How long the outbox remembers which runs of `OnceTask` were effective.
    inbox_days: float = 30
    #: Whether relays on PostgreSQL are woken by NOTIFY.
    notify: bool = False


_DEFAULTS = Options()
_latest: tuple[Mapping[str, Any], Options] = {}, _DEFAULTS


def options() -> Options:
    """The options in force.

    Raises:
        ImproperlyConfigured: if the setting cannot be used.
    """
    global _latest
    given = getattr(settings, "AIRLOCK", {}).get("OUTBOX", {})
    seen, values = _latest
    if given != seen:
        for problem, hint in problems(given):
            raise ImproperlyConfigured(f"{problem} {hint}")
        values = Options(**{key.lower(): value for key, value in given.items()})
        _latest = dict(given), values
    return values


def problems(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What makes the setting unusable: each problem, and a hint."""
    known = {field.name.upper(): field.default for field in fields(Options)}
    found = []
    for key, value in given.items():
        if key not in known:
            found.append((f"AIRLOCK['OUTBOX'] has the unknown key {key!r}.", f"The keys are {', '.join(known)}."))
        elif not _is_right(key, value, known[key]):
            found.append((f"AIRLOCK['OUTBOX'][{key!r}] is {value!r}.", f"Make it {_right(key, known[key])}."))
    return found


#: What the column takes, with some to spare.
_MOST_ATTEMPTS = 30_000
#: Those that may be zero.
_MAY_BE_ZERO = {"FAST_PATH_SECONDS"}


def _is_right(key: str, value: Any, default: object) -> bool:
    if key == "ORPHANS":
        return value in ("dispatch", "park")
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    kinds = int if key in ("BATCH_SIZE", "MAX_ATTEMPTS") else (int, float)
    largest = _MOST_ATTEMPTS if key == "MAX_ATTEMPTS" else sys.float_info.max
    return isinstance(value, kinds) and (0 < value <= largest or (value == 0 and key in _MAY_BE_ZERO))


def _right(key: str, default: object) -> str:
    if key == "ORPHANS":
        return '"dispatch" or "park"'
    if isinstance(default, bool):
        return "True or False"
    if key == "MAX_ATTEMPTS":
        return f"a positive whole number up to {_MOST_ATTEMPTS}, such as {default}"
    return f"a positive number, such as {default}"
