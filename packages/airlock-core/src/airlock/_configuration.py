"""Process-wide defaults, for whatever is not given explicitly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from airlock._executors import check_executor
from airlock._policies import check_policy

if TYPE_CHECKING:
    from airlock._executors import Executor
    from airlock._intent import Intent
    from airlock._policies import Policy
    from airlock._scope import Scope

#: Called at `enqueue`. What it returns is entered around the dispatch. `None`: there is nothing to bring along.
Carrier: TypeAlias = Callable[[], AbstractContextManager[object] | None]


@dataclass(frozen=True, slots=True)
class Configuration:
    """What `airlock.scope()` falls back on."""

    #: Makes the scopes: a subclass of `Scope`, or a callable with the same arguments. `None` is `airlock.Scope`.
    scope_cls: Callable[..., Scope] | None = None
    #: The policy of scopes that are not given one. `None` lets everything pass.
    policy: Policy | None = None
    #: The executor of scopes that are not given one. `None` is the Celery executor in an `AirlockTask`, and otherwise
    #: the sync executor.
    executor: Executor | None = None
    #: Keyword arguments for `scope_cls`, besides the policy and the executor.
    scope_kwargs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    #: Whether to record the `file:line` of every `enqueue` call as the intent's origin.
    capture_origin: bool = False
    #: What brings along what does not live in context variables.
    carriers: tuple[Carrier, ...] = ()
    #: Shows an intent with its arguments, for the log and for tools. `None` is `str`.
    redactor: Callable[[Intent], str] | None = None


_UNCHANGED: Any = object()

#: The carriers of integrations, which come before those of the application.
registered_carriers: list[Carrier] = []

#: What `configure` was given.
_configured: dict[str, Any] = {}
#: Tells what an integration falls back on, such as the settings of Django.
_provider: Callable[[], Mapping[str, Any]] | None = None
#: What was provided last, and what it makes together with what was configured.
_provided: Mapping[str, Any] = {}
_current = Configuration()


def configure(
    *,
    scope_cls: Callable[..., Scope] | None = _UNCHANGED,
    policy: Policy | None = _UNCHANGED,
    executor: Executor | None = _UNCHANGED,
    scope_kwargs: Mapping[str, Any] = _UNCHANGED,
    capture_origin: bool = _UNCHANGED,
    carriers: Iterable[Carrier] = _UNCHANGED,
    redactor: Callable[[Intent], str] | None = _UNCHANGED,
) -> None:
    """Set process-wide defaults. What is not given stays as it is. Explicit arguments to `scope()` always win.

    Args:
        scope_cls: makes the scopes, a subclass of `Scope` or a callable with its arguments; `None` for `Scope`.
        policy: the policy of scopes that are not given one; `None` lets everything pass.
        executor: the executor of scopes that are not given one; `None` for the sync executor, or, in an `AirlockTask`,
            the Celery executor.
        scope_kwargs: keyword arguments for `scope_cls`, besides the policy and the executor.
        capture_origin: record the `file:line` of every `enqueue` call as the intent's `origin`.
        carriers: bring along what does not live in context variables, such as the tenant of a database connection.
            Each is called at `enqueue` and returns a context manager, which is entered around the dispatch, or `None`
            if there is nothing to bring along.
        redactor: shows an intent, for the log and for tools, where its arguments must not be seen; `None` for `str`.

    Raises:
        TypeError: if the policy, the executor or a carrier is of the wrong kind.
    """
    given = {name: value for name, value in locals().items() if value is not _UNCHANGED}
    if given.get("policy") is not None:
        check_policy(given["policy"])
    if given.get("executor") is not None:
        check_executor(given["executor"])
    if "scope_kwargs" in given:
        given["scope_kwargs"] = MappingProxyType(dict(given["scope_kwargs"]))
    if "carriers" in given:
        given["carriers"] = check_carriers(given["carriers"])
    _configured.update(given)
    _combine(_provided)


def get_configuration() -> Configuration:
    """The defaults in force, read-only: what `configure` was given, else what the installed integration says."""
    if _provider is not None:
        provided = _provider()
        if provided is not _provided:
            _combine(provided)
    return _current


def reset_configuration() -> None:
    """Forget what `configure` was given, and go back to what Airlock and the installed integrations come with."""
    _configured.clear()
    _combine(_provided)


@contextmanager
def kept_configuration() -> Iterator[None]:
    """Put back at the end of a block what `configure` was given before."""
    before = dict(_configured)
    try:
        yield
    finally:
        _configured.clear()
        _configured.update(before)
        _combine(_provided)


def set_defaults(provider: Callable[[], Mapping[str, Any]]) -> None:
    """Have an integration say what holds where `configure` was given nothing. The last one to do so is asked.

    Args:
        provider: called whenever a scope is made. Returns some of the arguments of `configure`, by name. It should
            return the same object as long as nothing has changed.
    """
    global _provider
    _provider = provider


def register_carrier(carrier: Carrier) -> None:
    """Bring along what an integration knows of, in every scope, besides what the application's carriers bring.

    Args:
        carrier: called at each `enqueue`. Returns a context manager, which is entered around the dispatch, or `None`.

    Raises:
        TypeError: if it is not callable.
    """
    registered_carriers.extend(check_carriers([carrier]))


def _combine(provided: Mapping[str, Any]) -> None:
    global _provided, _current
    _current = Configuration(**{**provided, **_configured})
    _provided = provided


def check_carriers(carriers: Iterable[Carrier]) -> tuple[Carrier, ...]:
    checked = tuple(carriers)
    for carrier in checked:
        if not callable(carrier):
            raise TypeError(f"A carrier is a callable that returns a context manager, and {carrier!r} is not callable.")
    return checked
