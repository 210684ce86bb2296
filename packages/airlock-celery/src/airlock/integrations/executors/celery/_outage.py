"""Whether it is the broker that has failed, and not what was to be published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from airlock.integrations.executors.celery._batches import is_on_rabbitmq
from airlock.integrations.executors.celery._confirms import ask_for_confirm

if TYPE_CHECKING:
    from celery import Celery

#: How Redis refuses whatever it is given: its memory or its disk is full, it has just started, or is a replica.
_REFUSALS = (
    "command not allowed when used memory > 'maxmemory'",
    "MISCONF ",
    "Redis is loading the dataset in memory",
    "write against a read only replica",
    "NOREPLICAS ",
    "CLUSTERDOWN ",
)


def why_down(app: Celery, error: BaseException | None) -> str | None:
    """Why the broker of an app takes nothing, if so.

    What does not tell by itself is found out by connecting, and on RabbitMQ by publishing: when it blocks publishers,
    it takes connections all the same.
    """
    if error is not None:
        if not isinstance(error, (OperationalError, OSError)):
            return None
        # Kombu's alone: an `apply_async` of the project may have talked to another Redis.
        if isinstance(error, OperationalError) and any(refusal in str(error) for refusal in _REFUSALS):
            return _because(app, error)
    try:
        with app.connection_for_write() as connection:
            # Each of its URLs once.
            connection.ensure_connection(max_retries=max(len(connection.alt) - 1, 0), interval_start=0)
            if is_on_rabbitmq(app):
                ask_for_confirm(connection.connection)
    except Exception as unreachable:
        return _because(app, unreachable)
    return None


def _because(app: Celery, error: BaseException) -> str:
    return f"{app.connection_for_write().as_uri()}: {str(error) or repr(error)}"
