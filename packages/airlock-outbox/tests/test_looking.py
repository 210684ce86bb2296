"""What operators see of the outbox, and do about it: `status()`, `manage.py airlock_outbox`."""

import json
import uuid
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from django.db.transaction import atomic
from django.utils import timezone

import airlock
from airlock.integrations.outbox import status
from airlock.integrations.outbox.models import Entry, InboxEntry, PausedTask

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
]

every_database = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql", "mariadb"], indirect=True, scope="session"
)

MINUTE = timedelta(minutes=1)
LEASE = uuid.uuid4()


@pytest.fixture
def entry():
    """Writes an entry, parked unless told otherwise. `due` is a time from now."""

    def entry(task="shop.add", due=None, age=MINUTE, using="default", **fields):
        now = timezone.now()
        fields = {"held": False, "payload": "-", "task": task, "created": now - age, **fields}
        return Entry.objects.using(using).create(id=uuid.uuid4(), due=None if due is None else now + due, **fields)

    return entry


@pytest.fixture
def every_state(entry):
    """Entries in each state: one is held, two are due, and so on."""
    PausedTask.objects.create(task="shop.paused")
    for number, fields in enumerate(
        [
            {"due": MINUTE, "held": True, "lease": LEASE},
            {"due": -MINUTE},
            {"due": MINUTE, "lease": LEASE},
            {"due": MINUTE, "attempts": 3, "error": "ValueError: no"},
            {"due": None, "attempts": 10, "error": "ValueError: never"},
            {"due": -MINUTE, "task": "shop.paused"},
        ],
        1,
    ):
        for _ in range(number):
            entry(**fields)


@pytest.fixture
def run(monkeypatch):
    """Runs the command, answers what it asks, and returns what it printed."""

    def run(*arguments, answer=None):
        out = StringIO()
        monkeypatch.setattr("sys.stdin", StringIO("" if answer is None else f"{answer}\n"))
        call_command("airlock_outbox", *map(str, arguments), stdout=out, stderr=out)
        return out.getvalue()

    return run


# -- Counting ----------------------------------------------------------------------------------------------------------


@every_database
def test_status_counts_each_entry_in_one_state(every_state, django_assert_num_queries):
    with django_assert_num_queries(1):
        found = status("default")

    counts = found.held, found.due, found.in_flight, found.waiting, found.parked, found.paused, found.total
    assert counts == (1, 2, 3, 4, 5, 6, 21)


@every_database
def test_status_tells_the_age_of_the_oldest(entry):
    entry(due=-5 * MINUTE, age=60 * MINUTE)
    entry(due=-3 * MINUTE)
    entry(due=None, age=20 * MINUTE)
    entry(due=None, age=10 * MINUTE)
    before = timezone.now()
    found = status()
    took = (timezone.now() - before).total_seconds() + 30

    assert 5 * 60 <= found.oldest_due_seconds < 5 * 60 + took
    assert 20 * 60 <= found.oldest_parked_seconds < 20 * 60 + took


@every_database
def test_paused_task_makes_nothing_overdue(entry):
    PausedTask.objects.create(task="shop.add")
    entry(due=-MINUTE)

    assert status().oldest_due_seconds == 0


def test_status_of_an_empty_outbox_is_all_zero():
    assert set(status().as_dict().values()) == {0}


def test_entry_that_a_relay_took_over_is_no_longer_held(entry):
    entry(due=MINUTE, held=True, lease=LEASE, attempts=1)

    assert (status().held, status().in_flight) == (0, 1)


def test_status_sums_the_databases(entry):
    entry(due=-MINUTE)
    entry(due=-2 * MINUTE, using="other")

    assert status().due == 2
    assert status("default").due == 1
    assert status().oldest_due_seconds >= 120


def test_status_asks_no_database_that_may_not_have_the_table(entry, settings, django_assert_num_queries):
    settings.DATABASE_ROUTERS = [OnlyDefault()]
    entry(due=-MINUTE, using="other")

    assert status().due == 0


class OnlyDefault:
    def allow_migrate(self, db, app_label, **hints):
        return db == "default"


@every_database
def test_command_prints_the_figures(every_state, run):
    printed = {line.split()[0]: line for line in run("status", "--database", "default").splitlines()}

    assert printed["due"].split()[1] == "2"
    assert "oldest for 0:01:0" in printed["due"]
    assert printed["parked"].split()[1] == "5"
    assert "shop.paused" in printed["paused"]
    assert printed["total"].split()[1] == "21"


def test_command_prints_json(every_state, run):
    found = json.loads(run("status", "--json"))

    assert found["default"]["parked"] == 5
    assert found["default"]["oldest_due_seconds"] >= 60
    assert found["other"]["total"] == 0


# -- Retrying ----------------------------------------------------------------------------------------------------------


@every_database
@pytest.mark.parametrize("due", [None, MINUTE], ids=["parked", "waiting"])
def test_retried_entry_is_due_and_as_new(entry, run, due):
    stuck, other = entry(due=due, attempts=7, held=True, error="ValueError: no"), entry()

    assert "1 entry retried." in run("retry", stuck.id)

    assert status().due == 1
    stuck.refresh_from_db()
    other.refresh_from_db()
    assert (stuck.attempts, stuck.held, stuck.error) == (0, False, "ValueError: no")
    assert other.due is None


def test_retry_of_a_task_or_of_all_that_is_parked(entry, run):
    entry(), entry("shop.other"), entry("shop.other", due=MINUTE), entry("shop.others")

    assert "2 entries retried." in run("retry", "--task", "shop.other")
    assert "2 entries retried." in run("retry", "--all-parked")
    assert status().due == 4


def test_retry_of_all_that_is_parked_leaves_what_waits(entry, run):
    entry(due=MINUTE)

    assert "0 entries retried." in run("retry", "--all-parked")
    assert status().waiting == 1


def test_retry_leaves_alone_what_somebody_has(entry, run):
    taken = entry(due=MINUTE, lease=LEASE)

    with pytest.raises(CommandError, match="1 of those named could not be retried"):
        run("retry", taken.id)
    taken.refresh_from_db()
    assert taken.lease == LEASE


@pytest.mark.parametrize("action", ["retry", "discard"])
def test_has_to_be_told_which(entry, run, action):
    entry()

    with pytest.raises(CommandError, match="Say which"):
        run(action)


# -- Discarding --------------------------------------------------------------------------------------------------------


@every_database
def test_discards_when_told_yes(entry, run):
    entry(), entry("shop.other")

    assert "1 entry will never be dispatched. Discard?" in run("discard", "--task", "shop.other", answer="y")
    assert [left.task for left in Entry.objects.all()] == ["shop.add"]


@pytest.mark.parametrize("answer", ["", "n", None])
def test_discards_nothing_unless_told_yes(entry, run, answer):
    entry()

    with pytest.raises(CommandError):
        run("discard", "--parked", answer=answer)
    assert Entry.objects.count() == 1


def test_discards_without_asking_if_told_so(entry, run):
    entry(), entry(due=-MINUTE)

    assert "1 entry discarded." in run("discard", "--parked", "--no-input")
    assert status().due == status().total == 1


@pytest.mark.parametrize("held", [True, False], ids=["held", "in flight"])
def test_discard_leaves_alone_what_somebody_has(entry, run, held):
    taken = entry(due=MINUTE, lease=LEASE, held=held)

    with pytest.raises(CommandError, match="1 of those named could not be discarded"):
        run("discard", taken.id)
    assert Entry.objects.count() == 1


@every_database
def test_purges_old_runs_and_what_has_been_parked_for_long(entry, run, outbox):
    outbox(INBOX_DAYS=7)
    InboxEntry.objects.create(id="old", created=timezone.now() - timedelta(days=8))
    InboxEntry.objects.create(id="new", created=timezone.now() - timedelta(days=6))
    old, new = entry(age=timedelta(days=3)), entry(age=timedelta(days=1))
    overdue = entry(due=-MINUTE, age=timedelta(days=3))

    assert "1 old run forgotten." in run("purge")
    assert [row.id for row in InboxEntry.objects.all()] == ["new"]
    assert Entry.objects.count() == 3

    assert "1 entry discarded." in run("purge", "--parked-older-than", 2, answer="yes")
    assert {row.id for row in Entry.objects.all()} == {new.id, overdue.id}
    assert old.id not in {new.id, overdue.id}


def test_only_the_database_asked_for(entry, run):
    entry(), entry(using="other")

    run("discard", "--parked", "--no-input", "--database", "other")

    assert Entry.objects.using("default").count() == 1
    assert Entry.objects.using("other").count() == 0


def test_says_that_the_tables_are_not_there(run):
    call_command("migrate", "airlock_outbox", "zero", database="other", verbosity=0)
    try:
        with pytest.raises(CommandError, match="migrated"):
            run("status", "--database", "other")
    finally:
        call_command("migrate", "airlock_outbox", database="other", verbosity=0)


# -- Pausing -----------------------------------------------------------------------------------------------------------


@every_database
def test_paused_task_is_not_dispatched_until_it_is_resumed(app, add, published, run):
    @app.task(name="shop.added")
    def added(x): ...

    run("pause", "shop.add", "--database", "default")
    with airlock.scope(), atomic():
        airlock.enqueue(add, 1)
        airlock.enqueue(added, 2)
        airlock.enqueue(add, 3)
    call_command("airlock_relay", "--drain", stdout=StringIO())
    assert published() == [2]
    assert status().paused == 2

    assert "2 entries of it waited." in run("resume", "shop.add", "--database", "default")
    assert status().paused == 0
    call_command("airlock_relay", "--drain", stdout=StringIO())
    assert published() == [1, 3]
    assert status().total == 0


def test_paused_callable_is_not_called(ran, run):
    run("pause", f"{__name__}.{callable_task.__qualname__}")
    with airlock.scope(), atomic():
        airlock.enqueue(callable_task)

    assert called == []
    assert status().paused == 1


called = []


def callable_task():
    called.append(1)


def test_resumed_entries_are_due_now(entry, run):
    # A relay looks at what has become due lately.
    run("pause", "shop.add")
    old = entry(due=-60 * MINUTE)

    run("resume", "shop.add")

    assert Entry.objects.filter(id=old.id, due__gt=F("created") + MINUTE / 2).exists()


def test_pausing_twice_is_no_error(run):
    assert "is paused." in run("pause", "shop.add")
    assert "was paused already" in run("pause", "shop.add")


def test_pausing_warns_of_a_name_that_nobody_knows(entry, run):
    entry("shop.by_name")

    assert "full name" in run("pause", "shop.typo")
    assert "full name" not in run("pause", "shop.by_name")


def test_resuming_what_is_not_paused_says_what_is(run):
    run("pause", "shop.add")

    with pytest.raises(CommandError, match=r"shop.typo is not paused. These are: shop.add."):
        run("resume", "shop.typo")
