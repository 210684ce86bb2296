"""A Django project with an outbox, for test_outbox_relay.py. As Celery's guide for Django has it."""

from relayed.celery import app

__all__ = ["app"]
