"""Where no COMMIT can write: effects are as in production, without entries."""

import pytest
from django.db import connection
from django.db.transaction import atomic

import airlock
from airlock.integrations.outbox.models import Entry

pytestmark = pytest.mark.usefixtures("database")

in_test_case = pytest.mark.django_db
really = pytest.mark.django_db(transaction=True)


@in_test_case
def test_in_a_test_case_it_is_dispatched_at_the_flush(add, published, statements):
    with airlock.scope() as scope:
        with atomic():
            airlock.enqueue(add, 1)
        airlock.enqueue(add, 2)

    assert published() == [1, 2]
    assert len(scope.dispatched_intents) == 2
    assert statements == []


@in_test_case
def test_in_a_test_case_rollbacks_count(add, published, rolled_back):
    with airlock.scope(), atomic():
        airlock.enqueue(add, 1)
        with rolled_back():
            airlock.enqueue(add, 2)

    assert published() == [1]


@in_test_case
@pytest.mark.parametrize("in_block", [True, False])
def test_captured_callbacks_dispatch(add, django_capture_on_commit_callbacks, in_block, published):
    with django_capture_on_commit_callbacks(execute=True):
        with atomic(), airlock.scope():
            airlock.enqueue(add, 1)
        assert published() == []

    assert published() == [1]
    assert not Entry.objects.exists()


@in_test_case
def test_in_a_test_case_a_broker_that_is_down_is_logged(add, app, log):
    app.conf.update(
        broker_url="amqp://127.0.0.1:1//", task_publish_retry_policy={"max_retries": 1, "interval_start": 0}
    )
    with airlock.scope() as scope, atomic():
        airlock.enqueue(add, 1)

    assert len(scope.undispatched_intents) == 1
    assert [record.levelname for record in log.records] == ["ERROR"]


@really
def test_detached_in_a_transaction_is_dispatched_at_the_end_of_its_block(add, published, rolled_back, rows, statements):
    with airlock.scope(), rolled_back():
        with airlock.detached():
            airlock.enqueue(add, 1)
        assert published() == [1]

    assert statements == []


@really
def test_detached_in_autocommit_is_written(add, published, rows, statements):
    with airlock.detached():
        airlock.enqueue(add, 1)

    assert published() == [1]
    assert statements == ["INSERT", "DELETE"]


@really
def test_detached_in_manual_transaction_management_is_dispatched(add, published, statements):
    connection.set_autocommit(False)
    try:
        with airlock.detached():
            airlock.enqueue(add, 1)
        assert published() == [1]
        assert statements == []
    finally:
        connection.rollback()
        connection.set_autocommit(True)
