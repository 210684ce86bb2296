"""The setting `AIRLOCK`: read when it is needed, so that `override_settings` works."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from django.conf import ENVIRONMENT_VARIABLE, settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from airlock import Scope
from airlock.ext import set_defaults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airlock import Executor, Intent
    from airlock.ext import Carrier

#: Modules of sibling distributions, and what to install for them.
_SIBLINGS = {
    "airlock.integrations.celery": "airlock-celery",
    "airlock.integrations.executors.celery": "airlock-celery",
    "airlock.integrations.executors.django_q": '"airlock-queues[django-q2]"',
    "airlock.integrations.executors.dramatiq": '"airlock-queues[dramatiq]"',
    "airlock.integrations.executors.huey": '"airlock-queues[huey]"',
    "airlock.integrations.executors.rq": '"airlock-queues[rq]"',
    "airlock.integrations.outbox": "airlock-outbox",
}


class BrokenSettingError(ImproperlyConfigured):
    """One thing that is wrong with `AIRLOCK`, and what to do about it."""

    def __init__(self, check_id: str, problem: str, hint: str) -> None:
        super().__init__(f"{problem} {hint}")
        self.check_id = check_id
        self.problem = problem
        self.hint = hint


@dataclass(frozen=True)
class ExplainOptions:
    """What can be set in `AIRLOCK["EXPLAIN"]`. There, the names are written in capitals."""

    #: The alias of a cache in `CACHES`.
    cache: str = "default"
    #: How many records are kept.
    scopes: int = 100


_NOT_CONFIGURED: Mapping[str, Any] = {}
#: The setting as it was read last, and what it stands for.
_latest: tuple[Mapping[str, Any], Mapping[str, Any]] = {}, _NOT_CONFIGURED


def defaults() -> Mapping[str, Any]:
    """What `airlock.scope()` falls back on in a Django project: the setting `AIRLOCK`.

    It is looked at each time, and read anew if it has changed, so that `override_settings` works.

    Raises:
        ImproperlyConfigured: if the setting cannot be used.
    """
    global _latest
    if not settings.configured and ENVIRONMENT_VARIABLE not in os.environ:
        return _NOT_CONFIGURED
    given = {**_given(), "DEBUG": settings.DEBUG}  # on which the default of CAPTURE_ORIGIN depends
    seen, values = _latest
    # By identity: another executor or policy may be equal, as two empty recorders of a test suite are.
    if given.keys() != seen.keys() or any(given[key] is not seen[key] for key in given):
        values = _read(_given())
        _latest = given, values
    return values


def _read(given: Mapping[str, Any]) -> Mapping[str, Any]:
    for problem in _unknown_keys(given):
        raise problem
    _bypass(given)  # it was applied when the app was loaded, if it could be
    values = {name: _READERS[key](given) for key, name in _CONFIGURES.items()}
    if values["executor"] is None:
        values["executor"] = _celery_executor()
    if values["scope_cls"] is None and not values["scope_kwargs"]:
        from airlock.integrations.django._scope import DjangoScope

        values["scope_cls"] = DjangoScope
    else:
        values["scope_cls"] = _make_scope
    return values


def dispatch_errors() -> Literal["log", "raise"]:
    """What a `DjangoScope` does about a failed dispatch.

    Raises:
        ImproperlyConfigured: if the setting cannot be used.
    """
    return _dispatch_errors(_given())


def explain_options() -> ExplainOptions | None:
    """What is remembered for `manage.py airlock_explain`. `None`: nothing.

    Raises:
        ImproperlyConfigured: if the setting cannot be used.
    """
    return _explain(_given())


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
    if not broken:
        try:
            _make_scope(**_scope_kwargs(given))
        except BrokenSettingError as problem:
            broken.append(problem)
        except ImproperlyConfigured as error:  # what a scope class says itself
            broken.append(
                BrokenSettingError(
                    "airlock.E005",
                    f"AIRLOCK['SCOPE'] makes no scope: {error}",
                    "Do what it says, or set another SCOPE.",
                )
            )
    yield from broken


def _make_scope(**arguments: Any) -> Scope:
    """Make a scope as `AIRLOCK["SCOPE"]` says, and explain what is wrong if that fails."""
    from airlock.integrations.django._scope import DjangoScope

    scope_cls = _scope_cls(_given()) or DjangoScope
    try:
        scope: object = scope_cls(**arguments)
    except TypeError as error:
        raise BrokenSettingError(
            "airlock.E003",
            f"AIRLOCK['SCOPE'] is {scope_cls!r}, which cannot be called with {arguments!r}: {error}.",
            "A scope takes the keyword arguments policy and executor, and those in AIRLOCK['SCOPE_KWARGS'].",
        ) from error
    if not isinstance(scope, Scope):
        raise _wrong_kind("SCOPE", scope_cls, "a callable that makes instances of airlock.Scope")
    return scope


@functools.cache
def _celery_executor() -> Executor | None:
    """With airlock-celery installed, a Celery task shall never run inside a request by default."""
    try:
        from airlock.integrations.executors.celery import celery_executor
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "airlock":
            raise  # airlock-celery is there, and something that it needs is not
        return None
    return celery_executor


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


def _carriers(given: Mapping[str, Any]) -> tuple[Carrier, ...]:
    carriers = given.get("CARRIERS", ())
    if not isinstance(carriers, (list, tuple)):
        raise _wrong_kind("CARRIERS", carriers, "a list of callables, or of their dotted paths")
    imported = tuple(_import("CARRIERS", carrier) for carrier in carriers)
    for carrier in imported:
        if not callable(carrier):
            raise _wrong_kind("CARRIERS", carriers, "a list of callables, each of which returns a context manager")
    return imported


def _redactor(given: Mapping[str, Any]) -> Callable[[Intent], str] | None:
    redactor: Any = _imported(given, "REDACTOR")
    if redactor is not None and not callable(redactor):
        raise _wrong_kind("REDACTOR", redactor, "a callable that takes an intent and returns a string, or its path")
    return cast("Callable[[Intent], str] | None", redactor)


def _dispatch_errors(given: Mapping[str, Any]) -> Literal["log", "raise"]:
    dispatch_errors = given.get("DISPATCH_ERRORS", "log")
    if dispatch_errors not in ("log", "raise"):
        raise _wrong_kind("DISPATCH_ERRORS", dispatch_errors, '"log", or in tests "raise"')
    return cast('Literal["log", "raise"]', dispatch_errors)


#: More would be slow to look through.
_MOST_SCOPES = 1000


def _explain(given: Mapping[str, Any]) -> ExplainOptions | None:
    explain = given.get("EXPLAIN")
    if explain is None:
        return None
    if not isinstance(explain, Mapping):
        raise _wrong_kind("EXPLAIN", explain, 'a dictionary, such as {"CACHE": "default", "SCOPES": 100}')
    for key in explain.keys() - {"CACHE", "SCOPES"}:
        raise BrokenSettingError(
            "airlock.E001", f"AIRLOCK['EXPLAIN'] has the unknown key {key!r}.", "The keys are CACHE, SCOPES."
        )
    options = ExplainOptions(**{key.lower(): value for key, value in explain.items()})
    if options.cache not in list(settings.CACHES):  # whatever was given, a list too
        aliases = ", ".join(map(repr, settings.CACHES))
        raise _wrong_kind("EXPLAIN", explain, f"a dictionary whose CACHE is an alias in CACHES: {aliases}")
    if type(options.scopes) is not int or not 1 <= options.scopes <= _MOST_SCOPES:
        raise _wrong_kind("EXPLAIN", explain, f"a dictionary whose SCOPES is a number from 1 to {_MOST_SCOPES}")
    return options


def bypass() -> Literal["ignore", "warn", "raise"]:
    """What to do about tasks that are published directly: nothing, if the setting cannot be used."""
    try:
        return _bypass(_given())
    except ImproperlyConfigured:
        return "ignore"


def _bypass(given: Mapping[str, Any]) -> Literal["ignore", "warn", "raise"]:
    bypass: Any = given.get("BYPASS", "ignore")
    if bypass not in ("ignore", "warn", "raise"):
        raise _wrong_kind("BYPASS", bypass, '"ignore", "warn" or "raise"')
    if bypass != "ignore":
        _import("BYPASS", "airlock.integrations.celery.report_bypasses")
    return cast('Literal["ignore", "warn", "raise"]', bypass)


def _outbox(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of airlock-outbox, which reads them itself."""
    outbox = given.get("OUTBOX", {})
    if not isinstance(outbox, Mapping):
        raise _wrong_kind("OUTBOX", outbox, "a dictionary of options for airlock-outbox")
    return outbox


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "EXECUTOR": _executor,
    "POLICY": _policy,
    "SCOPE": _scope_cls,
    "SCOPE_KWARGS": _scope_kwargs,
    "CAPTURE_ORIGIN": _capture_origin,
    "CARRIERS": _carriers,
    "REDACTOR": _redactor,
    "DISPATCH_ERRORS": _dispatch_errors,
    "EXPLAIN": _explain,
    "BYPASS": _bypass,
    "OUTBOX": _outbox,
}

#: Which argument of `airlock.configure` a key stands for.
_CONFIGURES = {
    "EXECUTOR": "executor",
    "POLICY": "policy",
    "SCOPE": "scope_cls",
    "SCOPE_KWARGS": "scope_kwargs",
    "CAPTURE_ORIGIN": "capture_origin",
    "CARRIERS": "carriers",
    "REDACTOR": "redactor",
}


def _imported(given: Mapping[str, Any], key: str) -> Any:
    return _import(key, given.get(key))


def _import(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return import_string(value)
    except (ImportError, TypeError, ValueError) as error:  # the latter two are about relative paths
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


set_defaults(defaults)
