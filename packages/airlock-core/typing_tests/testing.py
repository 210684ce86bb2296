"""Tests annotate their effects, and `EffectsMixin` goes with any test case."""

import unittest
from typing import assert_type

import airlock
from airlock.integrations.executors.sync import sync_executor
from airlock.testing import Effects, EffectsMixin, collect_effects


def notify(order_id: int) -> None: ...


def test_with_fixture(airlock_effects: Effects) -> None:
    assert_type(airlock_effects.assert_enqueued(notify, 1), airlock.Intent)
    assert_type(airlock_effects[0], airlock.Intent)
    assert_type(airlock_effects[:1], list[airlock.Intent])
    for intent in airlock_effects:
        assert_type(intent, airlock.Intent)
    airlock_effects.assert_not_enqueued("notify", order_id=1)
    airlock_effects.assert_nothing_enqueued()


class Tests(EffectsMixin, unittest.TestCase):
    airlock_executor = sync_executor

    def test(self) -> None:
        assert_type(self.airlock_effects, Effects)


with collect_effects(run=True) as effects:
    assert_type(effects, Effects)
