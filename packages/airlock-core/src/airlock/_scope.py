"""When: the boundaries that buffer intents, and the way an intent takes through them.

`enqueue` makes an intent and puts it into the innermost scope. When that is left, it `flush`es, which hands its intents
to the enclosing scope, or, if there is none, asks the policies about each and gives the executor what they allow; or it
`discard`s.

All scopes that are nested in one another share one list, the log, to which every `enqueue` appends. That keeps the
order of enqueueing whatever the order in which scopes end (asyncio tasks, suspended generators), and makes handing over
a matter of one reference: a scope's intents are those entries of the log whose place was captured by it, directly or
through others.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Set
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, overload

from airlock import _configuration
from airlock._errors import AirlockError, ScopeStateError, UsageError
from airlock._executors import OutcomeUnknown, check_executor, outcomes_of
from airlock._intent import Details, Intent, full_name_of
from airlock._place import JUDGING, NO_PLACE, PLAIN, Here, NoScope, Place, get_here, joined, judging, no_scope, set_here
from airlock._policies import check_policy
from airlock.integrations.executors.sync import sync_executor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from airlock._executors import Executor
    from airlock._policies import Policy

_P = ParamSpec("_P")


class _Log(list[Intent]):
    """The intents of nested scopes, in order of enqueueing."""

    __slots__ = ("__dict__", "notes")

    def __init__(self, *, notes: bool = False) -> None:
        super().__init__()
        #: Whether `note` is called. That is faster than an override of `append`, and fastest if this is in a slot.
        self.notes = notes

    def note(self, intent: Intent) -> None:
        """Take a note of an intent that is about to be appended."""

    #: Whether any policy was in force for any of them.
    judged = False
    #: Where `Place.captured_by` ends because enclosing scopes were asked: the place that holds an intent now, if any.
    holders: Mapping[Intent, Place | None] = MappingProxyType({})
    #: The places of nested scopes that have not handed everything over, as yet or for good.
    unsettled: Set[Place] = frozenset()

    def unsettled_to_write(self) -> set[Place]:
        # Most logs need none. Several threads may come with the first.
        places: set[Place] = vars(self).setdefault("unsettled", set())
        return places

    def held_by(self, place: Place, start: int, end: int | None) -> list[Intent]:
        """The entries from index `start` up to `end` that the scope of `place` enqueued or captured."""
        known: dict[Place | None, bool] = {place: True, None: False}

        def leads_here(holder: Place | None) -> bool:
            end = holder
            while end is not None and end not in known:
                end = end.captured_by
            answer = known[end]
            while holder is not None and holder is not end:
                known[holder] = answer
                holder = holder.captured_by
            return answer

        entries = self[start:end]
        places = set(map(_place_of, entries))
        held = {place for place in places if leads_here(place.home or place)}
        if len(held) == len(places):
            return entries
        return [intent for intent in entries if intent._place in held or leads_here(self.holders.get(intent))]


# What a scope begins with: `_log_to_write` makes it one of its own.
_NO_LOG = _Log()
_place_of = attrgetter("_place")


class Scope:
    """A boundary: it buffers the intents enqueued inside, and dispatches or drops them when it is left.

    Use it through `airlock.scope()`, or call `enter()`, `exit()`, and then either `flush()` or `discard()`, each once.
    Subclasses decide by overriding `should_flush`, `before_descendant_flushes` and `dispatch_all`.

    Args:
        policy: judges the intents, besides the policies of enclosing scopes and of `airlock.policy()` blocks;
            by default the configured one.
        executor: carries them out, unless an enclosing scope captures them; by default the configured one.

    Raises:
        TypeError: if either is of the wrong kind.
    """

    # What every scope has, in slots: every request makes a scope. Defaults on the class would make it slow, as Python
    # does not specialise the access to an attribute that both an instance and its class have.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_captures_origin",
        "_end",
        "_executor",
        "_log",
        "_outside",
        "_parent",
        "_place",
        "_scope_policies",
        "_start",
        "_state",
    )

    # What few have.
    _snapshot: Sequence[Intent] | None = None
    _due: Sequence[Intent] = ()
    _dispatched: Sequence[Intent] = ()
    _unknown: Sequence[Intent] = ()

    _log_cls: type[_Log] = _Log
    _detached_cls: type[DetachedScope]
    _is_detached = False

    def __init__(self, policy: Policy | None = None, *, executor: Executor | None = None) -> None:
        defaults = _configuration.current
        if policy is None:
            policy = defaults.policy
        else:
            check_policy(policy)
        self._scope_policies: tuple[Policy, ...] = () if policy is None else (policy,)
        if executor is None:
            executor = defaults.executor
        else:
            check_executor(executor)
        self._executor = executor
        self._captures_origin = defaults.capture_origin
        self._state: Literal["not entered", "active", "left", "flushed", "discarded"] = "not entered"
        self._parent: Scope | None = None

    # -- The life of a scope ---------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Make this the current scope of the running thread, asyncio task or greenlet.

        Raises:
            ScopeStateError: if it was entered before.
            PolicyEnqueueError: inside a policy's method.
        """
        self.__enter__()

    def __enter__(self) -> Self:
        if self._state != "not entered":
            raise ScopeStateError(f"{self!r} was entered before. A scope is used once: make another one.")
        # Scopes that ended but still stand in this context (a background task of a request gone by) enclose nothing.
        outside = get_here()
        if outside is not NO_PLACE:
            outside = _still_open(outside)
        self._outside = outside
        self._log = _NO_LOG
        self._start = 0
        self._end: int | None = None
        place = PLAIN
        if outside is not NO_PLACE or self._scope_policies or self._captures_origin:
            place = self._find_place(*outside)
        self._place = place
        self._state = "active"
        set_here((self, place))
        return self

    def _find_place(self, around: Scope | NoScope, outer: Place) -> Place:
        if around is JUDGING:
            raise around._refusal("A scope")
        if around._state == "active" and not self._is_detached:
            self._parent = around
            self._log = log = around._log_to_write()
            self._start = len(log)
        if around._scope_policies:
            self._scope_policies = joined(self._scope_policies, around._scope_policies)
        place = Place(watched=self._captures_origin)
        if self._parent is not None:
            self._log.unsettled_to_write().add(place)
        if outer.local_policies or self._scope_policies:
            place.judge_by(outer.local_policies, self._scope_policies)
        return place

    def exit(self) -> None:
        """Stop taking intents, and make the scope that was current before current again.

        Raises:
            ScopeStateError: if it is not active.
        """
        if self._state != "active":
            raise ScopeStateError(f"{self!r} cannot be left: it is not active. Enter a scope once, and leave it once.")
        self._state = "left"
        log = self._log
        self._end = 0 if log is _NO_LOG else len(log)
        if self._parent is not None and self._end == self._start:
            self._log.unsettled_to_write().discard(self._place)
        # Most often what is current is this scope. If it is not, this one was left out of order, or in another context
        # than it was entered in, as by async fixtures and servers: its own then keeps a scope that takes nothing.
        current = get_here()
        remaining = self._outside if current[0] is self else current
        if remaining is not NO_PLACE:
            remaining = _still_open(remaining)
        if remaining is not current:
            set_here(remaining)

    def flush(self) -> list[Intent]:
        """Let the intents go: to the enclosing scope, or through the policies to the executor.

        Returns:
            The intents that were dispatched by now, in order. None, if an enclosing scope captured them.

        Raises:
            ScopeStateError: if the scope was not left yet, was flushed or discarded before, or if the scope that
                encloses it has ended.
            Exception: what a policy or the executor raises; `dispatched_intents` and `undispatched_intents` then tell
                what happened.
        """
        if self._state != "left":
            raise self._cannot_end()
        self._state = "flushed"
        if self._end == self._start:
            return []
        if self._parent is None:
            self._release(self.intents)
        else:
            self._hand_over(self._parent)
        return self.dispatched_intents

    def discard(self) -> list[Intent]:
        """Drop the intents.

        Returns:
            The intents that were dropped, in order of enqueueing.

        Raises:
            ScopeStateError: if the scope was not left yet, or was flushed or discarded before.
        """
        if self._state != "left":
            raise self._cannot_end()
        self._state = "discarded"
        return self.intents

    def _cannot_end(self) -> ScopeStateError:
        if self._state in ("not entered", "active"):
            return ScopeStateError(f"{self!r} cannot be flushed or discarded yet: call enter() and exit() first.")
        return ScopeStateError(f"{self!r} has ended: a scope is flushed or discarded once.")

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.exit()
        if error is None and self._end == self._start and type(self) is Scope:
            # Most scopes end so, empty and with nothing overridden. The two calls would be a tenth of what they cost.
            self._state = "flushed"
            return
        try:
            flushes = self.should_flush(error)
        except BaseException:
            self.discard()
            raise
        if flushes:
            self.flush()
        else:
            self.discard()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.exit()
        try:
            flushes = self.should_flush(error)
        except BaseException:
            self.discard()
            raise
        if flushes:
            await self._flush_async()
        else:
            self.discard()

    async def _flush_async(self) -> None:
        self.flush()

    # -- Hooks -----------------------------------------------------------------------------------------------------

    def should_flush(self, error: BaseException | None) -> bool:
        """Decide whether leaving the scope flushes it (true) or discards it (false).

        Args:
            error: what the block raised, `None` if it ended normally. It propagates in either case.
        """
        return error is None

    def before_descendant_flushes(self, exiting_scope: Scope, intents: list[Intent]) -> list[Intent]:
        """Choose which intents of a nested scope go out at its end, instead of being captured by this one.

        Asked of every enclosing scope, nearest first, each about what the nearer ones let through. What all of them
        let through is dispatched by the nested scope, after every policy in force was asked.

        Args:
            exiting_scope: the nested scope that flushes.
            intents: what it would hand over, in order of enqueueing.

        Returns:
            Those of `intents` to let through; by default none.
        """
        return []

    def dispatch_all(self, intents: Sequence[Intent]) -> None:
        """Hand the intents to the executor, in order, stopping at the first failure.

        Two or more go together to an executor that has a `dispatch_many`. Of those after the one that failed, some may
        then have gone out with it; `dispatched_intents` tells which.

        An override may dispatch later, or in parts, by calling this with some of them; `dispatched_intents` keeps
        account.

        Args:
            intents: what the policies allowed.

        Raises:
            Exception: what the executor raises, with a note that names the intent.
        """
        executor = sync_executor if self._executor is None else self._executor
        if len(intents) > 1 and hasattr(executor, "dispatch_many"):
            for failed in self._dispatching(intents):
                raise self._noted(failed)
            return
        for intent in intents:
            try:
                executor(intent)
            except BaseException as error:
                error.add_note(_about(intent))
                self._dispatched_to_write().extend(intents[: intents.index(intent)])
                raise
        self._dispatched_to_write().extend(intents)

    def _dispatched_to_write(self) -> list[Intent]:
        # Always the same list: commits of several threads may dispatch parts at the same time.
        dispatched: list[Intent] = vars(self).setdefault("_dispatched", [])
        return dispatched

    def _dispatching(self, intents: Sequence[Intent]) -> Iterator[dict[Intent, BaseException]]:
        """Hand the intents to the executor, as many at a time as it takes, and keep account.

        Yields:
            Those that were not carried out, or perhaps not, and why: what failed together, together.
        """
        executor = sync_executor if self._executor is None else self._executor
        at_a_time = len(intents) if hasattr(executor, "dispatch_many") else 1
        dispatched = self._dispatched_to_write()
        begin = 0
        while begin < len(intents):
            tried = intents[begin : begin + at_a_time]
            outcomes = outcomes_of(executor, tried)
            failed: dict[Intent, BaseException] = {}
            for intent, outcome in zip(tried, outcomes, strict=False):
                if outcome is None:
                    dispatched.append(intent)
                elif isinstance(outcome, OutcomeUnknown):
                    vars(self).setdefault("_unknown", []).append(intent)
                    failed[intent] = outcome.error
                else:
                    failed[intent] = outcome
            if failed:
                yield failed
            begin += len(outcomes)

    def _noted(self, failed: dict[Intent, BaseException]) -> BaseException:
        # What interrupts, such as Ctrl-C, is not to be lost over what merely failed before it.
        interrupting = [(intent, error) for intent, error in failed.items() if not isinstance(error, Exception)]
        intent, error = (interrupting or list(failed.items()))[0]
        error.add_note(_about(intent))
        if len(failed) > 1:
            error.add_note(f"With it failed {len(failed) - 1} more: see undispatched_intents.")
        if not failed.keys().isdisjoint(self._unknown):
            error.add_note(
                "Nobody can tell whether those in unknown_intents were dispatched: "
                "to dispatch them again may have their effects twice."
            )
        return error

    # -- What it holds ---------------------------------------------------------------------------------------------

    @property
    def intents(self) -> list[Intent]:
        """The intents enqueued in this scope or captured from nested ones, in order of enqueueing."""
        if self._state == "not entered":
            return []
        if self._snapshot is not None:
            return list(self._snapshot)
        if self._parent is None and not self._log.unsettled:  # spares finding out who holds each of them
            return self._log[: self._end]
        return self._log.held_by(self._place, self._start, self._end)

    @property
    def own_intents(self) -> list[Intent]:
        """The intents enqueued directly in this scope."""
        return [intent for intent in self.intents if (intent._place.home or intent._place) is self._place]

    @property
    def captured_intents(self) -> list[Intent]:
        """The intents taken over from nested scopes."""
        return [intent for intent in self.intents if (intent._place.home or intent._place) is not self._place]

    @property
    def dispatched_intents(self) -> list[Intent]:
        """The intents this scope has handed to the executor, successfully and in this order."""
        return list(self._dispatched)

    @property
    def undispatched_intents(self) -> list[Intent]:
        """The intents this scope still owes: neither dispatched, nor handed over, dropped by a policy, or discarded."""
        if self._state == "discarded":
            return []
        due = self._due if self._state == "flushed" else self.intents
        dispatched = set(self._dispatched)
        return [intent for intent in due if intent not in dispatched]

    @property
    def unknown_intents(self) -> list[Intent]:
        """Those of the undispatched intents that may have gone out all the same: the executor cannot tell."""
        return list(self._unknown)

    @property
    def is_active(self) -> bool:
        """Whether it takes intents: it was entered and not yet left."""
        return self._state == "active"

    @property
    def is_flushed(self) -> bool:
        """Whether it ended in a flush."""
        return self._state == "flushed"

    @property
    def is_discarded(self) -> bool:
        """Whether it ended in being discarded."""
        return self._state == "discarded"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state}, {len(self.intents)} intents>"

    # -- The way of an intent --------------------------------------------------------------------------------------

    def _refusal(self, what: str) -> AirlockError:
        return ScopeStateError(
            f"{what} was enqueued in {self!r}, which has ended and takes nothing. A thread or asyncio task that "
            "outlives its scope must be waited for inside of it, or enter a scope of its own."
        )

    def _log_to_write(self) -> _Log:
        # Most scopes take no intent, so it is the first one that makes the log. Several threads may come with theirs.
        self._log = vars(self).setdefault("_log", self._log_cls()) if self._log is _NO_LOG else self._log
        return self._log

    def _check_was_in_time(self, intent: Intent) -> None:
        # Another thread has left the scope since `enqueue` looked, or is just about to have measured the log.
        while self._end is None:
            time.sleep(0)
        if self._log.index(intent) >= self._end:
            nowhere = Place()  # so that no scope holds it, the enclosing ones included
            self._log.unsettled_to_write().add(nowhere)
            intent._place = nowhere
            raise self._refusal(intent.full_name)

    def _accepts(self, task: object) -> bool:
        # Which of the enclosing scopes will dispatch it is not known before they end.
        scope: Scope | None = self
        while scope is not None:
            accepts = getattr(scope._executor, "accepts", None)
            if accepts is not None and accepts(task):
                return True
            scope = scope._parent
        return False

    def _hand_over(self, holder: Scope | None) -> None:
        if holder is not None and type(holder).before_descendant_flushes is Scope.before_descendant_flushes:
            holder._check_takes_from(self)
            self._place.captured_by = holder._place
            self._log.unsettled_to_write().discard(self._place)
            return
        self._snapshot = self._due = passing = self.intents
        holders: dict[Intent, Place | None] = {}
        while passing and holder is not None:
            passed = holder.before_descendant_flushes(self, list(passing))
            if passed is None or not set(passed).issubset(passing):  # type: ignore[redundant-expr]  # a forgotten return
                raise UsageError(
                    f"{type(holder).__name__}.before_descendant_flushes returned something else than a list of some "
                    "of the intents it was given. Return those to let through."
                )
            chosen = set(passed)
            if len(chosen) < len(passing):
                holder._check_takes_from(self)
            holders.update({intent: holder._place for intent in passing if intent not in chosen})
            passing = [intent for intent in passing if intent in chosen]
            holder = holder._parent
        holders.update(dict.fromkeys(passing))
        # In place: a parent with very many nested scopes would otherwise copy its past for each of them.
        vars(self._log).setdefault("holders", {}).update(holders)
        with no_scope():
            self._release(passing)

    def _check_takes_from(self, nested: Scope) -> None:
        if self._state != "active" and nested.intents:
            nested._due = nested.intents
            raise ScopeStateError(
                f"{nested!r} ended after the scope that encloses it, {self!r}, so nobody takes its intents: "
                "end nested scopes first. They are in undispatched_intents."
            )

    def _release(self, intents: list[Intent]) -> None:
        self._due = intents
        self._due = intents = self._judged(intents)
        self.dispatch_all(intents)

    def _judged(self, intents: list[Intent]) -> list[Intent]:
        if not self._log.judged:
            return intents
        with judging(self._place):
            return [intent for intent in intents if all(policy.allows(intent) for policy in intent._place.policies)]


class DetachedScope(Scope):
    """A scope that no other captures, made after one that it is entered in, or would be if there were one."""

    _is_detached = True

    def __init__(self, model: Scope) -> None:
        super().__init__()
        outermost = model
        while outermost._parent is not None:
            outermost = outermost._parent
        self._executor = outermost._executor
        self._scope_policies = model._scope_policies
        self._captures_origin = model._captures_origin

    def _release(self, intents: list[Intent]) -> None:
        with no_scope():
            super()._release(intents)


Scope._detached_cls = DetachedScope


def _about(intent: Intent) -> str:
    return f"This happened while dispatching {intent.name} (id {intent.id}), enqueued at " + (
        intent.origin or "a place that is not known: turn capture_origin on to see it."
    )


def _still_open(current: Here) -> Here:
    """The nearest place around the current one, itself included, that has not ended."""
    while current is not NO_PLACE:
        scope, place = current
        if isinstance(scope, Scope) and scope._state != "active":
            current = scope._outside
        elif place.left_to is not None:
            current = place.left_to
        else:
            break
    return current


@overload
def enqueue(
    task: Callable[..., object] | str,
    /,
    *args: Any,
    _name: str | None,
    _origin: str | None = ...,
    _dispatch_options: Mapping[str, Any] | None = ...,
    **kwargs: Any,
) -> Intent: ...
@overload
def enqueue(
    task: Callable[..., object] | str,
    /,
    *args: Any,
    _name: None = ...,
    _origin: str | None,
    _dispatch_options: Mapping[str, Any] | None = ...,
    **kwargs: Any,
) -> Intent: ...
@overload
def enqueue(
    task: Callable[..., object] | str,
    /,
    *args: Any,
    _name: None = ...,
    _origin: None = ...,
    _dispatch_options: Mapping[str, Any] | None,
    **kwargs: Any,
) -> Intent: ...
@overload
def enqueue(task: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs) -> Intent: ...
@overload
def enqueue(task: str, /, *args: Any, **kwargs: Any) -> Intent: ...
def enqueue(
    task: Any,
    /,
    *args: Any,
    _name: Any = None,
    _origin: Any = None,
    _dispatch_options: Any = None,
    **kwargs: Any,
) -> Intent:
    """Record the wish that a task be run; nothing is run here.

    The current scope keeps it until it flushes, and drops it if it is discarded.

    Args:
        task: a callable, or what the executor takes besides: with Celery, tasks, signatures and task names.
        *args: positional arguments for the task.
        _name: a name for people and policies, instead of the task's own.
        _origin: where this was asked for, instead of what `capture_origin` finds.
        _dispatch_options: options for the executor; with Celery, those of `apply_async`, such as `countdown` (seconds).
        **kwargs: keyword arguments for the task.

    Returns:
        The intent. Its `id` is known at once, and is the task's id in Celery.

    Raises:
        NoScopeError: outside of any scope.
        ScopeStateError: in a scope that has ended.
        PolicyEnqueueError: inside a policy.
        TypeError: if `task` is nothing the executor could carry out.
        Exception: what a policy's `on_enqueue` raises, such as `PolicyViolation`.
    """
    scope, place = get_here()
    if scope._state != "active":
        raise scope._refusal(full_name_of(task))
    if not callable(task) and not scope._accepts(task):
        raise TypeError(
            f"{task!r} ({type(task).__name__}) cannot be enqueued: the executor does not take it. "
            + (
                "Task names need the Celery executor."
                if isinstance(task, str)
                else "Give the task itself, not called yet, and then its arguments: enqueue(send_email, user_id)."
            )
        )
    intent = Intent()
    intent._task = task
    intent._args = args
    intent._kwargs = kwargs
    intent._place = place
    if place.watched or _name is not None or _origin is not None or _dispatch_options is not None:
        if _origin is None and scope._captures_origin:
            caller = sys._getframe(1)
            _origin = f"{caller.f_code.co_filename}:{caller.f_lineno}"
        options = _read_only({} if _dispatch_options is None else _dispatch_options)
        if _name is not None or _origin is not None or options:
            intent._details = Details(_name, _origin, options)
        if place.policies:
            with judging(place):
                for judge in place.policies:
                    judge.on_enqueue(intent)
            scope._log_to_write().judged = True
    log = scope._log
    if log is _NO_LOG:
        log = scope._log_to_write()
    if log.notes:
        log.note(intent)
    log.append(intent)
    if scope._state != "active":
        scope._check_was_in_time(intent)  # type: ignore[unreachable]  # another thread reaches it
    return intent


def scope(
    policy: Policy | None = None,
    *,
    executor: Executor | None = None,
    _cls: Callable[..., Scope] | None = None,
    **scope_kwargs: Any,
) -> Scope:
    """Buffer what is enqueued inside, and let it go at the end of the block if that ends well.

        with airlock.scope():
            place_order()

    Args:
        policy: judges the intents; by default the configured one.
        executor: carries them out; by default the configured one.
        _cls: makes the scope, instead of the configured class.
        **scope_kwargs: further arguments for it, besides the configured ones.

    Returns:
        The scope: a context manager that yields itself, for `with` and `async with`, to be used once.

    Raises:
        TypeError: if the policy or the executor is of the wrong kind.
    """
    if _cls is None:
        defaults = _configuration.current
        if defaults.scope_kwargs is not _configuration.NO_KWARGS:
            scope_kwargs = {**defaults.scope_kwargs, **scope_kwargs}
        elif defaults.scope_cls is None and policy is None and executor is None and not scope_kwargs:
            return Scope()  # most often, and the fastest way to call
        _cls = defaults.scope_cls or Scope
    if not scope_kwargs:  # spares the next common case the slowest way to call
        return _cls(policy, executor=executor)
    return _cls(policy, executor=executor, **scope_kwargs)


def detached() -> Scope:
    """Dispatch what is enqueued inside at the end of the block, whatever becomes of the scopes and transactions around.

        with airlock.detached():
            airlock.enqueue(warn_about_failed_login, user.id)
        raise PermissionDenied

    For the few effects that must go out also if everything around them fails: a security alert, an audit record. The
    policies around it judge them as ever. A block that raises discards.

    Returns:
        The scope: a context manager that yields itself, for `with` and `async with`, to be used once.
    """
    around, _ = _still_open(get_here())
    model = around if isinstance(around, Scope) else scope()
    return model._detached_cls(model)


class policy:  # noqa: N801 - used like a function, as `contextlib.suppress` is
    """Let one more policy judge what is enqueued inside; it opens no new scope.

    It ends with its block, and at the latest with the scope it was opened in.

        with airlock.policy(BlockTasks({"send_email"})):
            import_orders()

    Args:
        policy: judges the intents, besides all other policies in force.

    Raises:
        TypeError: if it is no policy.
    """

    _inside: Here | None = None

    def __init__(self, policy: Policy, /) -> None:
        self._policy = check_policy(policy)

    def __enter__(self) -> None:
        if self._inside is not None:
            raise UsageError(f"This airlock.policy({self._policy!r}) is in use: make another one for another block.")
        self._outside = scope, outer = get_here()
        self._place = place = Place()
        place.home = outer.home or outer
        place.judge_by(joined((self._policy,), outer.local_policies), scope._scope_policies)
        self._inside = (scope, place)
        set_here(self._inside)

    def __exit__(self, *error: object) -> None:
        if get_here() is self._inside:
            set_here(_still_open(self._outside))
        else:
            self._place.left_to = self._outside
        self._inside = None
        del self._place, self._outside


def get_current_scope() -> Scope | None:
    """The innermost scope the running code is in, or `None`.

    A thread or asyncio task that outlived its scope still gets it; `is_active` tells that it has ended.
    """
    scope, _ = get_here()
    return scope if isinstance(scope, Scope) else None


def _read_only(options: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(options, Mapping):
        raise TypeError(f"_dispatch_options takes a mapping of names to values, and {options!r} is none.")
    # A copy: an intent does not change when the caller's dictionary does.
    return MappingProxyType(dict(options))
