"""Records what the shop's effects came to, and shows it in the browser.

The shop does not know of this app. `demo_settings.py` adds it, and it watches from outside, through what Airlock,
Django and Celery offer in public: the events of `airlock.ext.subscribe`, a middleware, and signals.
"""
