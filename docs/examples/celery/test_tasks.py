import airlock
import pytest
from airlock import DropAll

from shop.tasks import process_order


def test_order_has_two_follow_ups():
    with airlock.scope(DropAll()) as scope:
        process_order(42)

    wanted = [intent.name for intent in scope.intents]
    assert wanted == ["send_confirmation", "notify_warehouse"]


def test_declined_card_has_none():
    with airlock.scope(DropAll()) as scope, pytest.raises(ValueError, match="declined"):
        process_order(42, card="declined")

    assert scope.intents == []


def test_result_of_a_run():
    with airlock.scope(DropAll()) as scope:
        result = process_order.apply((42,))

    assert result.get() == [intent.id for intent in scope.intents]
