"""Commits that the database refuses, or turns into rollbacks."""

import threading
from contextlib import contextmanager, suppress

import pytest
from django.contrib.sessions.models import Session
from django.db import Error, connection, transaction
from django.db.transaction import atomic

import airlock

pytestmark = [pytest.mark.usefixtures("database"), pytest.mark.django_db(transaction=True)]


def on(*databases):
    return pytest.mark.parametrize("database", databases, indirect=True, scope="session")


@contextmanager
def refused():
    with suppress(Error), atomic():
        yield


@pytest.fixture
def checked_at_commit(database):
    """A statement that the database refuses at COMMIT, and not before."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE parent (id integer PRIMARY KEY)")
        cursor.execute("CREATE TABLE child (parent integer REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)")
    yield "INSERT INTO child VALUES (1)"
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE child")
        cursor.execute("DROP TABLE parent")


@on("sqlite", "postgresql")
def test_refused_commit_drops_the_intents(ran, checked_at_commit, boundary):
    with boundary(refused) as scope:
        airlock.enqueue(ran.append, 1)
        with connection.cursor() as cursor:
            cursor.execute(checked_at_commit)

    assert ran == []
    assert len(scope.rolled_back_intents) == 1


@on("postgresql")
def test_connection_ended_by_the_server_drops_the_intents(ran):
    def end_connection():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [backend])
        connection.close()

    with airlock.scope() as scope, suppress(Error), atomic():
        airlock.enqueue(ran.append, 1)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (backend,) = cursor.fetchone()
        other = threading.Thread(target=end_connection)
        other.start()
        other.join()
        Session.objects.count()
    connection.close()

    assert ran == []
    assert len(scope.rolled_back_intents) == 1


@on("postgresql")
def test_query_error_caught_inside_its_block_goes_as_with_on_commit(ran):
    """PostgreSQL answers this COMMIT with ROLLBACK, and Django takes it for a commit."""
    with airlock.scope(), atomic():
        with suppress(Error), connection.cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")
        transaction.on_commit(lambda: ran.append("callback"))
        airlock.enqueue(ran.append, "effect")

    assert ran == ["callback", "effect"]
