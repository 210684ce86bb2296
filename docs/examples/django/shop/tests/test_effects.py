import airlock
from airlock import DropAll
from django.core import mail
from django.db import transaction
from django.test import TestCase

from shop.models import Parcel
from shop.tasks import notify_warehouse
from shop.views import place_order

GOOD = {"email": "ada@example.com"}
DECLINED = {**GOOD, "card": "declined"}


class EffectsOfCheckoutTest(TestCase):
    def test_tasks_run_in_place_when_the_request_has_succeeded(self):
        self.client.post("/checkout/", GOOD)

        assert len(mail.outbox) == 1

    def test_scope_around_the_request_captures_its_intents(self):
        with airlock.scope(DropAll()) as scope:
            self.client.post("/checkout/", GOOD)

        wanted = [intent.name for intent in scope.intents]
        assert wanted == ["send_confirmation", "notify_warehouse"]
        assert mail.outbox == []

    def test_declined_order_asked_for_effects_that_its_scope_discarded(self):
        response = self.client.post("/checkout/", DECLINED)

        scope = scope_of(response)
        assert scope.is_discarded
        assert len(scope.intents) == 2

    def test_task_asks_for_a_label(self):
        order = place_order_without_effects()

        with airlock.scope(DropAll()) as scope:
            notify_warehouse(order.pk)  # called in place, in the scope of the test

        assert [intent.name for intent in scope.intents] == ["print_label"]
        assert Parcel.objects.count() == 1


class TransactionTest(TestCase):
    def test_scope_around_a_transaction_behaves_as_in_production(self):
        with airlock.scope(), transaction.atomic():
            place_order("ada@example.com")
            assert mail.outbox == []

        assert len(mail.outbox) == 1

    def test_scope_inside_a_transaction_waits_for_captured_callbacks(self):
        with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            with airlock.scope():
                place_order("ada@example.com")
            assert mail.outbox == []

        assert len(mail.outbox) == 1


def place_order_without_effects():
    with airlock.scope(DropAll()):
        return place_order("ada@example.com")


def scope_of(response):
    return response.wsgi_request.airlock_scope
