"""Watches a Django project: what its scopes held, what became of it, and what the worker ran.

The shop knows nothing of it: the demo adds it in `demo_settings.py`. It sees everything from outside, by what Airlock
and Celery offer for it: a subclass of `DjangoScope`, `request.airlock_scope`, and the signals of the worker.
"""
