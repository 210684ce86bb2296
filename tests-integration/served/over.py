"""What the applications see of requests from outside of Django.

About a request with a name (`?name=`) they tell what became of its scope, when the server is done with it; about the
queue of any (`?queue=`), if a scope is current where there should be none.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import django
from django.conf import settings
from django.test.utils import override_settings

import airlock
from served.messages import tell

django.setup()


def handlers(handler_cls: type[Any]) -> dict[str, Any]:
    """A handler for each placement of the middleware that transactions are tested with, besides the usual one."""
    from served.transactions import PLACEMENTS

    found = {"": handler_cls()}
    for placement, middleware in PLACEMENTS.items():
        with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE[:1], *middleware]):
            found[placement] = handler_cls()
    return found


def asked(query: str | bytes) -> dict[str, str]:
    return dict(parse_qsl(query.decode() if isinstance(query, bytes) else query))


def tell_of_leaks(query: dict[str, str]) -> None:
    if airlock.get_current_scope() is not None:
        tell(f"{query['queue']}: leaks")


def tell_of_end(query: dict[str, str], request: Any) -> None:
    tell_of_leaks(query)
    if "name" in query:
        scope = request.airlock_scope
        tell(f"{query['name']}: over", "flushed" if scope.is_flushed else "discarded" if scope.is_discarded else "open")
