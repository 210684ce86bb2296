"""`manage.py airlock_explain` with an outbox: what it holds, and why."""

import json
import re
import uuid
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.transaction import atomic
from django.utils import timezone

import airlock
from airlock.integrations.outbox.models import Entry, PausedTask
from processes import free_port

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

MINUTE = timedelta(minutes=1)


def explain(*arguments):
    output = StringIO()
    call_command("airlock_explain", *arguments, stdout=output)
    return output.getvalue()


def newest(*arguments, alias="default"):
    """The state and the task of each entry that more is said of."""
    found = json.loads(explain("--json", *arguments))["outbox"][alias]["newest"]
    return [(entry["state"], entry["task"]) for entry in found]


@pytest.fixture
def put():
    """Puts an entry into the outbox."""

    def put(task="shop.add", alias="default", **fields):
        now = timezone.now()
        fields = {"created": now, "due": now - MINUTE, "held": False, "payload": "signed", **fields}
        return Entry.objects.using(alias).create(id=uuid.uuid4(), task=task, **fields)

    return put


def test_an_empty_outbox_says_so():
    assert "The outbox on 'default' is empty." in explain()
    assert json.loads(explain("--json"))["outbox"]["other"] == {
        "counts": json.loads(explain("--json"))["outbox"]["default"]["counts"],
        "newest": [],
    }


def test_what_is_parked_says_which_error_it_had(put):
    entry = put(due=None, attempts=10, error="OperationalError: the broker\nis down")

    lines = explain().splitlines()
    assert "The outbox on 'default' has 1 entry:" in lines
    assert "  1 parked: nobody tries again, unless you run: manage.py airlock_outbox retry" in lines
    assert f"      id {entry.pk}" in lines
    assert "      parked after 10 attempts: OperationalError: the broker is down" in lines


def test_what_waits_says_until_when_and_which_error_it_had(put):
    put(due=timezone.now() + MINUTE, attempts=2, error="LookupError: 7")

    assert newest() == [("waiting", "shop.add")]
    (line,) = (line for line in explain().splitlines() if "tried again at" in line)
    assert line.startswith("      failed after 2 attempts, and is tried again at 2")
    assert line.endswith(": LookupError: 7")


def test_what_is_paused_says_so(put):
    PausedTask.objects.create(task="shop.add")
    put()
    put("shop.other")

    assert newest() == [("paused", "shop.add"), ("due", "shop.other")]
    assert "  1 paused: their task is paused: manage.py airlock_outbox resume TASK" in explain()


def test_what_is_held_says_so(put):
    put(due=timezone.now() + MINUTE, held=True, lease=uuid.uuid4())

    assert newest() == [("held", "shop.add")]
    assert "  1 held: their scope has not ended, or their process has died" in explain()
    (line,) = (line for line in explain().splitlines() if "takes it over" in line)
    assert re.fullmatch(r"      held: the relay takes it over at 2.+, if its process has died", line)


def test_what_is_due_asks_for_a_relay(put):
    put()

    assert newest() == [("due", "shop.add")]
    assert re.search(r"^      due since 2\S+ \S+ \w+$", explain(), re.MULTILINE)
    assert "  1 due: should have been dispatched by now, the oldest for 0:01:" in explain()
    assert "Does a relay run?" in explain()


def test_what_a_process_that_died_has_left_says_so(put):
    put(held=True, lease=uuid.uuid4())

    assert re.search(
        r" due since 2.+: its process did not finish, so the relay takes it over$", explain(), re.MULTILINE
    )


def test_what_is_due_because_the_broker_fails_says_so(add, app):
    app.conf.broker_url = f"redis://127.0.0.1:{free_port()}/0"
    with airlock.scope(), atomic():
        airlock.enqueue(add, 1)

    (line,) = (line for line in explain().splitlines() if " due since 2" in line)
    assert ": left to the relay: the broker fails: redis://" in line


def test_what_is_in_flight_says_what_it_has_failed_with(put):
    taken = {"due": timezone.now() + MINUTE, "lease": uuid.uuid4(), "attempts": 1}
    put(**taken, error="ValueError: no")
    put(**taken, held=True)

    lines = explain().splitlines()
    assert "      a relay tries just now: ValueError: no" in lines
    assert "      a relay tries just now: its process did not finish, so the relay takes it over" in lines


def test_what_is_in_flight_for_the_first_time_is_only_counted(put):
    put(due=timezone.now() + MINUTE, lease=uuid.uuid4())

    assert newest() == []
    assert "  1 in flight: are being dispatched" in explain()


@pytest.mark.parametrize(("arguments", "named"), [([], 10), (["3"], 3), (["50"], 12)])
def test_as_many_of_the_newest_are_named_as_are_asked_for(put, arguments, named):
    now = timezone.now()
    entries = [put(due=None, created=now + number * MINUTE) for number in range(12)]

    found = json.loads(explain("--json", *arguments))["outbox"]["default"]
    assert [entry["id"] for entry in found["newest"]] == [str(entry.pk) for entry in entries[::-1][:named]]
    assert found["counts"]["parked"] == 12


@pytest.mark.parametrize("name", ["add", "shop.add"])
def test_one_task_can_be_asked_for(put, name):
    put("shop.add", due=None)
    put("shop.readd", due=None)

    assert newest("--task", name) == [("parked", "shop.add")]


def test_every_database_that_may_have_a_table_is_looked_at(put):
    put(alias="other", due=None)

    assert newest() == []
    assert newest(alias="other") == [("parked", "shop.add")]


def test_a_database_without_the_table_is_an_error_after_the_rest():
    with connections["other"].schema_editor() as editor:
        editor.alter_db_table(Entry, "airlock_outbox", "airlock_outbox_away")
    output = StringIO()
    try:
        with pytest.raises(CommandError, match="Is the database there, and migrated"):
            call_command("airlock_explain", stdout=output)
    finally:
        with connections["other"].schema_editor() as editor:
            editor.alter_db_table(Entry, "airlock_outbox_away", "airlock_outbox")
    assert "Nothing is remembered" in output.getvalue()
