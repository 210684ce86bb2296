"""How: the one who carries an intent out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from airlock._intent import Intent


class Executor(Protocol):
    """Carries out one intent: any callable that takes one `Intent`.

    What it returns is ignored. What it raises ends the flush of a plain `Scope`, and is logged by a `DjangoScope`.

    An executor may also have a method `accepts(task) -> bool`. It is asked at the `enqueue` call about a task that is
    not callable; without it, only callables are taken.
    """

    def __call__(self, intent: Intent, /) -> object: ...


def check_executor(executor: Executor) -> None:
    if not callable(executor):
        raise TypeError(f"An executor is a callable that takes one intent, and {executor!r} is not callable.")
