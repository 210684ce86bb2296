"""The database has committed, and the connection is lost before it can say so: Django takes that for a rollback."""

from contextlib import suppress

import pytest
from django.db import OperationalError, connection
from django.db.transaction import atomic

import airlock

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def lost_answer(monkeypatch):
    """The answer to each COMMIT is lost."""
    commit = connection.commit

    def commit_and_lose():
        commit()
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(connection, "commit", commit_and_lose)


@pytest.mark.usefixtures("lost_answer")
def test_what_was_committed_all_the_same_is_left_to_the_relay(add, rows):
    with airlock.scope() as scope, suppress(OperationalError), atomic():
        intent = airlock.enqueue(add, 1)

    assert scope.rolled_back_intents == [intent]  # as far as anybody here can tell
    assert [str(row.id) for row in rows()] == [intent.id]
