"""The language and the time zone that a coroutine asked for an effect in.

Django keeps them in a `Local` of asgiref. That is a context variable, but since asgiref 3.12 what was set in one thread
is not seen in another. A coroutine enqueues in the thread of its event loop, and the effect is dispatched in the thread
that has the database connections.
"""

from __future__ import annotations

from asyncio import _get_running_loop  # in `__all__`; the public one raises where there is none, which takes longer
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from django.conf import settings
from django.utils import timezone, translation

from airlock.ext import register_carrier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from datetime import tzinfo


def remember_language() -> Callable[[], AbstractContextManager[None]]:
    """Remember the active language and the time zone, for code that runs in another thread.

    Returns:
        Makes a context manager in which they are active again.
    """
    return partial(_override, translation.get_language(), timezone.get_current_timezone())


def _same_language_and_time_zone() -> AbstractContextManager[object] | None:
    if _get_running_loop() is None or not settings.configured:
        return None
    language, time_zone = translation.get_language(), timezone.get_current_timezone()
    if language == settings.LANGUAGE_CODE and time_zone is timezone.get_default_timezone():
        return None
    return _override(language, time_zone)


@contextmanager
def _override(language: str | None, time_zone: tzinfo) -> Iterator[None]:
    # No language: translations are switched off.
    with translation.override(language), timezone.override(time_zone):
        yield


register_carrier(_same_language_and_time_zone)
