"""Process-wide defaults, for whatever is not given explicitly."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airlock._executors import check_executor
from airlock._policies import check_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airlock._executors import Executor
    from airlock._policies import Policy
    from airlock._scope import Scope

#: Told by identity, which is the fastest.
NO_KWARGS: Mapping[str, Any] = MappingProxyType({})


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
    scope_kwargs: Mapping[str, Any] = field(default_factory=lambda: NO_KWARGS)
    #: Whether to record the `file:line` of every `enqueue` call as the intent's origin.
    capture_origin: bool = False


#: The defaults in force. Read on every `scope()`, hence without a call.
current = Configuration()
_UNCHANGED: Any = object()


def configure(
    *,
    scope_cls: Callable[..., Scope] | None = _UNCHANGED,
    policy: Policy | None = _UNCHANGED,
    executor: Executor | None = _UNCHANGED,
    scope_kwargs: Mapping[str, Any] = _UNCHANGED,
    capture_origin: bool = _UNCHANGED,
) -> None:
    """Set process-wide defaults; what is not given stays as it is. Explicit arguments to `scope()` always win.

    Args:
        scope_cls: makes the scopes, a subclass of `Scope` or a callable with its arguments; `None` for `Scope`.
        policy: the policy of scopes that are not given one; `None` lets everything pass.
        executor: the executor of scopes that are not given one; `None` for the sync executor, or, in an `AirlockTask`,
            the Celery executor.
        scope_kwargs: keyword arguments for `scope_cls`, besides the policy and the executor.
        capture_origin: record the `file:line` of every `enqueue` call as the intent's `origin`.

    Raises:
        TypeError: if the policy or the executor is of the wrong kind.
    """
    global current
    given = {name: value for name, value in locals().items() if value is not _UNCHANGED}
    if given.get("policy") is not None:
        check_policy(given["policy"])
    if given.get("executor") is not None:
        check_executor(given["executor"])
    if "scope_kwargs" in given:
        given["scope_kwargs"] = MappingProxyType(dict(given["scope_kwargs"])) or NO_KWARGS
    current = replace(current, **given)


def get_configuration() -> Configuration:
    """The defaults in force, read-only."""
    return current


def reset_configuration() -> None:
    """Go back to the defaults Airlock comes with."""
    global current
    current = Configuration()
