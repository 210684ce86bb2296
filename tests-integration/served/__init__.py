"""A Django project in real WSGI and ASGI servers, with real clients, some of which go away too early.

The tests are in `test_*.py`, the views that each asks for in the module of that name; clients and servers are in
`conftest.py`.
"""
