import airlock
import pytest

import shop


def test_order_is_confirmed_and_packed(effects):
    shop.process(42)

    wanted = [str(intent) for intent in effects.intents]
    assert wanted == ["send_confirmation(42)", "notify_warehouse(42)"]


def test_confirmation_comes_first(effects):
    shop.process(42)

    first, *_ = effects.intents
    assert first.task is shop.send_confirmation
    assert first.args == (42,)


def test_effects_do_what_they_should():
    with airlock.scope():
        shop.process(42)

    assert shop.warehouse == [42]


def test_price_list_has_no_effects():
    with airlock.scope(airlock.AssertNoEffects()):
        shop.price_list()


def test_order_outside_of_a_boundary_is_a_mistake():
    with pytest.raises(airlock.NoScopeError):
        shop.process(42)


@pytest.mark.asyncio
async def test_async_code_is_in_the_scope_of_its_test(effects):
    async def confirm():
        airlock.enqueue(shop.send_confirmation, 42)

    await confirm()

    assert len(effects.intents) == 1
