"""The project of `celery_orders` in Django: what `celery -A django_orders.celery` gets."""
