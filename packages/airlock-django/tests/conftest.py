"""A Django project for the tests of airlock-django."""

import importlib.util
import logging
from contextlib import contextmanager, suppress

import django
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings as django_settings
from django.db import connections
from django.db.transaction import atomic
from django.test import AsyncClient, Client
from django.test.utils import setup_databases, teardown_databases
from django.urls import path

import airlock

# It needs a newer release of Django 4.2 than the lowest that Airlock allows.
collect_ignore = [] if importlib.util.find_spec("debug_toolbar") else ["test_toolbar.py"]


def pytest_configure():
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    django_settings.configure(
        SECRET_KEY="only for tests",
        ALLOWED_HOSTS=["testserver"],
        DATABASES={"default": sqlite, "other": {**sqlite}},
        INSTALLED_APPS=["django.contrib.sessions", "airlock.integrations.django"],
        MIDDLEWARE=["airlock.integrations.django.AirlockMiddleware"],
        ROOT_URLCONF=(),
        STATIC_URL="/static/",  # which live servers serve
        USE_TZ=True,
    )
    django.setup()


@pytest.fixture(scope="session")
def database(request, tmp_path_factory, django_test_environment, django_db_blocker):
    """The default database: SQLite, unless a test is parametrized otherwise. `other` is a second one, on SQLite."""
    name = getattr(request, "param", "sqlite")
    if name == "sqlite":
        # In a file, as other threads look at it.
        file = tmp_path_factory.mktemp("database") / "test.sqlite3"
        address = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "TEST": {"NAME": str(file)}}
    else:
        address = dict(request.getfixturevalue(f"{name}_database"))
    before = connections.settings["default"]
    connections.settings.update(connections.configure_settings({"default": address}))
    connections["default"] = connections.create_connection("default")
    with django_db_blocker.unblock():
        made = setup_databases(verbosity=0, interactive=False)
    yield name
    with django_db_blocker.unblock():
        teardown_databases(made, verbosity=0)
    connections.settings["default"] = before
    connections["default"] = connections.create_connection("default")


@pytest.fixture(scope="session")
def django_db_setup(database):
    """What pytest-django asks for before a test uses the database; `database` has done it."""


@pytest.fixture(params=["WSGI", "ASGI"])
def get(request, settings):
    """A function that has Django's sync or async handler answer a request with a view, and returns the response.

    As for a browser, an exception is a response with status 500. The response has the request's `airlock_scope`.
    """

    async def in_event_loop(query):
        return await AsyncClient(raise_request_exception=False).get(f"/?{query}")

    def get(view, query=""):
        settings.ROOT_URLCONF = (path("", view),)
        if request.param == "WSGI":
            response = Client(raise_request_exception=False).get(f"/?{query}")
            answered = response.wsgi_request
        else:
            # `async_to_sync` lets the view have the thread, and with it the database connection, of the test.
            response = async_to_sync(in_event_loop)(query)
            answered = response.asgi_request
        response.airlock_scope = getattr(answered, "airlock_scope", None)
        return response

    return get


@pytest.fixture(params=["sync view", "async view"])
def as_view(request):
    """Makes a view of a function; an async one calls it in a thread, as the ORM needs it."""

    def as_view(function):
        if request.param == "sync view":
            return function

        async def view(request):
            return await sync_to_async(function)(request)

        return view

    return as_view


class RollBackError(Exception):
    """Leaves an `atomic` block in a way that rolls it back."""


@pytest.fixture
def rolled_back():
    """Like `atomic`, and an exception at the end of the block rolls it back."""

    @contextmanager
    def rolled_back(*args, **kwargs):
        with suppress(RollBackError), atomic(*args, **kwargs):
            yield
            raise RollBackError

    return rolled_back


@pytest.fixture(params=["commits", "rolls back"])
def block(request, rolled_back):
    """`atomic`, or what rolls back instead."""
    return atomic if request.param == "commits" else rolled_back


@pytest.fixture(params=["scope around", "scope inside"])
def boundary(request):
    """Opens a scope around a transaction, or inside of one."""

    @contextmanager
    def boundary(block=atomic, **arguments):
        scope, transaction = airlock.scope(**arguments), block()
        outer, inner = (scope, transaction) if request.param == "scope around" else (transaction, scope)
        with outer, inner:
            yield scope

    return boundary


@pytest.fixture(autouse=True)
def _leave_as_found():
    yield
    airlock.reset_configuration()
    left_over = []
    while (scope := airlock.get_current_scope()) and scope.is_active:
        left_over.append(scope)
        scope.exit()
    assert not left_over, "the test did not leave its scopes"


@pytest.fixture
def ran():
    """What has run so far. The task of most tests is `ran.append`: it runs in place and is easy to see."""
    return []


@pytest.fixture
def log(caplog):
    """What was logged to `airlock`."""
    caplog.set_level(logging.INFO, logger="airlock")
    return caplog
