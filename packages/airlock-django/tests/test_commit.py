"""What only a real COMMIT shows: these tests do not run inside the test runner's transaction."""

import threading
from contextlib import suppress

import pytest
from django.contrib.sessions.models import Session
from django.db import Error, connection, transaction
from django.db.transaction import atomic
from django.utils import timezone

import airlock

pytestmark = [
    pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"], indirect=True, scope="session"),
    pytest.mark.django_db(transaction=True),
]


def save(key):
    Session.objects.create(session_key=key, expire_date=timezone.now())


def seen_by_others():
    """The keys that another connection sees: what was committed."""
    seen = []

    def look():
        seen.extend(Session.objects.order_by("session_key").values_list("session_key", flat=True))
        connection.close()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return seen


@pytest.fixture
def seen(settings):
    """What others saw in the database when each intent was dispatched."""
    seen = []
    settings.AIRLOCK = {"EXECUTOR": lambda intent: seen.append((intent.name, seen_by_others()))}
    return seen


def test_when_a_scope_around_the_transaction_dispatches_others_see_what_was_committed(seen):
    with airlock.scope():
        with atomic():
            save("a")
            airlock.enqueue(abs, 1, _name="first")
        with atomic():
            save("b")

    assert seen == [("first", ["a", "b"])]


def test_when_a_scope_inside_the_transaction_dispatches_others_see_what_was_committed(seen):
    with atomic():
        with airlock.scope():
            save("a")
            airlock.enqueue(abs, 1, _name="first")
        with atomic():
            save("b")
        assert seen == []

    assert seen == [("first", ["a", "b"])]


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


@pytest.mark.parametrize("scope_is", ["around", "inside"])
def test_commit_that_the_database_refuses_drops_the_intents(ran, checked_at_commit, scope_is):
    scope = airlock.scope()
    if scope_is == "around":
        scope.enter()
    with pytest.raises(Error), atomic():
        if scope_is == "inside":
            scope.enter()
        intent = airlock.enqueue(ran.append, 1)
        with connection.cursor() as cursor:
            cursor.execute(checked_at_commit)
        if scope_is == "inside":
            scope.exit()
            scope.flush()
    if scope_is == "around":
        scope.exit()
        scope.flush()

    assert ran == []
    assert scope.rolled_back_intents == [intent]


def test_connection_closed_in_a_transaction_drops_the_intents(ran):
    with airlock.scope() as scope, atomic():
        save("a")
        intent = airlock.enqueue(ran.append, 1)
        connection.close()

    assert seen_by_others() == []
    assert ran == []
    assert scope.rolled_back_intents == [intent]


def test_enqueued_after_the_connection_was_closed_in_the_transaction_is_dropped_too(ran):
    with airlock.scope():
        with suppress(Error), atomic():
            save("a")
            connection.close()
            airlock.enqueue(ran.append, 1)
        with atomic():
            save("b")
            airlock.enqueue(ran.append, 2)

    assert seen_by_others() == ["b"]
    assert ran == [2]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_connection_that_the_server_ends_in_a_transaction_drops_the_intents(ran):
    def end_connection():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [backend])
        connection.close()

    with airlock.scope() as scope, suppress(Error), atomic():
        save("a")
        intent = airlock.enqueue(ran.append, 1)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (backend,) = cursor.fetchone()
        other = threading.Thread(target=end_connection)
        other.start()
        other.join()
        save("b")
    connection.close()

    assert seen_by_others() == []
    assert ran == []
    assert scope.rolled_back_intents == [intent]


# Beside the callbacks of others


def test_effects_go_out_before_the_on_commit_callbacks_of_others_so_that_none_can_prevent_them(ran):
    with atomic():
        transaction.on_commit(lambda: ran.append("callback before"))
        with airlock.scope():
            airlock.enqueue(ran.append, "first effect")
            transaction.on_commit(lambda: ran.append("callback inside"))
            airlock.enqueue(ran.append, "second effect")
        transaction.on_commit(lambda: ran.append("callback after"))

    assert ran == ["first effect", "second effect", "callback before", "callback inside", "callback after"]


def test_scope_in_an_on_commit_callback_dispatches_at_its_end(ran):
    def callback():
        with airlock.scope():
            airlock.enqueue(ran.append, "effect")
        ran.append("after the scope")

    with atomic():
        transaction.on_commit(callback)

    assert ran == ["effect", "after the scope"]


def test_scope_that_ends_in_an_on_commit_callback_dispatches_what_that_commit_committed(ran):
    def callback():
        scope.exit()
        scope.flush()

    scope = airlock.scope()
    with atomic():
        scope.enter()
        airlock.enqueue(ran.append, 1)
        transaction.on_commit(callback)
        airlock.enqueue(ran.append, 2)
        with atomic():
            airlock.enqueue(ran.append, 3)

    assert ran == [1, 2, 3]
    assert scope.rolled_back_intents == []


def test_on_commit_callback_of_someone_else_that_fails_does_not_make_a_commit_a_rollback(ran):
    def fails():
        raise ValueError

    with airlock.scope() as scope, suppress(ValueError), atomic():
        transaction.on_commit(fails)
        intent = airlock.enqueue(ran.append, 1)

    assert scope.rolled_back_intents == []
    assert ran == [1]
    assert scope.dispatched_intents == [intent]


def test_scopes_that_wait_for_a_commit_beside_a_callback_that_fails_have_their_effects_in_order(ran):
    def fails():
        raise ValueError

    with suppress(ValueError), atomic():
        transaction.on_commit(fails)
        for number in range(3):
            with airlock.scope(), atomic():
                airlock.enqueue(ran.append, number)
            transaction.on_commit(fails)
        with suppress(KeyError), atomic():
            with airlock.scope() as rolled_back:
                airlock.enqueue(ran.append, 3)
            raise KeyError

    assert ran == [0, 1, 2]
    assert len(rolled_back.rolled_back_intents) == 1


def test_scopes_that_wait_for_the_same_commit_are_waiting_until_it_is_their_turn(ran):
    with atomic():
        with airlock.scope() as first:
            airlock.enqueue(lambda: ran.append((second.rolled_back_intents, second.undispatched_intents)))
        with airlock.scope() as second:
            waiting = airlock.enqueue(ran.append, 2)

    assert first.dispatched_intents
    assert ran == [([], [waiting]), 2]
