"""How the intents of a flushed scope reach the executor, and an account of what became of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airlock import _context, _fates
from airlock._context import JUDGING, call_in
from airlock._executors import OutcomeUnknown, dispatch_one, outcomes_of
from airlock._intent import forget_contexts
from airlock._policies import first_refusing
from airlock._trace import tell_failed, tell_not_dispatched, where

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airlock._executors import Outcome
    from airlock._fates import Fate, Transaction
    from airlock._intent import Intent
    from airlock._scope import Scope

_ROLLED_BACK = "rolled back with their transaction"


class Dispatch:
    """What one scope dispatches itself, because no enclosing scope captures it."""

    def __init__(self, scope: Scope, intents: Sequence[Intent]) -> None:
        # Not the scope itself, which refers to this.
        self._scope_name = type(scope).__name__
        self._executor = scope._executor
        self._on_error = scope.dispatch_errors
        self._is_transactional = scope.transactional
        self._forks = _context.forks
        #: What is to be dispatched, without what was rolled back by then or dropped by a policy.
        self.due = intents
        self.dispatched: list[Intent] = []
        self.unknown: list[Intent] = []
        self._rolled_back: list[Intent] = []
        self._waiting: list[_Waiting] = []

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
        missing: dict[str, list[Intent]] = {}
        if _fates.sources:
            _fates.refresh(self.due)
            missing[_ROLLED_BACK] = self._rolled_back = [intent for intent in self.due if _fates.is_gone(intent)]
            self.due = [intent for intent in self.due if not _fates.is_gone(intent)]
        try:
            for intent in [intent for intent in self.due if intent._judges.every]:
                refusing = call_in(JUDGING, first_refusing, intent._judges.every, intent)
                if refusing is not None:
                    missing.setdefault(f"dropped by {refusing!r}", []).append(intent)
        finally:  # also if a policy raises
            if any(missing.values()):
                self.due = self._without(missing)
        return self.due

    def _without(self, missing: dict[str, list[Intent]]) -> list[Intent]:
        """What is left to dispatch, when the log was told what will not be."""
        not_due = {intent for intents in missing.values() for intent in intents}
        forget_contexts(not_due)
        tell_not_dispatched(self._scope_name, missing)
        return [intent for intent in self.due if intent not in not_due]

    # -- Then: when -------------------------------------------------------------------------------------------------

    def dispatch(self, intents: Sequence[Intent]) -> None:
        """Carry the intents out: those that hang on open transactions when these are over."""
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

    def dispatch_settled(self, intents: list[Intent], rolled_back: set[Intent]) -> None:
        """Carry out what hangs on no open transaction any more, but for what was rolled back."""
        gone = [intent for intent in intents if intent in rolled_back]
        forget_contexts(gone)
        self._rolled_back += gone
        tell_not_dispatched(self._scope_name, {_ROLLED_BACK: gone})
        self._carry_out([intent for intent in intents if intent not in rolled_back])

    def end_waiting(self, waiting: _Waiting) -> None:
        self._waiting.remove(waiting)

    # -- At last: the executor ----------------------------------------------------------------------------------------

    def _carry_out(self, intents: Sequence[Intent]) -> None:
        failed: dict[Intent, BaseException] = {}
        try:
            self._try(intents, failed)
        finally:
            # After all were tried: a handler of the log may fail, too.
            if self._on_error != "stop":
                unknown = set(self.unknown)
                for intent, error in failed.items():
                    tell_failed(intent, error, intent in unknown)
        if failed and (self._on_error != "log" or _interruptions(failed)):
            try:
                raise self._explained(failed)
            finally:
                failed.clear()  # the traceback of the error refers to this frame

    def _try(self, intents: Sequence[Intent], failed: dict[Intent, BaseException]) -> None:
        """Have the executor carry out the intents, up to a failure that stops it."""
        together = len(intents) > 1 and hasattr(self._executor, "dispatch_many")
        begin = 0
        while together and begin < len(intents):
            tried = intents[begin:]
            outcomes = outcomes_of(self._executor, tried)
            begin += len(outcomes)
            stops = self._stops_at(self._note(tried, outcomes, failed))
            del outcomes  # the traceback of an error refers to this frame
            if stops or _context.forks != self._forks:
                return
        for intent in intents[begin:]:
            if _context.forks != self._forks:
                return  # an executor has forked: the others are the parent's
            outcome = dispatch_one(self._executor, intent)
            if outcome is None:
                self.dispatched.append(intent)
                continue
            stops = self._stops_at(self._note([intent], [outcome], failed))
            del outcome
            if stops:
                return

    def _note(
        self, tried: Sequence[Intent], outcomes: Sequence[Outcome], failed: dict[Intent, BaseException]
    ) -> dict[Intent, BaseException]:
        """Keep account. Returns those that have failed."""
        failures: dict[Intent, BaseException] = {}
        for intent, outcome in zip(tried, outcomes, strict=False):
            if outcome is None:
                self.dispatched.append(intent)
                intent._context = None
            elif isinstance(outcome, OutcomeUnknown):
                self.unknown.append(intent)
                failures[intent] = outcome.error
            else:
                failures[intent] = outcome
        failed |= failures
        return failures

    def _stops_at(self, failures: dict[Intent, BaseException]) -> bool:
        return bool(failures) and (self._on_error == "stop" or bool(_interruptions(failures)))

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
        self._intents = intents
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
        intents, self._intents = self._intents, []
        self._dispatch.end_waiting(self)  # they refer to each other
        self._dispatch.dispatch_settled(intents, rolled_back)

    @property
    def rolled_back(self) -> list[Intent]:
        _fates.refresh(self._intents, *self._open_at_flush)
        if any(fate.state == "gone" for fate in self._open_at_flush):
            return self._intents
        return [intent for intent in self._intents if _fates.is_gone(intent)]


def _interruptions(failures: dict[Intent, BaseException]) -> dict[Intent, BaseException]:
    return {intent: error for intent, error in failures.items() if not isinstance(error, Exception)}
