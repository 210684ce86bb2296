"""System checks."""

import subprocess
import sys
from contextlib import ExitStack, contextmanager

import django
import pytest
from celery import Celery
from django.contrib.sessions.models import Session
from django.core import checks
from django.core.management import call_command
from django.db import connection, connections

import airlock
from airlock.integrations.executors.celery import CeleryExecutor
from airlock.integrations.outbox import OutboxScope
from airlock.integrations.outbox.models import Entry, InboxEntry

every_database = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql", "mariadb"], indirect=True, scope="session"
)


def found(**arguments):
    """The ids of what the checks of the outbox find."""
    return [message.id for message in messages(**arguments)]


def messages(**arguments):
    return [message for message in checks.run_checks(**arguments) if (message.id or "").startswith("airlock.outbox.")]


SQLITE = "django.db.backends.sqlite3"
#: `transaction_mode` is an option since Django 5.1.
has_modes = django.VERSION >= (5, 1)


@contextmanager
def replaced(alias, address):
    """Replaces a database by one that is not connected to."""
    before = connections[alias], connections.settings[alias]
    connections.settings[alias] = connections.configure_settings({"default": address})["default"]
    connections[alias] = connections.create_connection(alias)
    yield
    connections[alias], connections.settings[alias] = before


@pytest.fixture
def address():
    """Replaces the database `other` by that of an address."""
    with ExitStack() as at_end:
        yield lambda **address: at_end.enter_context(replaced("other", address))


@pytest.fixture(autouse=True)
def _good_project(request, app):
    """Nothing is to be said about the project of these tests. (That of the others has its broker in memory.)"""
    app.conf.update(broker_url="redis://127.0.0.1:1", broker_transport_options={"socket_timeout": 10})
    with ExitStack() as at_end:
        if "database" not in request.fixturenames:
            for alias in ("default", "other"):
                at_end.enter_context(replaced(alias, {"ENGINE": SQLITE, "NAME": ":memory:"}))
        yield


@pytest.fixture
def route(settings):
    """Has the database router of the project decide where models may be, and where they are written."""

    def route(allows=lambda db, app: True, writes=lambda model: "default"):
        class Router:
            def allow_migrate(self, db, app_label, **hints):
                return allows(db, app_label)

            def db_for_write(self, model, **hints):
                return writes(model)

        settings.DATABASE_ROUTERS = [Router()]

    return route


def test_good_project_has_nothing_to_be_said():
    assert found() == []


# -- The setting -------------------------------------------------------------------------------------------------------


def test_unusable_options_are_errors(outbox):
    outbox(HOLD=1, ORPHANS="lose")

    wrong = messages()

    assert [message.id for message in wrong] == ["airlock.outbox.E001", "airlock.outbox.E001"]
    assert all(message.is_serious() and message.hint for message in wrong)


@pytest.mark.parametrize("setting", [None, {"OUTBOX": None}])
def test_setting_of_the_wrong_kind_is_not_ours_to_check(settings, setting):
    settings.AIRLOCK = setting

    ids = [message.id for message in checks.run_checks()]
    assert "airlock.E003" in ids
    assert "airlock.outbox.E001" not in ids


@pytest.mark.parametrize(("seconds", "ids"), [(59, ["airlock.outbox.W001"]), (60, [])])
def test_hold_that_a_request_may_outlive(outbox, seconds, ids):
    outbox(HOLD_SECONDS=seconds)

    assert found() == ids


@pytest.mark.parametrize(
    "setting", [{}, {"SCOPE": "airlock.integrations.django.DjangoScope"}, {"SCOPE": lambda **given: airlock.Scope()}]
)
def test_scopes_that_do_not_record(settings, setting):
    settings.AIRLOCK = setting

    assert found() == ["airlock.outbox.W002"]


def test_callable_that_makes_outbox_scopes(settings):
    settings.AIRLOCK = {"SCOPE": lambda **given: OutboxScope(**given)}

    assert found() == []


def test_scope_that_cannot_be_made_is_not_ours_to_check(settings):
    settings.AIRLOCK = {"SCOPE": "shop.Scope"}

    assert found() == []


def test_executor_without_a_name(settings):
    settings.AIRLOCK = {"SCOPE": lambda policy=None, executor=None: OutboxScope(policy, executor=CeleryExecutor())}

    (message,) = messages()

    assert message.id == "airlock.outbox.E002"
    assert message.msg.endswith("cannot be recorded.")
    assert message.hint.startswith("Another process has to find it")


def test_configured_executor_needs_no_name(settings):
    settings.AIRLOCK = {**settings.AIRLOCK, "EXECUTOR": lambda intent: None}

    assert found() == []


NOT_INSTALLED = """
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["airlock.integrations.django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    AIRLOCK={"SCOPE": "airlock.integrations.outbox.OutboxScope"},
)
django.setup()
import airlock
for _ in range(2):
    try:
        airlock.scope()
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_scope_without_the_app_says_what_to_do():
    said = subprocess.run(
        [sys.executable, "-c", NOT_INSTALLED], capture_output=True, text=True, timeout=60, check=True
    ).stdout.splitlines()

    assert len(said) == 2
    for line in said:
        assert line.startswith("ImproperlyConfigured OutboxScope has no tables")
        assert 'Add "airlock.integrations.outbox" to INSTALLED_APPS' in line


# -- The broker --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "ids"),
    [
        ("memory://", ["airlock.outbox.W003"]),
        ("filesystem://", ["airlock.outbox.W003"]),
        ("redis://127.0.0.1:1", []),
        ("amqp://127.0.0.1:1", ["airlock.outbox.W010"]),
        ("", ["airlock.outbox.W010"]),
    ],
)
def test_broker_that_may_lose_what_it_accepted(app, url, ids):
    app.conf.broker_url = url

    assert found() == ids


def test_confirmed_messages_of_rabbitmq(app):
    app.conf.update(broker_url="amqp://127.0.0.1:1", broker_transport_options={"confirm_publish": True})

    assert found() == []


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+socket", "sentinel"])
def test_redis_that_is_waited_for_without_end(app, scheme):
    app.conf.update(broker_url=f"{scheme}://127.0.0.1:1", broker_transport_options={"socket_connect_timeout": 10})

    assert found() == ["airlock.outbox.W011"]


def test_app_that_is_not_loaded_has_no_broker(settings):
    not_loaded = Celery("default", set_as_current=False)  # as `celery.current_app` is then
    settings.AIRLOCK = {**settings.AIRLOCK, "EXECUTOR": CeleryExecutor(not_loaded)}

    assert found() == []


def test_messages_that_do_not_survive_a_restart_of_rabbitmq(app):
    app.conf.update(broker_url="amqp://127.0.0.1:1", task_default_delivery_mode="transient")

    (message,) = messages()

    assert message.id == "airlock.outbox.W003"
    assert "task_default_delivery_mode" in message.msg


def test_broker_of_another_executor_does_not_matter(settings, app):
    app.conf.broker_url = "memory://"
    settings.AIRLOCK = {**settings.AIRLOCK, "EXECUTOR": lambda intent: None}

    assert found() == []


# -- Databases, which are not asked ------------------------------------------------------------------------------------


def test_tables_that_may_be_nowhere(route):
    route(allows=lambda db, app: app != "airlock_outbox")

    assert found() == ["airlock.outbox.E003"]


def test_tables_that_are_written_where_they_may_not_be(route):
    route(
        allows=lambda db, app: app != "airlock_outbox" or db == "default",
        writes=lambda model: "other" if issubclass(model, (Entry, InboxEntry)) else "default",
    )

    assert found() == ["airlock.outbox.E004", "airlock.outbox.E004", "airlock.outbox.W004"]


def test_transactions_that_are_not_recorded(route):
    route(
        allows=lambda db, app: app != "airlock_outbox" or db == "default",
        writes=lambda model: "other" if model is Session else "default",
    )

    (message,) = messages()

    assert (message.id, message.obj) == ("airlock.outbox.W004", "other")


def test_database_that_nothing_is_written_to_needs_no_tables(route):
    route(allows=lambda db, app: app != "airlock_outbox" or db == "default")

    assert found() == []


if has_modes:

    @pytest.mark.parametrize("mode", ["IMMEDIATE", "exclusive"])
    def test_sqlite_that_begins_as_a_writer(address, mode):
        address(ENGINE=SQLITE, NAME="shop.sqlite3", OPTIONS={"transaction_mode": mode})

        assert found() == []


@pytest.mark.parametrize("mode", [None, *(["DEFERRED"] if has_modes else [])])
def test_sqlite_that_begins_as_a_reader(address, mode):
    address(ENGINE=SQLITE, NAME="shop.sqlite3", OPTIONS={"transaction_mode": mode} if mode else {})

    (message,) = messages()

    assert (message.id, message.obj) == ("airlock.outbox.W005", "other")
    assert "transaction_mode" in message.hint


@pytest.mark.parametrize("name", [":memory:", "file:shop?mode=memory"])
def test_sqlite_in_memory_has_no_other_writers(address, name):
    address(ENGINE=SQLITE, NAME=name)

    assert found() == []


def test_notify_needs_postgresql(outbox):
    outbox(NOTIFY=True)

    assert found() == ["airlock.outbox.W006", "airlock.outbox.W006"]


@pytest.mark.parametrize(("is_psycopg3", "count"), [(True, 1), (False, 2)])
def test_notify_needs_psycopg_3(outbox, address, monkeypatch, is_psycopg3, count):
    from django.db.backends.postgresql import psycopg_any

    outbox(NOTIFY=True)
    address(ENGINE="django.db.backends.postgresql", NAME="shop")
    monkeypatch.setattr(psycopg_any, "is_psycopg3", is_psycopg3)

    assert found() == ["airlock.outbox.W006"] * count


# -- Databases, which are asked ----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@every_database
class TestDatabase:
    @pytest.fixture
    def _unmigrated(self, database):
        call_command("migrate", "airlock_outbox", "zero", verbosity=0)
        yield
        call_command("migrate", "airlock_outbox", verbosity=0)

    @pytest.mark.usefixtures("_unmigrated")
    def test_without_tables(self):
        (message,) = (message for message in messages(databases=["default"]) if message.id == "airlock.outbox.W007")

        assert message.hint == "Run: manage.py migrate airlock_outbox --database default"
        assert not message.is_serious(), "`migrate` would refuse to run"

    def test_with_tables(self, database):
        assert "airlock.outbox.W007" not in found(databases=["default"])

    @pytest.mark.usefixtures("_unmigrated")
    def test_that_nobody_asks_about(self):
        assert "airlock.outbox.W007" not in found()
        assert "airlock.outbox.W007" not in found(databases=["other"])

    @pytest.mark.usefixtures("_unmigrated")
    def test_that_may_have_no_tables(self, route):
        route(allows=lambda db, app: app != "airlock_outbox" or db == "other")

        assert "airlock.outbox.W007" not in found(databases=["default"])

    def test_old_version(self, database, monkeypatch):
        monkeypatch.setattr(connection.features, "has_select_for_update_skip_locked", False)

        assert ("airlock.outbox.W009" in found(databases=["default"])) == (database == "mariadb")


@pytest.mark.django_db(transaction=True)
def test_sqlite_without_wal(database):
    assert "airlock.outbox.W008" in found(databases=["default"])


@pytest.mark.django_db(transaction=True)
def test_sqlite_with_wal(database):
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")
    try:
        assert "airlock.outbox.W008" not in found(databases=["default"])
    finally:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode=DELETE")
