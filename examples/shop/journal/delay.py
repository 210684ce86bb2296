"""What `.delay()` would have done, had it been called in the place of `airlock.enqueue()`.

`.delay()` sends its message at once: whatever becomes of the request and its transaction, and before anybody knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from journal.models import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from journal.models import RecordedIntent

#: What each message tells the worker to do.
ORDERS = {
    "send_confirmation": "mail the customer",
    "notify_warehouse": "have the order packed",
    "update_analytics": "count the sale",
}


class Comparison(NamedTuple):
    #: `wrong`, `too early`, `failed` or `the same`.
    verdict: str
    text: str


def compare(intents: Iterable[RecordedIntent]) -> list[Comparison]:
    """Say what `.delay()` would have done. Intents with the same difference share one sentence."""
    groups: dict[tuple[str, str], list[str]] = {}
    for intent in intents:
        orders = groups.setdefault(difference(intent), [])
        order = ORDERS.get(intent.name, f"run {intent.name}")
        if order not in orders:
            orders.append(order)
    return [Comparison(verdict, sentence.format(listed(orders))) for (verdict, sentence), orders in groups.items()]


def listed(things: list[str]) -> str:
    """Join with commas and a last "and"."""
    *others, last = things
    return f"{', '.join(others)} and {last}" if others else last


def difference(intent: RecordedIntent) -> tuple[str, str]:
    """The verdict, and a sentence with a gap for what the worker is told to do."""
    told = "The worker would have been told to {}"
    scope = intent.scope
    match intent.outcome:
        case Outcome.ROLLED_BACK:
            return "wrong", f"{told}, for an order that was rolled back."
        case Outcome.DISCARDED if scope.task_id:
            return "wrong", f"{told}, by a run that did not succeed."
        case Outcome.DISCARDED if scope.status is None:
            return "wrong", f"{told}, by a command that failed."
        case Outcome.DISCARDED if scope.status < 500:
            return "wrong", f"{told}, for an order that was refused (status {scope.status})."
        case Outcome.DISCARDED:
            return "wrong", f"{told}, for an order that ended in a crash (status {scope.status})."
        case Outcome.DROPPED:
            return "wrong", f"{told}, although a policy forbids it."
        case Outcome.LEFT_TO_RELAY:
            return "failed", f"{told} before the order was committed. Without a broker, the checkout would have failed."
        case Outcome.FAILED:
            return "failed", "The same error would have stopped the code at this line."
        case _ if intent.in_transaction:
            return "too early", f"{told} before the order was committed. A fast worker finds no order yet."
        case _:
            return "the same", "The worker would also have been told to {}, only a moment earlier."
