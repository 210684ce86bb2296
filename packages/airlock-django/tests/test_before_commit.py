"""What integrations do right before a COMMIT."""

from contextlib import suppress

import pytest
from django.contrib.sessions.models import Session
from django.db import OperationalError, connection, connections, transaction
from django.db.transaction import atomic
from django.utils import timezone

import airlock
from airlock.ext import open_fates

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
]

every_database = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql", "mariadb"], indirect=True, scope="session"
)


def save(key):
    Session.objects.create(session_key=key, expire_date=timezone.now())


def keys():
    return list(Session.objects.order_by("session_key").values_list("session_key", flat=True))


def before_commit(callback):
    """Have something done before the COMMIT of what is open here."""
    [fate] = open_fates()
    return fate.transaction.before_commit(lambda _: callback)


def fails(error):
    def fail():
        raise error

    return fail


@every_database
def test_it_is_a_part_of_the_transaction(ran):
    with atomic():
        save("a")
        before_commit(lambda: (ran.extend(keys()), save("b")))
        transaction.on_commit(lambda: ran.append("committed"))

    assert ran == ["a", "committed"]
    assert keys() == ["a", "b"]


def test_it_comes_with_the_commit_of_the_outermost_block(ran, rolled_back):
    with atomic():
        with atomic():
            before_commit(lambda: ran.append("before"))
        assert ran == []
    assert ran == ["before"]


def test_it_does_not_come_with_a_rollback(ran, rolled_back):
    with rolled_back():
        before_commit(lambda: ran.append("before"))
    with atomic():
        save("a")

    assert ran == []


def test_it_is_made_once_for_each_transaction():
    made = []

    def make(transaction):
        made.append(transaction)
        return lambda: None

    def ask():
        [fate] = open_fates()
        return fate.transaction.before_commit(make)

    with atomic():
        first = ask()
        with atomic():
            assert ask() is first
    with atomic():
        assert ask() is not first

    assert [transaction.connection for transaction in made] == [connection, connection]


def test_each_alias_has_its_own(ran):
    with atomic("other"):
        before_commit(lambda: ran.append("other"))
        with atomic("default"):
            of_default = next(fate for fate in open_fates() if fate.transaction.connection.alias == "default")
            of_default.transaction.before_commit(lambda _: lambda: ran.append("default"))
        assert ran == ["default"]

    assert ran == ["default", "other"]


@every_database
def test_database_error_rolls_back_and_is_handled(ran):
    error = OperationalError("no")
    with pytest.raises(OperationalError) as raised, atomic():
        save("a")
        before_commit(fails(error))
        transaction.on_commit(lambda: ran.append("committed"))

    assert raised.value is error
    assert keys() == ran == []


@every_database
def test_other_error_rolls_back_and_is_handled(ran):
    error = ValueError("no")
    with pytest.raises(ValueError, match="no") as raised, atomic():
        save("a")
        before_commit(fails(error))
        transaction.on_commit(lambda: ran.append("committed"))

    assert raised.value is error
    with atomic():
        save("b")
    assert keys() == ["b"]
    assert ran == []


@every_database
def test_interruption_rolls_back(ran):
    with pytest.raises(KeyboardInterrupt), atomic():
        save("a")
        before_commit(fails(KeyboardInterrupt()))
        transaction.on_commit(lambda: ran.append("committed"))

    with atomic():
        save("b")
    assert keys() == ["b"]
    assert ran == []


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True, scope="session")
def test_interruption_on_a_connection_that_is_lost_is_handled(database):
    def lose():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()" if database == "postgresql" else "SELECT CONNECTION_ID()")
            (number,) = cursor.fetchone()
        other = connections.create_connection("default")
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)" if database == "postgresql" else "KILL %s", [number])
        other.close()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic():
        save("a")
        before_commit(lose)

    assert keys() == []


def test_effects_of_a_transaction_that_it_fails_are_dropped(ran):
    with airlock.scope() as scope, suppress(ValueError), atomic():
        airlock.enqueue(ran.append, 1)
        before_commit(fails(ValueError()))

    assert ran == []
    assert len(scope.rolled_back_intents) == 1


def test_commit_inside_of_a_block_is_refused_before_it(ran):
    with atomic():
        before_commit(lambda: ran.append("before"))
        with pytest.raises(transaction.TransactionManagementError):
            connection.commit()
        assert ran == []

    assert ran == ["before"]


@pytest.mark.django_db(databases=["default"])
def test_in_a_test_case_it_never_comes(ran):
    with atomic():
        before_commit(lambda: ran.append("before"))

    assert ran == []
