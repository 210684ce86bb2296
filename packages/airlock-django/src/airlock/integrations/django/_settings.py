"""The setting `AIRLOCK`: read when it is needed, so that `override_settings` works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

import airlock
from airlock import Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airlock import Executor, Policy

#: Modules of sibling distributions, and what to install for them.
_SIBLINGS = {
    "airlock.integrations.celery": "airlock-celery",
    "airlock.integrations.executors.celery": "airlock-celery",
}


class BrokenSettingError(ImproperlyConfigured):
    """One thing that is wrong with `AIRLOCK`, and what to do about it."""

    def __init__(self, check_id: str, problem: str, hint: str) -> None:
        super().__init__(f"{problem} {hint}")
        self.check_id = check_id
        self.problem = problem
        self.hint = hint


def make_scope(policy: Policy | None = None, *, executor: Executor | None = None, **scope_kwargs: Any) -> Scope:
    """Make the scope that the setting `AIRLOCK` asks for; by default a `DjangoScope`.

    Args:
        policy: judges the intents; by default `AIRLOCK["POLICY"]`.
        executor: carries them out; by default `AIRLOCK["EXECUTOR"]`.
        **scope_kwargs: further arguments for the scope, besides `AIRLOCK["SCOPE_KWARGS"]`.

    Raises:
        ImproperlyConfigured: if the setting cannot be used.
    """
    from airlock.integrations.django._scope import DjangoScope

    scope_cls = get("SCOPE")
    if scope_cls is None:
        configured = airlock.get_configuration().scope_cls
        scope_cls = DjangoScope if configured in (None, make_scope) else configured
    settings_kwargs = get("SCOPE_KWARGS") or {}
    try:
        scope = scope_cls(
            get("POLICY") if policy is None else policy,
            executor=get("EXECUTOR") if executor is None else executor,
            **{**settings_kwargs, **scope_kwargs},
        )
    except TypeError as error:
        if not settings_kwargs:
            raise
        raise BrokenSettingError(
            "airlock.E003",
            f"AIRLOCK['SCOPE_KWARGS'] is {settings_kwargs!r}, and {scope_cls!r} does not take it: {error}.",
            "Give it the keyword arguments that it has besides the policy and the executor.",
        ) from error
    if not isinstance(scope, Scope):
        raise _wrong_kind("SCOPE", scope_cls, "a callable that makes instances of airlock.Scope")
    scope._captures_origin = scope._captures_origin or get("CAPTURE_ORIGIN")
    return scope


def get(key: str) -> Any:
    """What `AIRLOCK[key]` stands for, or `None` if it is not set.

    Raises:
        ImproperlyConfigured: if the setting cannot be used.
    """
    given = _given()
    for problem in _unknown_keys(given):
        raise problem
    return _READERS[key](given)


def problems() -> Iterator[BrokenSettingError]:
    """Find everything that is wrong with `AIRLOCK`."""
    try:
        given = _given()
    except BrokenSettingError as problem:
        yield problem
        return
    broken = list(_unknown_keys(given))
    for read in _READERS.values():
        try:
            read(given)
        except BrokenSettingError as problem:
            broken.append(problem)
    if not broken and ("SCOPE" in given or "SCOPE_KWARGS" in given):
        try:
            make_scope()
        except BrokenSettingError as problem:
            broken.append(problem)
    yield from broken


def _given() -> Mapping[str, Any]:
    given: object = getattr(settings, "AIRLOCK", {})
    if not isinstance(given, Mapping):
        raise BrokenSettingError("airlock.E003", f"AIRLOCK is {given!r}.", "Make it a dictionary.")
    return given


def _unknown_keys(given: Mapping[str, Any]) -> Iterator[BrokenSettingError]:
    for key in given.keys() - _READERS.keys():
        yield BrokenSettingError(
            "airlock.E001", f"AIRLOCK has the unknown key {key!r}.", f"The keys are {', '.join(_READERS)}."
        )


def _executor(given: Mapping[str, Any]) -> Any:
    executor = _imported(given, "EXECUTOR")
    if isinstance(executor, type):
        executor = _called("EXECUTOR", executor)
    if executor is not None and not callable(executor):
        raise _wrong_kind("EXECUTOR", executor, "a callable that takes one intent, or the dotted path of one")
    return executor


def _policy(given: Mapping[str, Any]) -> Any:
    policy = _imported(given, "POLICY")
    if isinstance(policy, type) or (callable(policy) and not hasattr(policy, "allows")):
        policy = _called("POLICY", policy)
    if policy is not None and not (hasattr(policy, "allows") and hasattr(policy, "on_enqueue")):
        raise _wrong_kind(
            "POLICY", policy, "a policy, a class or callable that makes one, or the dotted path of any of them"
        )
    return policy


def _scope_cls(given: Mapping[str, Any]) -> Any:
    scope_cls = _imported(given, "SCOPE")
    if scope_cls is not None and not (
        issubclass(scope_cls, Scope) if isinstance(scope_cls, type) else callable(scope_cls)
    ):
        raise _wrong_kind(
            "SCOPE",
            scope_cls,
            "a subclass of airlock.Scope, a callable that makes one, or the dotted path of either",
        )
    return scope_cls


def _scope_kwargs(given: Mapping[str, Any]) -> Mapping[str, Any]:
    scope_kwargs: Any = _imported(given, "SCOPE_KWARGS")
    if scope_kwargs is None:
        return {}
    if callable(scope_kwargs):
        scope_kwargs = _called("SCOPE_KWARGS", scope_kwargs)
    if not isinstance(scope_kwargs, Mapping) or not all(isinstance(name, str) for name in scope_kwargs):
        raise _wrong_kind("SCOPE_KWARGS", scope_kwargs, "a dictionary of keyword arguments for the scope")
    return scope_kwargs


def _capture_origin(given: Mapping[str, Any]) -> bool:
    capture_origin = given.get("CAPTURE_ORIGIN")
    if capture_origin is None:
        return bool(settings.DEBUG)
    if not isinstance(capture_origin, bool):
        raise _wrong_kind("CAPTURE_ORIGIN", capture_origin, "True or False")
    return capture_origin


_READERS = {
    "EXECUTOR": _executor,
    "POLICY": _policy,
    "SCOPE": _scope_cls,
    "SCOPE_KWARGS": _scope_kwargs,
    "CAPTURE_ORIGIN": _capture_origin,
}


def _imported(given: Mapping[str, Any], key: str) -> Any:
    value = given.get(key)
    if not isinstance(value, str):
        return value
    try:
        return import_string(value)
    except (ImportError, TypeError) as error:  # a relative path is a TypeError
        # A module of a sibling itself must be what is missing, and not something that it imports.
        missing = f"{error.name}." if isinstance(error, ModuleNotFoundError) else None
        for module, distribution in _SIBLINGS.items():
            if missing and f"{module}.".startswith(missing) and f"{value}.".startswith(f"{module}."):
                raise BrokenSettingError(
                    "airlock.E004",
                    f"AIRLOCK[{key!r}] is {value!r}, and {distribution} is not installed.",
                    f"Run: pip install {distribution}",
                ) from error
        raise BrokenSettingError(
            "airlock.E002",
            f"AIRLOCK[{key!r}] is {value!r}, which cannot be imported: {error}.",
            "Correct the dotted path, or what it leads to.",
        ) from error


def _called(key: str, factory: Any) -> Any:
    try:
        return factory()
    except TypeError as error:
        raise BrokenSettingError(
            "airlock.E003",
            f"AIRLOCK[{key!r}] is {factory!r}, which cannot be called without arguments: {error}.",
            "Give an instance instead, or the dotted path of one.",
        ) from error


def _wrong_kind(key: str, value: object, right: str) -> BrokenSettingError:
    return BrokenSettingError("airlock.E003", f"AIRLOCK[{key!r}] is {value!r}.", f"Make it {right}.")
