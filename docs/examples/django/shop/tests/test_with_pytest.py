import airlock
import pytest
from asgiref.sync import async_to_sync
from django.core import mail
from django.db import transaction

from shop.models import Order
from shop.tasks import send_confirmation
from shop.views import place_order

GOOD = {"email": "ada@example.com"}

pytestmark = pytest.mark.django_db


def test_async_view_confirms_the_order(async_client, airlock_effects):
    async_to_sync(async_client.post)("/checkout/async/", GOOD)

    airlock_effects.assert_enqueued(send_confirmation)


def test_order_is_confirmed(client, airlock_effects):
    client.post("/checkout/", GOOD)

    airlock_effects.assert_enqueued(send_confirmation, Order.objects.get().pk)


@pytest.mark.airlock(run=True)
def test_customer_gets_an_email(client):
    client.post("/checkout/", GOOD)

    assert [message.to for message in mail.outbox] == [["ada@example.com"]]


@pytest.mark.airlock(run=True)
def test_scope_in_a_transaction_waits_for_it(django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        with transaction.atomic(), airlock.scope():
            place_order("ada@example.com")
        assert mail.outbox == []

    assert len(mail.outbox) == 1
