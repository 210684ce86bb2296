"""Entries of scopes that are still open."""

import gc
import os
import threading
from contextlib import suppress
from uuid import uuid4

import pytest
from django.db import connection
from django.db.transaction import atomic

import airlock
from airlock.integrations.outbox.models import Entry

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.django_db(transaction=True),
    pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"], indirect=True, scope="session"),
]


@pytest.fixture
def updated(rows):
    """Waits until the row of an entry is another one, and returns that."""

    def updated(before):
        for _ in range(3000):
            (now,) = rows()
            if (now.due, now.held, now.lease) != (before.due, before.held, before.lease):
                return now
            threading.Event().wait(0.01)
        raise AssertionError("nothing has changed")

    return updated


def test_held_while_the_scope_is_open(add, rows):
    with airlock.scope():
        with atomic():
            airlock.enqueue(add, 1)
        (row,) = rows()
        assert row.held
        assert row.lease is not None
        assert row.due > row.created


def test_not_held_if_the_scope_has_ended_before_the_commit(add, outbox, rows):
    outbox(FAST_PATH_SECONDS=0)
    seen = []

    def look(execute, sql, *args):
        if sql.startswith("UPDATE"):  # between the COMMIT and what lets it go
            seen.extend(rows())
        return execute(sql, *args)

    with connection.execute_wrapper(look), atomic(), airlock.scope():
        airlock.enqueue(add, 1)

    assert [row.held for row in seen] == [False]


@pytest.mark.parametrize(("orphans", "is_held"), [("dispatch", True), ("park", False)])
def test_flush_that_waits_lets_go_where_it_matters(add, orphans, is_held, outbox, rows):
    """With "park" somebody would park an entry that is still held, if this process died."""
    outbox(ORPHANS=orphans)
    scope = airlock.scope()
    with scope:
        with atomic():
            airlock.enqueue(add, 1)
        (before,) = rows()
    assert before.held
    assert rows() == []

    scope = airlock.scope()
    scope.enter()
    with atomic():
        airlock.enqueue(add, 1)
    scope.exit()
    with atomic():
        scope.flush()
        seen = Entry.objects.get()
        assert seen.held is is_held
    assert rows() == []


def test_hold_is_renewed(add, outbox, rows, updated):
    outbox(HOLD_SECONDS=0.2)
    with airlock.scope():
        with atomic():
            airlock.enqueue(add, 1)
        (before,) = rows()
        first = updated(before)
        second = updated(first)

    assert before.due < first.due < second.due
    assert before.lease == first.lease == second.lease
    assert rows() == []


def test_hold_ends_with_the_scope_that_nobody_has_any_more(add, outbox, rows):
    """Its flush has failed, so nobody dispatches it in this process."""

    class Failing(airlock.AllowAll):
        def allows(self, intent):
            raise KeyError

    outbox(HOLD_SECONDS=0.2)
    with suppress(KeyError), airlock.scope(Failing()), atomic():
        airlock.enqueue(add, "lost")
    with airlock.scope():
        with atomic():
            airlock.enqueue(add, "held")
        before, after = (), rows()
        while before == () or before[0].due != after[0].due or before[1].due == after[1].due:
            gc.collect()  # of what refers to each other; the thread may have had it until now
            before, after = after, rows()


def test_entry_that_was_lost_to_others_is_not_dispatched_again(add, outbox, published, rows):
    outbox(HOLD_SECONDS=1e-3)
    with airlock.scope() as scope:
        with atomic():
            lost = airlock.enqueue(add, 1)
            airlock.enqueue(add, 2)
        token = uuid4()
        Entry.objects.filter(id=lost.id).update(lease=token)

    assert published() == [2]
    assert [row.lease for row in rows()] == [token]
    assert len(scope.dispatched_intents) == 2


def test_entry_that_others_have_dispatched_is_not_dispatched_again(add, outbox, published, rows):
    outbox(HOLD_SECONDS=1e-3)
    with airlock.scope():
        with atomic():
            airlock.enqueue(add, 1)
        Entry.objects.all().delete()

    assert published() == rows() == []


def test_discard_leaves_what_others_have_taken(add, rows):
    with suppress(KeyError), airlock.scope():
        with atomic():
            airlock.enqueue(add, 1)
        Entry.objects.update(lease=uuid4())
        raise KeyError

    assert len(rows()) == 1


def test_forked_child_writes_nothing_of_its_parent(add, database, published, rows):
    """Nor dispatches it, nor holds it. What it enqueues itself has a lease of its own."""
    with airlock.scope():
        with atomic():
            airlock.enqueue(add, "parent")
        pending = airlock.enqueue(add, "parent, in autocommit")
        connection.close()  # as those who fork must
        child = os.fork()
        if child == 0:
            try:
                with airlock.scope():
                    with atomic():
                        airlock.enqueue(add, "child")
                    leases = set(Entry.objects.values_list("lease", flat=True))
                    ids = set(map(str, Entry.objects.values_list("id", flat=True)))
                    os._exit(0 if len(leases) == len(ids) == 2 and pending.id not in ids else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        Entry.objects.exclude(lease=Entry.objects.order_by("created").first().lease).delete()

    assert published() == ["parent", "parent, in autocommit"]
    assert rows() == []
