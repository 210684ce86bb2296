"""`airlock.testing` with an outbox: what would be recorded, and nothing is."""

import pytest
from django.db.transaction import atomic

import airlock


def notify(order_id): ...


@pytest.mark.django_db(transaction=True)
def test_nothing_is_recorded_or_published(app, add, airlock_effects, rows, published, rolled_back):
    with airlock.scope(), atomic():
        airlock.enqueue(add, 1)
        with rolled_back():
            airlock.enqueue(add, 2)
    with airlock.scope():
        airlock.enqueue(add, 3)
    assert [intent.args for intent in airlock_effects] == [(1,), (3,)]
    assert rows() == []
    assert published() == []


@pytest.mark.django_db
def test_a_scope_in_the_transaction_of_a_test_counts(app, add, airlock_effects):
    with atomic(), airlock.scope():
        airlock.enqueue(add, 1)
    airlock_effects.assert_enqueued(add, x=1)


@pytest.mark.django_db(transaction=True)
def test_what_could_not_be_recorded_is_refused_as_ever(app, add, airlock_effects, rows):
    with airlock.scope(), atomic():
        with pytest.raises(Exception, match="not JSON serializable"):
            airlock.enqueue(add, object())
        with pytest.raises(airlock.UsageError):
            airlock.enqueue([].append, 1)
    airlock_effects.assert_nothing_enqueued()
    assert rows() == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.airlock(run=True)
def test_effects_run_after_the_commit_and_are_not_recorded(app, ran, rows):
    @app.task(name="shop.note")
    def note(number):
        ran.append(number)

    with airlock.scope(), atomic():
        airlock.enqueue(note, 1)
        assert ran == []
    assert ran == [1]
    assert rows() == []


@pytest.mark.django_db(transaction=True)
def test_a_detached_effect_counts_in_a_scope_and_is_not_recorded(app, add, airlock_effects, rows, published):
    with pytest.raises(LookupError), airlock.scope(), atomic():
        airlock.enqueue(add, 1)
        with airlock.scope(), airlock.detached():
            airlock.enqueue(add, 2)
        raise LookupError
    assert [intent.args for intent in airlock_effects] == [(2,)]
    assert rows() == []
    assert published() == []
