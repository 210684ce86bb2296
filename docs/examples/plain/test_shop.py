import airlock
import pytest

import shop


def test_order_is_confirmed_and_packed(airlock_effects):
    with airlock.scope():
        shop.process(42)

    airlock_effects.assert_enqueued(shop.send_confirmation, 42)
    airlock_effects.assert_enqueued(shop.notify_warehouse, order_id=42)


def test_order_that_fails_has_no_effects(airlock_effects):
    with pytest.raises(ValueError, match="declined"), airlock.scope():
        shop.process(42)
        raise ValueError("the card was declined")

    airlock_effects.assert_nothing_enqueued()


def test_import_of_old_orders_sends_no_confirmations(airlock_effects):
    with airlock.scope(airlock.BlockTasks({"send_confirmation"})):
        shop.process(42)

    airlock_effects.assert_not_enqueued(shop.send_confirmation)
    airlock_effects.assert_enqueued("notify_warehouse", 42)


@pytest.mark.airlock(run=True)
def test_warehouse_gets_the_order():
    with airlock.scope():
        shop.process(42)

    assert shop.warehouse == [42]


@pytest.fixture
@airlock.scoped(airlock.DropAll())
def old_order():
    shop.process(41)
    return 41


def test_data_of_a_test_has_no_effects(old_order, airlock_effects):
    with airlock.scope():
        airlock.enqueue(shop.notify_warehouse, old_order)

    assert [str(intent) for intent in airlock_effects] == ["notify_warehouse(41)"]


def test_order_outside_of_a_boundary_is_a_mistake():
    with pytest.raises(airlock.NoScopeError):
        shop.process(42)


@pytest.mark.asyncio
async def test_async_code_has_its_effects(airlock_effects):
    async with airlock.scope():
        airlock.enqueue(shop.send_confirmation, 42)

    airlock_effects.assert_enqueued(shop.send_confirmation, 42)
