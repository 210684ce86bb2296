"""What only a real COMMIT shows, on every database."""

import threading
from contextlib import contextmanager, suppress

import pytest
from django.contrib.sessions.models import Session
from django.db import Error, connection, transaction
from django.db.transaction import atomic
from django.utils import timezone

import airlock

pytestmark = [
    pytest.mark.usefixtures("database"),
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


def test_effects_go_out_when_others_see_the_commit(ran, boundary):
    with boundary():
        save("a")
        airlock.enqueue(lambda: ran.extend(seen_by_others()))
        save("b")
        assert ran == []

    assert ran == ["a", "b"]


def test_rolled_back_savepoint_drops_its_intents_and_its_rows(ran, rolled_back):
    with airlock.scope(), atomic():
        save("a")
        airlock.enqueue(ran.append, "a")
        with rolled_back():
            save("b")
            airlock.enqueue(ran.append, "b")

    assert ran == seen_by_others() == ["a"]


def test_query_error_caught_outside_of_its_block_drops_its_intents(ran):
    with airlock.scope(), atomic():
        save("a")
        airlock.enqueue(ran.append, "a")
        with suppress(Error), atomic():
            airlock.enqueue(ran.append, "b")
            with connection.cursor() as cursor:
                cursor.execute("SELECT nothing FROM nowhere")

    assert ran == seen_by_others() == ["a"]


def test_connection_closed_in_a_transaction_drops_the_intents(ran):
    with airlock.scope() as scope, atomic():
        save("a")
        intent = airlock.enqueue(ran.append, 1)
        connection.close()

    assert seen_by_others() == ran == []
    assert scope.rolled_back_intents == [intent]


def test_enqueued_after_the_connection_was_closed_is_dropped_too(ran):
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


# Beside the callbacks of others


def test_effects_go_out_before_the_callbacks_of_others(ran):
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


def test_scope_that_ends_in_a_callback_knows_of_the_commit(ran):
    def callback():
        scope.exit()
        scope.flush()

    scope = airlock.scope()
    with atomic():
        scope.enter()
        airlock.enqueue(ran.append, 1)
        transaction.on_commit(callback)
        with atomic():
            airlock.enqueue(ran.append, 2)

    assert ran == [1, 2]
    assert scope.rolled_back_intents == []


def test_enqueue_in_an_on_commit_callback_is_that_of_the_scope_around(ran):
    with airlock.scope():
        with atomic():
            transaction.on_commit(lambda: airlock.enqueue(ran.append, 1))
        assert ran == []

    assert ran == [1]


@contextmanager
def with_a_callback_that_fails():
    def fails():
        raise ValueError

    with suppress(ValueError), atomic():
        transaction.on_commit(fails)
        yield


def test_callback_of_others_that_fails_makes_no_rollback_of_a_commit(ran, boundary):
    with boundary(with_a_callback_that_fails) as scope:
        airlock.enqueue(ran.append, 1)

    assert ran == [1]
    assert scope.rolled_back_intents == []


def test_scopes_beside_a_callback_that_fails_go_out_in_order(ran, rolled_back):
    with with_a_callback_that_fails():
        for number in range(3):
            with airlock.scope(), atomic():
                airlock.enqueue(ran.append, number)
        with rolled_back(), airlock.scope() as dropped:
            airlock.enqueue(ran.append, 3)

    assert ran == [0, 1, 2]
    assert len(dropped.rolled_back_intents) == 1


def test_scopes_that_wait_for_the_same_commit_wait_until_it_is_their_turn(ran):
    with atomic():
        with airlock.scope():
            airlock.enqueue(lambda: ran.append((second.rolled_back_intents, second.undispatched_intents)))
        with airlock.scope() as second:
            waiting = airlock.enqueue(ran.append, 2)

    assert ran == [([], [waiting]), 2]
