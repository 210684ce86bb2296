"""The options: `AIRLOCK["OUTBOX"]`."""

import pytest
from django.core.exceptions import ImproperlyConfigured

import airlock
from airlock.integrations.outbox._settings import Options, options, problems

RIGHT = {
    "HOLD_SECONDS": 60.5,
    "ORPHANS": "park",
    "FAST_PATH_SECONDS": 0,
    "BREAKER_SECONDS": 1,
    "LEASE_SECONDS": 1,
    "BATCH_SIZE": 1,
    "MAX_ATTEMPTS": 1,
    "BACKOFF_SECONDS": 0.5,
    "MAX_BACKOFF_SECONDS": 1,
    "POLL_SECONDS": 0.1,
    "INBOX_DAYS": 0.5,
    "NOTIFY": True,
}

WRONG = [
    *((key, value) for key in RIGHT for value in (None, "1", [], -1)),
    *((key, 0) for key in RIGHT if key != "FAST_PATH_SECONDS"),
    *((key, True) for key in RIGHT if key != "NOTIFY"),
    *((key, float(value)) for key in RIGHT for value in ("nan", "inf")),
    ("BATCH_SIZE", 1.5),
    ("MAX_ATTEMPTS", 1.5),
    ("ORPHANS", "discard"),
]


@pytest.fixture
def outbox(settings):
    """Sets these options, and no others."""

    def outbox(**options):
        settings.AIRLOCK = {**settings.AIRLOCK, "OUTBOX": options}

    return outbox


def test_without_the_setting_the_defaults_are_in_force(settings):
    del settings.AIRLOCK

    assert options() == Options()


@pytest.mark.parametrize(("key", "value"), RIGHT.items(), ids=RIGHT)
def test_each_option_can_be_set(outbox, key, value):
    outbox(**{key: value})

    assert options() == Options(**{key.lower(): value})


def test_options_follow_the_setting(outbox):
    outbox(HOLD_SECONDS=60)
    assert options().hold_seconds == 60
    outbox()
    assert options() == Options()


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_wrong_value_says_what_is_right(outbox, key, value):
    outbox(**{key: value})

    with pytest.raises(ImproperlyConfigured, match=rf"AIRLOCK\['OUTBOX'\]\['{key}'\] is .*\. Make it "):
        options()


def test_unknown_key_names_those_that_exist(outbox):
    outbox(HOLD=60)

    with pytest.raises(ImproperlyConfigured, match=r"unknown key 'HOLD'\. The keys are HOLD_SECONDS, ORPHANS"):
        options()


def test_all_problems_are_found():
    assert len(problems({"HOLD": 1, "ORPHANS": 1, "NOTIFY": 1})) == 3


@pytest.mark.django_db(transaction=True)
def test_wrong_setting_fails_the_enqueue_that_needs_it(outbox, add):
    outbox(HOLD_SECONDS=0)

    with pytest.raises(ImproperlyConfigured), airlock.scope():
        airlock.enqueue(add, 1)
