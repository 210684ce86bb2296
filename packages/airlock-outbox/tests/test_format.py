"""Rows that earlier releases wrote: whatever the version of their format, a relay dispatches them."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Task
from django.utils import timezone

from airlock.integrations.outbox._relay import Relay
from airlock.integrations.outbox.models import Entry

pytestmark = [pytest.mark.usefixtures("database"), pytest.mark.django_db(transaction=True)]

#: As they were written then. A change of the format gets a new version, and a file of its own beside this one.
ROWS = {1: json.loads(Path(__file__).with_name("rows_of_version_1.json").read_text())}


@pytest.fixture
def relay_row(settings, rows):
    """A function that writes a row, and has a relay dispatch it."""
    settings.SECRET_KEY = "of those who wrote the rows"

    def relay_row(kind, version):
        past = timezone.now() - timedelta(seconds=1)
        row = ROWS[version][kind]
        Entry.objects.create(**row, version=version, created=past, due=past, held=False, task="shop.add")
        assert Relay("default").step() == 1
        assert [row.error for row in rows()] == []

    return relay_row


@pytest.mark.parametrize("version", ROWS)
@pytest.mark.usefixtures("published")  # which takes what other tests have left in the broker
def test_message(relay_row, app, version):
    relay_row("message", version)

    with app.connection_for_write() as connection:
        message = app.amqp.queues["celery"](connection.default_channel).get(no_ack=True)
    assert message.headers["task"] == "shop.add"
    assert message.headers["id"] == ROWS[version]["message"]["id"]
    assert message.payload[0] == ["message"]


@pytest.mark.parametrize("version", ROWS)
def test_call_of_a_task_by_its_name(relay_row, app, version):
    calls = []

    class OwnTask(Task):
        abstract = True

        def apply_async(self, args=None, kwargs=None, **options):
            calls.append((args, options["task_id"]))

    @app.task(name="shop.own", base=OwnTask)
    def own(x): ...

    relay_row("name", version)

    assert calls == [(("call by name",), ROWS[version]["name"]["id"])]


@pytest.mark.parametrize("version", ROWS)
def test_call_of_a_canvas(relay_row, add, published, version):
    relay_row("canvas", version)

    assert published() == ["first"]


@pytest.mark.parametrize(("kind", "made"), [("path", "made"), ("executor", "made by another executor")])
@pytest.mark.parametrize("version", ROWS)
def test_call_of_what_can_be_imported(relay_row, tmp_path, monkeypatch, version, kind, made):
    monkeypatch.chdir(tmp_path)

    relay_row(kind, version)

    assert (tmp_path / made).is_dir()


def test_newer_rows_are_left_alone(rows):
    past = timezone.now() - timedelta(seconds=1)
    newer = max(ROWS) + 1
    Entry.objects.create(**ROWS[1]["message"], version=newer, created=past, due=past, held=False, task="shop.add")

    assert Relay("default").step() == 0
    assert [(row.version, row.attempts) for row in rows()] == [(newer, 0)]
