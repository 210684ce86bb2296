import airlock
from airlock import DropAll
from django.core import mail
from django.test import TestCase, override_settings

from shop.models import Parcel
from shop.tasks import notify_warehouse

GOOD = {"email": "ada@example.com"}
DECLINED = {**GOOD, "card": "declined"}
IN_PLACE = {"EXECUTOR": "airlock.integrations.executors.sync.sync_executor"}


@override_settings(AIRLOCK=IN_PLACE)
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

        scope = response.wsgi_request.airlock_scope
        assert scope.is_discarded
        assert len(scope.intents) == 2

    def test_task_asks_for_a_label(self):
        response = self.client.post("/checkout/", GOOD)
        Parcel.objects.all().delete()
        (_, intent) = response.wsgi_request.airlock_scope.intents

        with airlock.scope(DropAll()) as scope:
            notify_warehouse(*intent.args)  # called in place, in the scope of the test

        assert [follow_up.name for follow_up in scope.intents] == ["print_label"]
