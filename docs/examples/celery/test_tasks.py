import pytest

from shop.tasks import notify_warehouse, process_order, send_confirmation


def test_order_is_confirmed_and_packed(airlock_effects):
    process_order(42)

    airlock_effects.assert_enqueued(send_confirmation, 42)
    airlock_effects.assert_enqueued("shop.tasks.notify_warehouse", order_id=42)


def test_declined_card_has_no_follow_ups(airlock_effects):
    with pytest.raises(ValueError, match="declined"):
        process_order(42, card="declined")

    airlock_effects.assert_nothing_enqueued()


def test_result_has_the_ids_of_the_follow_ups(airlock_effects):
    result = process_order.apply((42,))

    assert result.get() == [intent.id for intent in airlock_effects]


@pytest.mark.airlock(run=True)
def test_follow_ups_run_without_an_error():
    process_order(42)


def test_worker_has_its_effects_collected_too(airlock_effects, celery_worker):
    process_order.delay(42).get(timeout=60)

    airlock_effects.assert_enqueued(notify_warehouse, 42)
