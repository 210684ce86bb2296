"""What users do that is neither wrong nor usual."""

import threading
from contextlib import suppress

import pytest
from asgiref.sync import sync_to_async
from celery import group
from django.db import connection
from django.db.transaction import atomic
from django.utils import timezone

import airlock
from airlock.integrations.outbox._relay import Relay
from airlock.integrations.outbox.models import Entry

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
]


async def test_discarded_on_an_event_loop(add, published, rows, log):
    with suppress(KeyError):
        async with airlock.scope():
            await sync_to_async(atomic(airlock.enqueue))(add, 1)
            raise KeyError

    for _ in range(3000):  # a thread deletes it, so that the loop need not wait
        if not await sync_to_async(rows)():
            break
        threading.Event().wait(0.01)
    assert await sync_to_async(rows)() == []
    assert published() == []
    assert [record for record in log.records if record.levelname in ("WARNING", "ERROR")] == []


@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"], indirect=True, scope="session")
def test_more_than_one_statement_takes(add, published, rows):
    big = "x" * 40_000  # 600 of them are more than MariaDB takes at once
    with airlock.scope():
        with atomic():
            for _ in range(600):
                airlock.enqueue(add, big)
        assert len(rows()) == 600

    assert rows() == []
    assert len(published()) == 600


def test_all_or_none_are_written_in_autocommit(add, published, rows):
    written = []

    def refuse_second(execute, sql, *args):
        if sql.startswith("INSERT INTO airlock_outbox"):
            written.append(sql)
            if len(written) == 2:
                raise RuntimeError("no more")
        return execute(sql, *args)

    with connection.execute_wrapper(refuse_second), airlock.scope():
        for number in range(1001):
            airlock.enqueue(add, number)

    assert rows() == []
    assert published() == list(range(1001))  # all the same


def test_a_canvas_that_fails_does_not_stop_others(add, published, rows):
    with airlock.scope(), atomic():
        airlock.enqueue(group(add.s(1).set(serializer="unheard of")))
    with airlock.scope(), atomic():
        airlock.enqueue(add, 2)

    assert len(rows()) == 1
    assert published() == [2]


def test_the_wait_of_what_has_failed_a_thousand_times_has_an_end(add, app, outbox):
    outbox(FAST_PATH_SECONDS=0, MAX_ATTEMPTS=30_000, BACKOFF_SECONDS=0.5)
    with airlock.scope(), atomic():
        airlock.enqueue(group(add.s(1).set(serializer="unheard of")))
    Entry.objects.update(attempts=2000, due=timezone.now(), lease=None)

    Relay("default").step()

    (entry,) = Entry.objects.all()
    assert entry.attempts == 2001
    assert entry.due is not None
