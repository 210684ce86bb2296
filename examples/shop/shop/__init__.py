"""A small shop: checkout, orders, and a Celery app. An example to copy from."""
