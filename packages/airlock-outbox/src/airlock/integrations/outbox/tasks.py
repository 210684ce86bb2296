"""The relay as a Celery task, for sites that would rather have beat start it than run one more process."""

from __future__ import annotations

from celery import shared_task

from airlock.integrations.outbox._relay import Relay, databases, drain


@shared_task(name="airlock.outbox.relay", ignore_result=True, acks_late=False)
def relay() -> int:
    """Dispatch what is due. Have beat call it as often as leftovers may wait.

    Returns:
        How many entries it has taken.
    """
    return drain([Relay(alias) for alias in databases()])
