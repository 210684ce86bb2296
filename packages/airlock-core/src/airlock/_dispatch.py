"""How the intents of a flushed scope reach the executor, and an account of what became of each."""

from __future__ import annotations

from itertools import chain, repeat
from time import time_ns
from typing import TYPE_CHECKING, Any

from airlock import _context, _events, _fates
from airlock._context import JUDGING, call_in
from airlock._events import Event, tell
from airlock._executors import OutcomeUnknown, carry_out, carry_out_many, forget, interrupts
from airlock._policies import first_refusing
from airlock._trace import where

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airlock._executors import Outcome
    from airlock._fates import Fate, Transaction
    from airlock._intent import Intent
    from airlock._policies import Policy
    from airlock._scope import Scope

_NOT_TRIED = "not tried: one before it failed"

# What is kept of failures: not their tracebacks, which refer to the scope and all that was around the flush.
_FAILED = Exception()
_UNKNOWN = OutcomeUnknown(_FAILED)


class Dispatch:
    """What one scope dispatches itself, because no enclosing scope captures it."""

    def __init__(self, scope: Scope, intents: Sequence[Intent]) -> None:
        # Not the scope itself, which refers to this.
        self._scope_class, self._scope_number = type(scope), scope._number
        self._executor = scope._executor
        self._is_logged = scope._is_logged
        self._on_error = scope.dispatch_errors
        self._is_transactional = scope.transactional
        self._forks = _context.forks
        #: What is to be dispatched, without what was rolled back by then or dropped by a policy.
        self.due = intents
        self._attempts: list[_Attempt] = []
        self._rolled_back: list[Intent] = []
        self._waiting: list[_Waiting] = []

    @property
    def dispatched(self) -> list[Intent]:
        dispatched: list[Intent] = []
        for attempt in self._attempts:
            dispatched += attempt.dispatched()
        return dispatched

    @property
    def unknown(self) -> list[Intent]:
        # A later attempt that failed does not tell what became of an earlier one.
        unknown = dict.fromkeys(intent for attempt in self._attempts for intent in attempt.unknown())
        dispatched = set(self.dispatched) if unknown else ()
        return [intent for intent in unknown if intent not in dispatched]

    @property
    def rolled_back(self) -> list[Intent]:
        # Before the others: those that hear of a rollback just now end their wait.
        still_waiting = [intent for waiting in list(self._waiting) for intent in waiting.rolled_back]
        return [*self._rolled_back, *still_waiting]

    @property
    def undispatched(self) -> list[Intent]:
        settled = {*self.dispatched, *self.rolled_back}
        return [intent for intent in self.due if intent not in settled]

    # -- First: which of them may go ---------------------------------------------------------------------------------

    def allowed(self) -> Sequence[Intent]:
        """Those that were not rolled back, and that every policy allows."""
        if _fates.sources:
            _fates.refresh(self.due)
            self._rolled_back = [intent for intent in self.due if _fates.is_gone(intent)]
            self.due = [intent for intent in self.due if not _fates.is_gone(intent)]
        dropped: dict[Intent, Policy] = {}
        try:
            for intent in [intent for intent in self.due if intent._judges.every]:
                refusing = call_in(JUDGING, first_refusing, intent._judges.every, intent)
                if refusing is not None:
                    dropped[intent] = refusing
        finally:  # also if a policy raises
            self.due = self._without(dropped)
        return self.due

    def _without(self, dropped: dict[Intent, Policy]) -> Sequence[Intent]:
        """What is left to dispatch, when all were told of what will not be."""
        if not (dropped or self._rolled_back):
            return self.due
        forget(self._executor, self._rolled_back, rolled_back=True)
        forget(self._executor, list(dropped))
        tell(
            [
                *self._events_of_rollback(self._rolled_back),
                *(
                    Event("dropped", intent, self._scope_label(), f"dropped by {policy!r}", policy)
                    for intent, policy in dropped.items()
                ),
            ]
        )
        return [intent for intent in self.due if intent not in dropped]

    def _events_of_rollback(self, intents: Iterable[Intent], *others: Fate) -> list[Event]:
        label = self._scope_label()
        return [Event("rolled_back", intent, label, _fates.why_gone(intent, *others)) for intent in intents]

    def _scope_label(self) -> str:
        return f"{self._scope_class.__name__} {self._scope_number}"

    # -- Then: when -------------------------------------------------------------------------------------------------

    def dispatch(self, intents: Sequence[Intent]) -> None:
        """Carry the intents out: those that hang on open transactions when these are over."""
        if self._waiting:  # somebody tries again what is owed
            waiting_already = {intent for waiting in self._waiting for intent in waiting.intents}
            intents = [intent for intent in intents if intent not in waiting_already]
        if not _fates.sources:
            self._carry_out(intents)
            return
        open_now = _fates.open_fates() if self._is_transactional else ()
        _fates.refresh(intents)
        batches: dict[tuple[Transaction, ...], list[Intent]] = {}
        for intent in intents:
            pending = [fate.transaction for fate in (*intent._fates, *open_now) if fate.state == "open"]
            batches.setdefault(tuple(dict.fromkeys(pending)), []).append(intent)
        ready = batches.pop((), [])
        for transactions, batch in batches.items():
            waiting = _Waiting(self, batch, transactions, open_now)
            self._waiting.append(waiting)
            waiting.proceed()
        self.dispatch_settled(ready, {intent for intent in ready if _fates.is_gone(intent)})

    def dispatch_settled(
        self, intents: list[Intent], rolled_back: set[Intent], open_at_flush: tuple[Fate, ...] = ()
    ) -> None:
        """Carry out what hangs on no open transaction any more, but for what was rolled back."""
        gone = [intent for intent in intents if intent in rolled_back]
        forget(self._executor, gone, rolled_back=True)
        self._rolled_back += gone
        tell(self._events_of_rollback(gone, *open_at_flush))
        self._carry_out([intent for intent in intents if intent not in rolled_back])

    def end_waiting(self, waiting: _Waiting) -> None:
        self._waiting.remove(waiting)

    # -- At last: the executor ----------------------------------------------------------------------------------------

    def _carry_out(self, intents: Sequence[Intent]) -> None:
        attempt = _Attempt(intents)
        self._attempts.append(attempt)
        if self._is_logged or _events.listeners:
            attempt.began = time_ns()
        try:
            self._try(attempt)
        except BaseException as interruption:
            attempt.lose(interruption)
            self._tell_of_dispatched(attempt)
            self._report(attempt, is_interrupted=True)
            raise
        if attempt.began:
            self._tell_of_dispatched(attempt)
        if attempt.has_failures():
            self._report(attempt)

    def _tell_of_dispatched(self, attempt: _Attempt) -> None:
        if attempt.began and not getattr(self._executor, "tells_of_dispatched", False):
            label, began = self._scope_label(), attempt.began
            events = [  # without a keyword, which would take half as long again
                Event("dispatched", intent, label, None, None, None, False, began) for intent in attempt.dispatched()
            ]
            tell(events, is_logged=self._is_logged)

    def _try(self, attempt: _Attempt) -> None:
        """Have the executor carry out the intents, up to a failure that stops it."""
        intents, outcomes = attempt.intents, attempt.outcomes
        if hasattr(self._executor, "dispatch_many"):
            while len(outcomes) < len(intents):
                begin = len(outcomes)
                attempt.handed = len(intents)
                carry_out_many(self._executor, intents[begin:], outcomes)
                attempt.handed = len(outcomes)
                if self._stops_after(outcomes[begin:]) or _context.forks != self._forks:
                    return
            return
        for intent in intents:
            if _context.forks != self._forks:
                return  # an executor has forked: the others are the parent's
            attempt.handed += 1
            carry_out(self._executor, intent, outcomes)
            if outcomes[-1] is not None and self._on_error == "stop":
                return

    def _stops_after(self, outcomes: list[Outcome]) -> bool:
        errors = [_error_of(outcome) for outcome in outcomes if outcome is not None]
        return bool(errors) and (self._on_error == "stop" or any(map(interrupts, errors)))

    def _report(self, attempt: _Attempt, *, is_interrupted: bool = False) -> None:
        """Tell of what failed, and raise it, as the scope wants."""
        failed = attempt.take_failures()
        unknown = set(self.unknown)
        untried = attempt.intents[len(attempt.outcomes) :] if _context.forks == self._forks else []
        about: dict[str, Any] = {"scope": self._scope_label(), "began": attempt.began}
        try:
            tell(
                [
                    Event(
                        "unknown" if intent in unknown else "failed",
                        intent,
                        reason=repr(error),
                        error=error,
                        is_handled=self._is_handled(error, failed),
                        **about,
                    )
                    for intent, error in failed.items()
                ]
                # What stopped them is raised.
                + [Event("failed", intent, reason=_NOT_TRIED, is_handled=True, **about) for intent in untried]
            )
            if _interruptions(failed) or (self._on_error != "log" and not is_interrupted):
                raise self._explained(failed)
        finally:
            failed.clear()  # the traceback of the error refers to this frame

    def _is_handled(self, error: BaseException, failures: dict[Intent, BaseException]) -> bool:
        """Whether who gets what is raised hears of a failure by that, so that the log need not say it."""
        if self._on_error == "raise":  # the first of them, unless there is an interruption, which says nothing of them
            return not _interruptions(failures) and error is next(iter(failures.values()))
        return self._on_error == "stop"

    def _explained(self, failures: dict[Intent, BaseException]) -> BaseException:
        # What interrupts, such as Ctrl-C, must not get lost behind what merely failed before it.
        intent, error = next(iter((_interruptions(failures) or failures).items()))
        error.add_note(f"This happened while dispatching {intent.name} (id {intent.id}), enqueued at {where(intent)}.")
        if len(failures) > 1:
            error.add_note(f"With it failed {len(failures) - 1} more: see undispatched_intents.")
        if not failures.keys().isdisjoint(self.unknown):
            error.add_note(
                "Nobody can tell whether those in unknown_intents were dispatched: "
                "to dispatch them again may have their effects twice."
            )
        return error


class _Attempt:
    """Intents that go to the executor, and what became of them so far. An interruption leaves it right."""

    __slots__ = ("began", "handed", "intents", "outcomes")

    def __init__(self, intents: Sequence[Intent]) -> None:
        self.intents = list(intents)
        #: When, in nanoseconds since the epoch, if anybody wants to know.
        self.began: int | None = None
        #: How many of them the executor was given. Counted before it is called.
        self.handed = 0
        #: What became of them, in the same order. It may be shorter: the others are in the executor's hands.
        self.outcomes: list[Outcome] = []

    def has_failures(self) -> bool:
        return self.outcomes.count(None) < len(self.outcomes)

    def dispatched(self) -> list[Intent]:
        if not self.has_failures():
            return self.intents[: len(self.outcomes)]
        return [intent for intent, outcome in zip(self.intents, self.outcomes, strict=False) if outcome is None]

    def unknown(self) -> list[Intent]:
        outcomes = chain(self.outcomes, repeat(_UNKNOWN))
        handed = zip(self.intents[: self.handed], outcomes, strict=False)
        return [intent for intent, outcome in handed if isinstance(outcome, OutcomeUnknown)]

    def lose(self, interruption: BaseException) -> None:
        """Nobody can tell what became of the intents in the executor's hands."""
        self.outcomes += [OutcomeUnknown(interruption)] * (self.handed - len(self.outcomes))

    def take_failures(self) -> dict[Intent, BaseException]:
        """The errors, which are not kept here."""
        failed = {
            intent: _error_of(outcome)
            for intent, outcome in zip(self.intents, self.outcomes, strict=False)
            if outcome is not None
        }
        self.outcomes[:] = [_without_error(outcome) for outcome in self.outcomes]
        for intent in failed:
            intent._is_context_used = False  # if it is tried again, then in its context again
        return failed


class _Waiting:
    """Intents that wait for transactions to end."""

    def __init__(
        self,
        dispatch: Dispatch,
        intents: list[Intent],
        transactions: tuple[Transaction, ...],
        open_at_flush: tuple[Fate, ...],
    ) -> None:
        self._dispatch = dispatch
        self.intents = intents
        self._transactions = transactions
        self._open_at_flush = open_at_flush
        self._forks = _context.forks

    def proceed(self) -> None:
        """Wait for the next of the transactions, or dispatch what is left."""
        if _context.forks != self._forks:
            return  # a forked child dispatches nothing of its parent's
        for transaction in self._transactions:
            if transaction.state == "open":
                transaction.when_over(self.proceed)
                return
        rolled_back = set(self.rolled_back)
        intents, self.intents = self.intents, []
        self._dispatch.end_waiting(self)  # they refer to each other
        self._dispatch.dispatch_settled(intents, rolled_back, self._open_at_flush)

    @property
    def rolled_back(self) -> list[Intent]:
        _fates.refresh(self.intents, *self._open_at_flush)
        if any(fate.state == "gone" for fate in self._open_at_flush):
            return self.intents
        return [intent for intent in self.intents if _fates.is_gone(intent)]


def _error_of(outcome: BaseException | OutcomeUnknown) -> BaseException:
    return outcome.error if isinstance(outcome, OutcomeUnknown) else outcome


def _without_error(outcome: Outcome) -> Outcome:
    if outcome is None:
        return None
    return _UNKNOWN if isinstance(outcome, OutcomeUnknown) else _FAILED


def _interruptions(failures: dict[Intent, BaseException]) -> dict[Intent, BaseException]:
    return {intent: error for intent, error in failures.items() if interrupts(error)}
