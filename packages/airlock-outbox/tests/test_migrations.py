"""The migrations, on every database."""

import uuid

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from airlock.integrations.outbox.models import Entry, InboxEntry, PausedTask

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

every_database = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql", "mariadb"], indirect=True, scope="session"
)

TABLES = {"airlock_outbox", "airlock_inbox", "airlock_outbox_paused"}


def tables():
    return TABLES.intersection(connection.introspection.table_names())


@pytest.fixture
def _there_and_back(database):
    call_command("migrate", "airlock_outbox", "zero", verbosity=0)
    yield
    call_command("migrate", "airlock_outbox", verbosity=0)


@every_database
@pytest.mark.usefixtures("_there_and_back")
def test_forwards_backwards_and_forwards_again():
    assert tables() == set()

    for _ in range(2):
        call_command("migrate", "airlock_outbox", verbosity=0)
        assert tables() == TABLES
        now = timezone.now()
        Entry.objects.create(id=uuid.uuid4(), created=now, held=False, task="shop.add", payload="")
        InboxEntry.objects.create(id="1", created=now)
        PausedTask.objects.create(task="shop.add")

        call_command("migrate", "airlock_outbox", "zero", verbosity=0)
        assert tables() == set()


@every_database
def test_there_is_nothing_to_migrate(database):
    call_command("makemigrations", "airlock_outbox", check=True, dry_run=True, verbosity=0)


@every_database
def test_the_index_is_that_of_the_order_by(database):
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, "airlock_outbox")

    assert [index["columns"] for index in constraints.values() if index["index"] and not index["primary_key"]] == [
        ["due", "created"]
    ]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True, scope="session")
def test_postgresql_vacuums_the_table_often(database):
    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE relname = 'airlock_outbox'")
        (options,) = cursor.fetchone()

    assert set(options) == {
        "autovacuum_vacuum_scale_factor=0",
        "autovacuum_vacuum_threshold=1000",
        "autovacuum_vacuum_cost_delay=0",
    }
