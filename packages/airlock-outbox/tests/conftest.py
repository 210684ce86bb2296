"""A Django project with an outbox, and a Celery app, for the tests of airlock-outbox."""

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import django
import pytest
from celery import Celery
from celery.contrib.testing.app import setup_default_app
from django.conf import settings as django_settings
from django.db import connections
from django.db.transaction import atomic
from django.test.utils import setup_databases, teardown_databases

import airlock


def pytest_configure():
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    django_settings.configure(
        SECRET_KEY="only for tests",
        ALLOWED_HOSTS=["testserver"],
        DATABASES={"default": sqlite, "other": {**sqlite}},
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "django.contrib.messages",
            "django.contrib.admin",
            "airlock.integrations.django",
            "airlock.integrations.outbox",
        ],
        MIDDLEWARE=["airlock.integrations.django.AirlockMiddleware"],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        # A slow day makes no test fail.
        AIRLOCK={"SCOPE": "airlock.integrations.outbox.OutboxScope", "OUTBOX": {"FAST_PATH_SECONDS": 60}},
        ROOT_URLCONF=(),
        STATIC_URL="/static/",
        USE_TZ=True,
    )
    django.setup()
    # As a worker does. What is imported within a test, `app` forgets.
    import airlock.integrations.outbox.tasks  # noqa: F401


# -- Databases ---------------------------------------------------------------------------------------------------------


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


# -- Celery ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def app():
    """The Celery app. Its broker is in memory, and `published` takes from it."""
    app = Celery("tests", broker="memory://")
    with setup_default_app(app):  # which restores what is current, and what an app gets of the tasks of others
        app.set_default()
        app.set_current()
        yield app
    app.close()


@pytest.fixture
def add(app):
    """A task."""

    @app.task(name="shop.add")
    def add(x, y=0): ...

    return add


@pytest.fixture
def published(app):
    """Takes the messages that were published by now: the first argument of each."""

    def published():
        with app.connection_for_write() as connection:
            waiting = app.amqp.queues[app.conf.task_default_queue](connection.default_channel)
            waiting.declare()
            return [message.payload[0][0] for message in iter(lambda: waiting.get(no_ack=True), None)]

    published()
    yield published
    published()


@pytest.fixture(autouse=True)
def _begin_as_a_new_process():
    from airlock.integrations.outbox import _holds
    from airlock.integrations.outbox._fast_path import breaker

    breaker.reset()
    _holds.forget_all()


@pytest.fixture(autouse=True)
def _nothing_is_paused():
    from airlock.integrations.outbox import _pausing

    yield
    _pausing.forget()


# -- Airlock -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def outbox(settings):
    """Sets options of the outbox."""

    def outbox(**options):
        settings.AIRLOCK = {**settings.AIRLOCK, "OUTBOX": {**settings.AIRLOCK["OUTBOX"], **options}}

    return outbox


@pytest.fixture
def rows():
    """The entries in a database, in order, as others see them."""

    def look(alias):
        from airlock.integrations.outbox.models import Entry

        try:
            return list(Entry.objects.using(alias).order_by("created"))
        finally:
            connections.close_all()

    def rows(alias="default"):
        with ThreadPoolExecutor() as thread:
            return thread.submit(look, alias).result()

    return rows


@pytest.fixture
def statements():
    """Collects what reads or writes rows of the default database."""
    seen = []

    def note(execute, sql, params, many, context):
        if "airlock_outbox_paused" in sql:  # read every few seconds
            return execute(sql, params, many, context)
        if (verb := sql.split()[0]) in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            seen.append(verb)
        return execute(sql, params, many, context)

    with connections["default"].execute_wrapper(note):
        yield seen


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
    """What has run so far."""
    return []


@pytest.fixture
def log(caplog):
    """What was logged to `airlock`."""
    caplog.set_level(logging.INFO, logger="airlock")
    return caplog
