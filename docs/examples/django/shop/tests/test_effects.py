from airlock.testing import EffectsMixin
from django.test import TestCase

from shop.models import Order, Parcel
from shop.tasks import notify_warehouse, print_label, send_confirmation

GOOD = {"email": "ada@example.com"}
DECLINED = {**GOOD, "card": "declined"}


class CheckoutTest(EffectsMixin, TestCase):
    def test_order_is_confirmed_and_packed(self):
        self.client.post("/checkout/", GOOD)

        order = Order.objects.get()
        self.airlock_effects.assert_enqueued(send_confirmation, order.pk)
        self.airlock_effects.assert_enqueued(notify_warehouse, order_id=order.pk)

    def test_declined_order_has_no_effects(self):
        self.client.post("/checkout/", DECLINED)

        self.airlock_effects.assert_nothing_enqueued()

    async def test_async_view_confirms_the_order(self):
        await self.async_client.post("/checkout/async/", GOOD)

        self.airlock_effects.assert_enqueued(send_confirmation)


class WarehouseTest(EffectsMixin, TestCase):
    def test_parcel_gets_a_label(self):
        order = Order.objects.create(email="ada@example.com")

        notify_warehouse(order.pk)

        self.airlock_effects.assert_enqueued(print_label, Parcel.objects.get().pk)
