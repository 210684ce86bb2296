"""Policies: they decide about single intents."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Protocol

from airlock._errors import PolicyViolation, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from airlock._intent import Intent


class Policy(Protocol):
    """Judges intents one by one. Inherit from it, or just have the two methods."""

    def on_enqueue(self, intent: Intent, /) -> None:
        """Observe an intent at the `enqueue` call that makes it, or raise to refuse it there."""
        return  # for type checkers, to which a protocol's method without a body is abstract

    def allows(self, intent: Intent, /) -> bool:
        """Tell, at the flush that would dispatch it, whether it may be dispatched. Asked once for each intent."""
        ...


class AllowAll(Policy):
    """Lets everything pass: what holds when no policy is given."""

    def allows(self, intent: Intent, /) -> bool:
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class DropAll(Policy):
    """Lets nothing pass: for dry runs, backfills and imports. Intents are still recorded, so they can be looked at."""

    def allows(self, intent: Intent, /) -> bool:
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class AssertNoEffects(Policy):
    """For code that must have no effects.

    Raises:
        PolicyViolation: at the `enqueue` call that wants one.
    """

    def on_enqueue(self, intent: Intent, /) -> None:
        raise PolicyViolation(
            f"{intent.name} was enqueued where {self!r} says that nothing has effects. "
            "Move the call out of this block, or the block away from the call."
        )

    def allows(self, intent: Intent, /) -> bool:
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class BlockTasks(Policy):
    """Drops the named tasks and lets the others pass.

    Args:
        names: simple (`send_email`) or full dotted (`shop.tasks.send_email`) names.
        raise_on_enqueue: refuse them at the `enqueue` call already.

    Raises:
        PolicyViolation: at the `enqueue` call, with `raise_on_enqueue`.
    """

    def __init__(self, names: Collection[str], raise_on_enqueue: bool = False) -> None:
        self._names = _name_set(names, self)
        self._raise_on_enqueue = raise_on_enqueue

    def on_enqueue(self, intent: Intent, /) -> None:
        if self._raise_on_enqueue and not self.allows(intent):
            raise PolicyViolation(
                f"{intent.name} was enqueued where {self!r} blocks it. "
                "Enqueue it outside of this policy, or take its name from the list."
            )

    def allows(self, intent: Intent, /) -> bool:
        return intent.name not in self._names and intent.full_name not in self._names

    def __repr__(self) -> str:
        return f"{type(self).__name__}({sorted(self._names)!r}, raise_on_enqueue={self._raise_on_enqueue})"


class AllowTasks(Policy):
    """Lets the named tasks pass and drops the others.

    Args:
        names: simple (`send_email`) or full dotted (`shop.tasks.send_email`) names.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = _name_set(names, self)

    def allows(self, intent: Intent, /) -> bool:
        return intent.name in self._names or intent.full_name in self._names

    def __repr__(self) -> str:
        return f"{type(self).__name__}({sorted(self._names)!r})"


class LogOnFlush(Policy):
    """Lets everything pass, and logs each intent at INFO when its flush comes.

    Args:
        logger: where to; by default the `airlock` logger.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("airlock")

    def allows(self, intent: Intent, /) -> bool:
        self._logger.info(
            "Flushing %s (id %s, enqueued at %s)", intent.name, intent.id, intent.origin or "unknown origin"
        )
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._logger!r})"


def _name_set(names: Collection[str], policy: Policy) -> frozenset[str]:
    if isinstance(names, str):
        raise TypeError(f"{type(policy).__name__} takes a collection of names, not one string: write [{names!r}]")
    return frozenset(names)


def check_policy(policy: Policy) -> Policy:
    if isinstance(policy, type):
        raise TypeError(f"A policy is an instance, and {policy.__name__} is a class: write {policy.__name__}(...).")
    if not (hasattr(policy, "allows") and hasattr(policy, "on_enqueue")):
        raise TypeError(f"A policy has the methods on_enqueue(intent) and allows(intent), and {policy!r} has not.")
    return policy


def tell_of_enqueue(policies: tuple[Policy, ...], intent: Intent) -> None:
    """Call `on_enqueue` of each."""
    for policy in policies:
        answer: object = policy.on_enqueue(intent)  # type: ignore[func-returns-value]
        if answer is not None:
            raise _wrong_answer(policy, "on_enqueue", answer, "None")


def first_refusing(policies: tuple[Policy, ...], intent: Intent) -> Policy | None:
    """Ask each policy in turn. Returns the first that does not allow the intent."""
    for policy in policies:
        allowed = policy.allows(intent)
        if allowed is True:
            continue
        if allowed is False:
            return policy
        raise _wrong_answer(policy, "allows", allowed, "True or False")
    return None


def _wrong_answer(policy: Policy, method: str, answer: object, right: str) -> UsageError:
    if isinstance(answer, Coroutine):
        answer.close()
        return UsageError(f"{method} of {policy!r} is a coroutine function, and a policy's methods are plain ones.")
    return UsageError(f"{method} of {policy!r} returned {answer!r}. It must return {right}.")
