"""For tests: what would have gone out, asserted in one line, while nothing does.

The fixture `airlock_effects` of the pytest plugin is an `Effects`, and `EffectsMixin` gives one to tests of `unittest`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from airlock import _fates
from airlock._api import get_current_scope
from airlock._calls import Call
from airlock._configuration import configure, kept_configuration
from airlock._context import JUDGING, call_in
from airlock._errors import UsageError
from airlock._events import Event, subscribe
from airlock._executors import check_executor, replace_executors
from airlock._policies import first_refusing
from airlock.integrations.executors.sync import sync_executor

if TYPE_CHECKING:
    import unittest
    from collections.abc import Iterator

    from airlock._executors import Executor
    from airlock._intent import Intent

__all__ = ["Effects", "EffectsMixin", "collect_effects"]

#: How many intents a message lists.
_MOST_LISTED = 20

_WITHHELD = ("dropped", "discarded", "rolled_back")


class Effects(Sequence["Intent"]):
    """The intents that would have gone out since the test began, in the order in which they were enqueued.

    An intent counts unless its scope was discarded, a policy drops it, or a transaction that it hangs on was rolled
    back. That is decided when you look. So it also works before the scope or the transaction ends: an intent counts as
    long as nothing has been decided against it.
    """

    #: What has failed while it was dispatched, and was not raised to any code: an `airlock.ext.Event` for each. If some
    #: are left at its end, the test fails with the first. A test that expects a failure takes it out.
    failures: list[Event]

    def __init__(self, executor: Executor | None = None) -> None:
        self.failures = []
        self._executor = executor
        #: What was enqueued, and what has become of it last.
        self._latest: dict[Intent, Event] = {}

    @property
    def intents(self) -> list[Intent]:
        """Those that would have gone out."""
        return [intent for intent, reason in self._withheld().items() if reason is None]

    def assert_enqueued(self, task: Any, /, *args: Any, _times: int | None = None, **kwargs: Any) -> Intent:
        """Assert that a call of a task would have gone out.

            airlock_effects.assert_enqueued(notify_warehouse, order.pk)

        Args:
            task: the task as it was given to `enqueue`, a Celery signature of it, or its name: `"notify_warehouse"` or
                `"shop.tasks.notify_warehouse"`.
            *args: its positional arguments; `unittest.mock.ANY` stands for any value. If neither these nor keyword
                arguments are given, any call of the task counts.
            _times: how many such calls there are to be; by default one or more.
            **kwargs: its keyword arguments. It makes no difference whether an argument is given as a positional or as a
                keyword one.

        Returns:
            The intent, the first one if there are several.

        Raises:
            AssertionError: if there is none. It says why, and what comes nearest.
            TypeError: if it is no task, or if the task has no such call.
            ValueError: if `_times` is below 1.
        """
        __tracebackhide__ = True
        call = Call(task, args, kwargs)
        if _times is not None and _times < 1:
            raise ValueError(
                f"_times={_times!r} is no number of calls: use assert_not_enqueued if there is to be none."
            )
        withheld = self._withheld()
        found = [intent for intent, reason in withheld.items() if reason is None and call.is_of(intent)]
        if not found:
            raise AssertionError("\n".join(_why_missing(call, withheld)))
        if _times is not None and len(found) != _times:
            title = f"{call} would have gone out {_counted(len(found))}, not {_counted(_times)}:"
            raise AssertionError("\n".join([title, *_listed(found)]))
        return found[0]

    def assert_not_enqueued(self, task: Any, /, *args: Any, **kwargs: Any) -> None:
        """Assert that no call of a task, or no such call, would have gone out.

        Args:
            task: as in `assert_enqueued`.
            *args: as there: without any arguments, no call of the task may go out.
            **kwargs: as there.

        Raises:
            AssertionError: if there is one. It says where it was enqueued.
            TypeError: if it is no task, or if the task has no such call.
        """
        __tracebackhide__ = True
        call = Call(task, args, kwargs)
        found = [intent for intent in self.intents if call.is_of(intent)]
        if found:
            raise AssertionError("\n".join([f"{call} would have gone out:", *_listed(found)]))

    def assert_nothing_enqueued(self) -> None:
        """Assert that nothing would have gone out.

        Raises:
            AssertionError: if something would. It says what, and where that was enqueued.
        """
        __tracebackhide__ = True
        if found := self.intents:
            raise AssertionError("\n".join(["This would have gone out:", *_listed(found)]))

    def __len__(self) -> int:
        return len(self.intents)

    @overload
    def __getitem__(self, index: int) -> Intent: ...
    @overload
    def __getitem__(self, index: slice) -> list[Intent]: ...
    def __getitem__(self, index: int | slice) -> Intent | list[Intent]:
        return self.intents[index]

    def __iter__(self) -> Iterator[Intent]:
        return iter(self.intents)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(map(str, self.intents)) or 'none'}>"

    # -- What becomes of intents -------------------------------------------------------------------------------------

    def _hear(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind == "enqueued" or event.intent in self._latest:
                self._latest[event.intent] = event
                if event.kind in ("failed", "unknown") and not event.is_handled:
                    self.failures.append(event)

    def _withheld(self) -> dict[Intent, str | None]:
        """Everything that was enqueued, with the reason why it would not have gone out, or `None`."""
        fates = {fate for intent in list(self._latest) for fate in intent._fates}
        for source in _fates.sources:  # also if there are none: scopes may wait for others, and are told of rollbacks
            source.refresh(fates)
        return {intent: _reason(event) for intent, event in list(self._latest.items())}

    def _stand_in(self, executor: Executor) -> _StandIn:
        return _StandIn(executor, self._executor)

    def _explain(self, error: BaseException) -> None:
        """A test that has failed says what has failed in it before."""
        for event in self._take_failures():
            error.add_note(f"{_failure(event)} It raised {event.error!r}.")

    def _take_failures(self) -> list[Event]:
        failures, self.failures = self.failures, []
        return failures

    def _raise_failures(self) -> None:
        __tracebackhide__ = True
        failures = self._take_failures()
        for event in failures:
            error = event.error
            assert error is not None  # noqa: S101 - for type checkers: what has failed has one
            error.add_note(_failure(event))
            if len(failures) > 1:
                error.add_note(f"It is the first of {len(failures)} failures.")
            raise error


class _StandIn:
    """Takes the place of the executor of a scope, and refuses what that would refuse."""

    def __init__(self, replaced: Any, executor: Executor | None) -> None:
        self._replaced = replaced
        self._executor = executor

    def accepts(self, task: object) -> bool:
        return hasattr(self._replaced, "accepts") and self._replaced.accepts(task) is True

    def check(self, intent: Intent, /) -> None:
        if hasattr(self._replaced, "check"):
            self._replaced.check(intent)
        if hasattr(self._replaced, "prepare"):
            self._replaced.prepare(intent, ())  # and nothing is done with it

    def __call__(self, intent: Intent, /) -> object:
        return None if self._executor is None else self._executor(intent)


@contextmanager
def collect_effects(*, run: bool = False, executor: Executor | None = None) -> Iterator[Effects]:
    """Collect what would have gone out of a block. Nothing does, unless `run` or `executor` says so.

    It is for the whole process, all threads included. At the end it puts back what `airlock.configure` was given
    before.

    Args:
        run: whether to run the effects in place when they would have gone out. Then a task that raises fails the test,
            also where that would only have been logged.
        executor: what is to carry them out, instead.

    Raises:
        UsageError: in a scope: what that was given would go out; and if both `run` and `executor` are given.
        TypeError: if the executor is none.
        Exception: at the end, what the first of `failures` has raised.
    """
    __tracebackhide__ = True
    scope = get_current_scope()
    if scope is not None and scope.is_active:
        raise UsageError(
            f"Effects are to be collected inside of {scope!r}, which was entered before, and would dispatch its own. "
            "Enter scopes inside: let your fixture ask for airlock_effects."
        )
    if executor is None:
        executor = sync_executor if run else None
    else:
        check_executor(executor)
        if run:
            raise UsageError(
                f"Effects are to be run in place (run=True), but {executor!r} is to carry them out. "
                "Give one of the two."
            )
    effects = Effects(executor)
    with kept_configuration(), replace_executors(effects._stand_in):
        configure(capture_origin=True)
        unsubscribe = subscribe(effects._hear)
        try:
            yield effects
        finally:
            unsubscribe()
    effects._raise_failures()


if TYPE_CHECKING:
    _TestCase = unittest.TestCase
else:
    _TestCase = object


class _NotCollected:
    """What `airlock_effects` is before `setUp`, which sets it: an error that says so."""

    def __get__(self, test: object, cls: type) -> Any:
        if test is None:
            return self
        raise AttributeError(
            f"{cls.__qualname__} collects no effects before EffectsMixin.setUp has run. "
            "If it has a setUp of its own, begin that with super().setUp()."
        )


class EffectsMixin(_TestCase):
    """Gives each test of a `unittest.TestCase`, such as Django's, its `Effects`.

        class CheckoutTest(EffectsMixin, TestCase):
            def test_order_is_packed(self):
                self.client.post("/checkout/", ORDER)
                self.airlock_effects.assert_enqueued(notify_warehouse, 42)

    It is named before the `TestCase`, and a `setUp` of your own calls `super().setUp()` first.

    Raises:
        TypeError: at the class, if it is named after the `TestCase`: it would do nothing there.
    """

    #: Whether to run the effects in place. A task that raises then fails the test.
    airlock_run: bool = False
    #: What is to carry them out, instead.
    airlock_executor: Executor | None = None
    airlock_effects: Effects = cast("Effects", _NotCollected())

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        before = cls.__mro__[: cls.__mro__.index(EffectsMixin)]
        if any(base.__module__ == "unittest.case" for base in before):  # a `TestCase`: its `setUp` calls no other
            raise TypeError(
                f"{cls.__qualname__} has EffectsMixin after the TestCase, where it does nothing: "
                f"class {cls.__name__}(EffectsMixin, TestCase)."
            )

    def setUp(self) -> None:
        super().setUp()
        executor = inspect.getattr_static(self, "airlock_executor")  # a function would become a method
        self.airlock_effects = self.enterContext(collect_effects(run=self.airlock_run, executor=executor))


def _reason(event: Event) -> str | None:
    intent = event.intent
    if event.kind in _WITHHELD:
        return event.reason
    if event.kind not in ("enqueued", "captured"):
        return None  # it has gone out
    if _fates.is_gone(intent):
        return _fates.why_gone(intent)
    policy = call_in(JUDGING, first_refusing, intent.policies, intent)
    return None if policy is None else f"dropped by {policy!r}"


# -- Messages ----------------------------------------------------------------------------------------------------------


def _why_missing(call: Call, withheld: dict[Intent, str | None]) -> Iterator[str]:
    yield f"{call} would not have gone out."
    same_task = [intent for intent in withheld if call.is_of_same_task(intent)]
    same_call = [intent for intent in same_task if call.is_of(intent)]
    if same_call:
        for intent in same_call[:_MOST_LISTED]:
            yield f"{intent} was enqueued at {_where(intent)}, and {withheld[intent]}."
        return
    if same_task:
        nearest = max(same_task, key=call.count_same_arguments)
        reason = f", and {withheld[nearest]}" if withheld[nearest] else ""
        yield f"The nearest call (+) was enqueued at {_where(nearest)}{reason}:"
        yield from call.diff(nearest)
    out = [intent for intent, reason in withheld.items() if reason is None]
    yield "This would have gone out:" if out else "Nothing would have gone out."
    yield from _listed(out)
    if len(out) < len(withheld):
        yield "This would not:"
        yield from _listed([intent for intent in withheld if intent not in out], withheld)


def _listed(intents: Sequence[Intent], withheld: dict[Intent, str | None] | None = None) -> Iterator[str]:
    for intent in intents[:_MOST_LISTED]:
        reason = f": {withheld[intent]}" if withheld else ""
        yield f"    {intent}, enqueued at {_where(intent)}{reason}"
    if len(intents) > _MOST_LISTED:
        yield f"    and {len(intents) - _MOST_LISTED} more"


def _where(intent: Intent) -> str:
    if intent.origin is None:
        return "a place that was not recorded"
    try:
        return str(Path(intent.origin).relative_to(Path.cwd()))
    except ValueError:
        return intent.origin


def _failure(event: Event) -> str:
    return f"{event.intent}, enqueued at {_where(event.intent)}, has failed in this test."


def _counted(times: int) -> str:
    return "once" if times == 1 else f"{times} times"
