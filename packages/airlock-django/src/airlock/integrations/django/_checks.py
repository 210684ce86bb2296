"""System checks: the setting `AIRLOCK`, the middleware, and the cache of `airlock_explain`."""

from __future__ import annotations

import difflib
from typing import Any

from django.conf import global_settings, settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from airlock.integrations.django._middleware import AirlockMiddleware
from airlock.integrations.django._ring import Ring
from airlock.integrations.django._settings import explain_options, problems

_MIDDLEWARE = "airlock.integrations.django.AirlockMiddleware"


def check_setting(**_: Any) -> list[checks.CheckMessage]:
    """Errors for what makes `AIRLOCK` unusable, and a warning for a setting that looks like it."""
    messages: list[checks.CheckMessage] = [
        checks.Error(problem.problem, hint=problem.hint, id=problem.check_id) for problem in problems()
    ]
    names = [name for name in dir(settings) if name.isupper() and not hasattr(global_settings, name)]
    messages += [
        checks.Warning(
            f"There is a setting {name}, which Airlock does not read.", hint="Did you mean AIRLOCK?", id="airlock.W001"
        )
        for name in difflib.get_close_matches("AIRLOCK", names, cutoff=0.8)
        if name != "AIRLOCK"
    ]
    return messages


def check_middleware(**_: Any) -> list[checks.CheckMessage]:
    """Warnings for a middleware that is missing, or there more than once."""
    count = sum(has_class(path, AirlockMiddleware) for path in settings.MIDDLEWARE)
    if count == 0:
        return [
            checks.Warning(
                "AirlockMiddleware is not in MIDDLEWARE, so what a view enqueues raises NoScopeError.",
                hint=f'Add "{_MIDDLEWARE}". A project without requests may silence this check.',
                id="airlock.W002",
            )
        ]
    if count > 1:
        return [
            checks.Warning(
                f"AirlockMiddleware is in MIDDLEWARE {count} times. The outer one captures what the inner one lets "
                "go, and decides again.",
                hint="Leave one of them.",
                id="airlock.W003",
            )
        ]
    return []


def check_explain(**_: Any) -> list[checks.CheckMessage]:
    """A warning for a cache that another process does not see."""
    try:
        options = explain_options()
    except ImproperlyConfigured:
        return []  # which `check_setting` says
    kind = None if options is None else Ring(options.cache, options.scopes).kind_of_private_cache()
    if kind is None:
        return []
    return [
        checks.Warning(
            f"AIRLOCK['EXPLAIN'] names a {kind}, so `manage.py airlock_explain` sees nothing: it is another process "
            "than those that remember.",
            hint="Name a cache that all processes share, such as Redis, Memcached or a database.",
            id="airlock.W005",
        )
    ]


def has_class(path: str, kind: type) -> bool:
    """Whether a path in MIDDLEWARE is that of a class, or of a subclass."""
    try:
        middleware = import_string(path)
    except ImportError:
        return False  # which Django will say
    return isinstance(middleware, type) and issubclass(middleware, kind)
