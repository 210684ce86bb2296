"""A small Django project for test_django_servers.py, which knows no more of Airlock than a user's does."""
