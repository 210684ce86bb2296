from unittest.mock import patch

from airlock.testing import EffectsMixin
from django.core import mail
from django.test import TestCase

from shop.models import Order, Parcel

GOOD = {"email": "ada@example.com"}
DECLINED = {**GOOD, "card": "declined"}


class CheckoutTest(EffectsMixin, TestCase):
    airlock_run = True  # the tasks run in place, and one that raises fails its test

    def test_good_order_is_confirmed_and_packed(self):
        response = self.client.post("/checkout/", GOOD)

        assert response.status_code == 200
        assert [message.to for message in mail.outbox] == [["ada@example.com"]]
        assert Parcel.objects.count() == 1

    def test_declined_order_leaves_no_trace(self):
        response = self.client.post("/checkout/", DECLINED)

        assert response.status_code == 402
        assert mail.outbox == []
        assert not Order.objects.exists()

    def test_crash_after_the_order_was_placed_leaves_no_trace(self):
        self.client.raise_request_exception = False
        with patch("shop.views.HttpResponse", side_effect=RuntimeError("no response")):
            response = self.client.post("/checkout/", GOOD)

        assert response.status_code == 500
        assert mail.outbox == []
        assert not Order.objects.exists()
