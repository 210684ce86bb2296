"""The outbox in Django's admin."""

import re
import uuid
from datetime import timedelta
from html import unescape

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db.transaction import atomic
from django.urls import path, reverse
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
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _urls(settings):
    settings.ROOT_URLCONF = (path("admin/", admin.site.urls),)
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ]


@pytest.fixture
def entry():
    """Writes an entry, parked unless told otherwise. `due` is a time from now."""

    def entry(task="shop.add", due=None, age=MINUTE, **fields):
        now = timezone.now()
        fields = {"held": False, "payload": "-", "task": task, "created": now - age, **fields}
        return Entry.objects.create(id=uuid.uuid4(), due=None if due is None else now + due, **fields)

    return entry


@pytest.fixture
def sign_in(client):
    """Signs a member of the staff in who has these permissions and no others."""

    def sign_in(*permissions):
        user = User.objects.create(username="robin", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        assert user.user_permissions.count() == len(permissions)
        client.force_login(user)
        return client

    return sign_in


LIST = "admin:airlock_outbox_entry_changelist"


def listed(client, **query):
    """The tasks of the list, and the page as text."""
    response = client.get(reverse(LIST), query)
    assert response.status_code == 200
    return [found.task for found in response.context["cl"].result_list], text_of(response)


def text_of(response):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", response.content.decode())))


def act(client, action, *entries, **fields):
    return client.post(
        reverse(LIST),
        {"action": action, "_selected_action": [str(chosen.id) for chosen in entries], **fields},
        follow=True,
    )


# -- Looking -----------------------------------------------------------------------------------------------------------


@every_database
def test_summary_and_list(entry, sign_in):
    entry("shop.one", due=MINUTE, age=2 * MINUTE, held=True, lease=uuid.uuid4())
    entry("shop.two", due=-5 * MINUTE)
    entry("shop.three", error="ValueError: no", attempts=10, age=3 * HOUR + MINUTE)
    entry("shop.four", age=2 * HOUR)

    tasks, text = listed(sign_in("view_entry"))

    assert tasks == ["shop.three", "shop.four", "shop.one", "shop.two"]
    assert "Held 1 Due 1 the oldest for 5 minutes Parked 2 the oldest was enqueued 3 hours ago" in text
    assert "ValueError: no" in text


@every_database
def test_chart_counts_what_is_still_here_by_the_hour(entry, sign_in):
    now = timezone.now()
    hour = timedelta(minutes=now.minute, seconds=now.second, microseconds=now.microsecond)
    for age in (timedelta(0), hour + 2 * HOUR, hour + 2 * HOUR + MINUTE / 60, hour + 30 * HOUR):
        entry(age=age)
    entry(due=-MINUTE, age=hour + 2 * HOUR)

    response = sign_in("view_entry").get(reverse(LIST))
    titles = re.findall(r"<title>(\S+) to \S+ (\d+) parked, (\d+) others?</title>", response.content.decode())
    counts = {begin: (int(parked), int(others)) for begin, parked, others in titles}

    assert len(titles) == 24
    local = timezone.localtime(now - hour)
    assert counts.pop(f"{local:%H:%M}") == (1, 0)
    assert counts.pop(f"{local - 2 * HOUR:%H:%M}") == (1, 1)
    assert counts.pop(f"{local - 3 * HOUR:%H:%M}") == (1, 0)
    assert set(counts.values()) == {(0, 0)}
    assert "3 parked , 1 other , at most 2 an hour" in text_of(response)


def test_empty_outbox_has_no_chart(sign_in):
    response = sign_in("view_entry").get(reverse(LIST))

    assert "Held 0 Due 0 Parked 0" in text_of(response)
    assert b"airlock-column" not in response.content


def test_numbers_of_the_chart_are_not_localized(entry, sign_in, settings):
    settings.LANGUAGE_CODE = "de"
    for age in (0, 1, 2):
        entry(age=age * HOUR)
    entry()

    assert not re.search(r'(x|y|height|width)="\d*,', sign_in("view_entry").get(reverse(LIST)).content.decode())


@every_database
def test_filters_and_search(entry, sign_in):
    PausedTask.objects.create(task="shop.paused")
    entry("shop.paused", due=-MINUTE)
    entry("shop.due", due=-MINUTE)
    entry("shop.waiting", due=MINUTE)
    parked = entry("shop.parked")
    client = sign_in("view_entry")

    for state in ("paused", "due", "waiting", "parked"):
        assert listed(client, state=state)[0] == [f"shop.{state}"]
    assert listed(client, task="shop.due")[0] == ["shop.due"]
    assert listed(client, q="wait")[0] == ["shop.waiting"]
    assert listed(client, q=f" {parked.id} ")[0] == ["shop.parked"]
    assert listed(client, q=str(parked.id)[:8])[0] == []


def test_long_error_is_shortened_in_the_list(entry, sign_in):
    parked = entry(error="ValueError: " + "x" * 500)
    client = sign_in("view_entry")

    assert "x" * 500 not in listed(client)[1]
    assert "x" * 500 in text_of(client.get(reverse("admin:airlock_outbox_entry_change", args=[parked.id])))


# -- Permissions -------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(add, outbox):
    """An entry with arguments that not everybody may see."""
    outbox(FAST_PATH_SECONDS=0)
    with airlock.scope(), atomic():
        airlock.enqueue(add, "<s3cret>", y=2)
    return Entry.objects.get()


def details(client, entry):
    return text_of(client.get(reverse("admin:airlock_outbox_entry_change", args=[entry.id])))


def test_payload_is_for_who_may_view_it(recorded, sign_in):
    assert "s3cret" not in details(sign_in("view_entry", "change_entry", "delete_entry"), recorded)


def test_payload_can_be_read(recorded, sign_in):
    text = details(sign_in("view_entry", "view_payload"), recorded)

    assert '"task": "shop.add"' in text
    assert '"body": [ [ "<s3cret>" ], { "y": 2 },' in text
    assert "signature" not in text


def test_call_can_be_read(sign_in):
    with airlock.scope(), atomic():
        airlock.enqueue(failing, 7)

    text = details(sign_in("view_entry", "view_payload"), Entry.objects.get())
    assert '"args": [ 7 ]' in text


def failing(x):
    raise ValueError("no")


@pytest.mark.parametrize("payload", ["", "-", "[1]:x", '{"message": 3}:x', '{"message": {"publications": [1]}}:x'])
def test_payload_that_somebody_else_wrote_is_shown_with_a_warning(entry, sign_in, payload):
    text = details(sign_in("view_entry", "view_payload"), entry(payload=payload))

    assert "Its signature is wrong" in text


def test_nothing_can_be_edited_or_added(entry, sign_in):
    client = sign_in("view_entry", "change_entry", "delete_entry", "view_payload")
    parked = entry()
    address = reverse("admin:airlock_outbox_entry_change", args=[parked.id])

    assert b'name="_save"' not in client.get(address).content
    assert client.post(address, {"task": "shop.other"}).status_code == 403
    assert client.get(reverse("admin:airlock_outbox_entry_add")).status_code == 403
    assert client.post(reverse("admin:airlock_outbox_entry_delete", args=[parked.id])).status_code == 403
    parked.refresh_from_db()
    assert parked.task == "shop.add"


@pytest.mark.parametrize(
    ("permission", "actions"),
    [("view_entry", set()), ("change_entry", {"retry"}), ("delete_entry", {"discard"})],
)
def test_actions_need_their_permission(entry, sign_in, permission, actions):
    client, parked = sign_in(permission), entry()
    offered = set(re.findall(r'<option value="(\w+)"', client.get(reverse(LIST)).content.decode()))
    assert offered == actions

    for action in {"retry", "discard"} - actions:
        act(client, action, parked, confirmed="yes")
    assert status().parked == 1


def test_other_staff_see_nothing(entry, sign_in):
    entry()

    assert sign_in().get(reverse(LIST)).status_code == 403


# -- Actions -----------------------------------------------------------------------------------------------------------


@every_database
def test_retry(entry, sign_in):
    chosen, _, taken = entry(attempts=10), entry(), entry(due=MINUTE, lease=uuid.uuid4())

    response = act(sign_in("change_entry"), "retry", chosen, taken)

    assert "1 entry will be dispatched soon." in text_of(response)
    assert (status().due, status().parked, status().in_flight) == (1, 1, 1)


@every_database
def test_discard_asks_first(entry, sign_in):
    chosen, _, taken = entry("shop.chosen"), entry("shop.other"), entry(due=MINUTE, lease=uuid.uuid4())
    client = sign_in("delete_entry")

    text = text_of(act(client, "discard", chosen, taken))
    assert "1 entry will never be dispatched." in text
    assert f"shop.chosen ({chosen.id})" in text
    assert "1 of those selected is held or in flight, and will stay." in text
    assert status().total == 3

    assert "1 entry discarded." in text_of(act(client, "discard", chosen, taken, confirmed="yes"))
    assert (status().parked, status().in_flight) == (1, 1)


def test_discard_of_all_that_a_filter_shows(entry, sign_in):
    for _ in range(120):  # more than one page
        entry()
    entry(due=-MINUTE)
    client = sign_in("delete_entry")
    address = f"{reverse(LIST)}?state=parked"
    form = {"action": "discard", "select_across": "1", "_selected_action": [str(Entry.objects.first().id)]}

    assert "120 entries will never be dispatched." in text_of(client.post(address, form))
    client.post(address, {**form, "confirmed": "yes"})

    assert (status().due, status().total) == (1, 1)


def test_acting_on_what_somebody_has_says_so(entry, sign_in):
    taken = entry(due=MINUTE, lease=uuid.uuid4())
    client = sign_in("change_entry", "delete_entry")

    assert "None of them is parked" in text_of(act(client, "retry", taken))
    assert "cannot be discarded now" in text_of(act(client, "discard", taken))


def test_paused_tasks_and_the_inbox_can_be_looked_at(sign_in):
    PausedTask.objects.create(task="shop.paused")
    InboxEntry.objects.create(id="a-run", created=timezone.now())
    client = sign_in("view_pausedtask", "view_inboxentry")

    assert "shop.paused" in text_of(client.get(reverse("admin:airlock_outbox_pausedtask_changelist")))
    assert "a-run" in text_of(client.get(reverse("admin:airlock_outbox_inboxentry_changelist"), {"q": "a-run"}))
    assert client.get(reverse("admin:airlock_outbox_pausedtask_add")).status_code == 403
