"""Records what the shop's effects came to, and shows it in the browser.

The shop does not know of this app. `demo_settings.py` adds it, and it watches from outside, through what Airlock and
Celery offer in public: a subclass of `DjangoScope`, a policy, `request.airlock_scope`, and Celery's signals.
"""
