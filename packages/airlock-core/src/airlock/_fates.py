"""Transactions that intents hang on. Somebody else decides what becomes of them.

Airlock itself knows no database. An integration registers a source, which tells at each `enqueue` what is open there.
Every scope that dispatches respects what becomes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from airlock._intent import Intent

#: Not decided yet, committed, or rolled back.
State: TypeAlias = Literal["open", "kept", "gone"]


class Transaction(Protocol):
    """What a fate is decided with: a whole transaction, with all its savepoints."""

    @property
    def state(self) -> State:
        """As it is now, as far as the source knows."""
        ...

    def when_over(self, tell: Callable[[], None], /) -> None:
        """Call `tell()` when it is over; at once, if it is.

        It must be called in time if the transaction commits. It may come late, or never, if that is rolled back.
        """


class Fate(Protocol):
    """What an intent hangs on: an open transaction, or a savepoint in one.

    It may have a `description`, a string that says which to people.
    """

    @property
    def state(self) -> State:
        """As it was when the source was last asked to `refresh` it, or later."""
        ...

    @property
    def transaction(self) -> Transaction:
        """The transaction that this is part of. It may be the fate itself."""
        ...


class FateSource(Protocol):
    """Knows which transactions are open, and what became of those that were."""

    def open_fates(self) -> tuple[Fate, ...]:
        """What is open where the running code is, and would undo its work if it were rolled back.

        Raises:
            UsageError: if that cannot be known.
        """
        ...

    def refresh(self, fates: Collection[Fate], /) -> None:
        """Bring the state of these fates up to date. Those of other sources may be among them."""


sources: list[FateSource] = []


def register_fates(source: FateSource) -> None:
    """Have every intent that is enqueued from now on hang on what this source says is open.

    Args:
        source: asked at each `enqueue`, and when a scope dispatches.
    """
    sources.append(source)


def open_fates() -> tuple[Fate, ...]:
    """What is open where the running code is, on all sources.

    Raises:
        UsageError: if that cannot be known.
    """
    found: tuple[Fate, ...] = ()
    for source in sources:
        found += source.open_fates()
    return found


def refresh(intents: Iterable[Intent], *fates: Fate) -> None:
    """Find out at once what became of everything that the intents hang on."""
    refresh_fates({*fates, *(fate for intent in intents for fate in intent._fates)})


def refresh_fates(fates: Collection[Fate]) -> None:
    """Bring the state of fates up to date."""
    if fates:
        for source in sources:
            source.refresh(fates)


def is_gone(intent: Intent) -> bool:
    return any(fate.state == "gone" for fate in intent._fates)


def why_gone(intent: Intent, *others: Fate) -> str:
    """What an intent was rolled back with."""
    gone = next(fate for fate in (*intent._fates, *others) if fate.state == "gone")
    return f"rolled back with {getattr(gone, 'description', 'their transaction')}"
