"""`manage.py airlock_explain`: why was no mail sent?"""

import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from io import StringIO
from typing import ClassVar

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db.transaction import atomic
from django.http import HttpResponse
from django.test import AsyncClient
from django.urls import path

import airlock
from airlock.ext import Event, tell
from processes import free_port
from services import RUN

REDIS = "django.core.cache.backends.redis.RedisCache"
DATABASE = "django.core.cache.backends.db.DatabaseCache"
LOCAL = "django.core.cache.backends.locmem.LocMemCache"

SECRET = "4111 1111 1111 1111"


@pytest.fixture
def remember(settings):
    """Turns it on, with a cache."""

    def remember(cache=None, **options):
        settings.CACHES = {"default": {"BACKEND": LOCAL}, "explain": cache or {"BACKEND": LOCAL, "LOCATION": RUN}}
        settings.AIRLOCK = {**options.pop("AIRLOCK", {}), "EXPLAIN": {"CACHE": "explain", **options}}
        if cache is None or cache["BACKEND"] != REDIS:  # which would empty all of that database
            caches["explain"].clear()

    return remember


@pytest.fixture(params=["redis", "database", "local memory"])
def every_cache(request, transactional_db, remember):
    """Turns it on, with each kind of cache in turn."""
    if request.param == "redis":
        server = request.getfixturevalue("redis_broker").celery["broker_url"]
        remember({"BACKEND": REDIS, "LOCATION": server, "KEY_PREFIX": f"{RUN}:{secrets.token_hex(4)}"})
    elif request.param == "database":
        request.getfixturevalue("cache_table")
    else:
        remember()


@pytest.fixture
def cache_table(transactional_db, remember):
    """Turns it on, with a cache in the database."""
    call_command("createcachetable", "--database", "default", "airlock_explain", verbosity=0)
    remember({"BACKEND": DATABASE, "LOCATION": "airlock_explain"})


def explain(*arguments):
    """What the command prints."""
    output = StringIO()
    call_command("airlock_explain", *map(str, arguments), stdout=output)
    return output.getvalue()


def records(count, *arguments):
    """What is remembered, when that is so much: it is written in the background."""
    deadline = time.monotonic() + 60
    while len(found := json.loads(explain("--json", *arguments))["kept_back"]) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def discard(*tasks):
    """Enqueue in a scope that discards."""
    with pytest.raises(LookupError), airlock.scope():
        intents = [airlock.enqueue(task, SECRET, _origin="shop.py:7") for task in tasks]
        raise LookupError
    return intents


def intents_of(record):
    return [(line["task"], line["why"]) for line in record["intents"]]


# What is remembered


def test_what_a_scope_has_kept_back_is_explained_from_every_kind_of_cache(every_cache):
    intent, _ = discard(int, float)

    (record,) = records(1)
    assert intents_of(record) == [
        ("builtins.int", "discarded, because LookupError was raised"),
        ("builtins.float", "discarded, because LookupError was raised"),
    ]
    assert record["intents"][0] == {
        "event": "discarded",
        "why": "discarded, because LookupError was raised",
        "task": "builtins.int",
        "origin": "shop.py:7",
        "count": 1,
        "ids": [intent.id],
    }
    assert record["scope"].startswith("DjangoScope ")
    assert "process " in record["process"]


def test_a_request_that_fails_is_explained(get, remember):
    def view(request):
        airlock.enqueue(int)
        return HttpResponse(status=402)

    remember()
    get(view)

    (record,) = records(1)
    assert intents_of(record) == [("builtins.int", "discarded, because the response has the status 402")]


def test_a_request_that_crashes_is_explained(get, remember):
    def view(request):
        airlock.enqueue(int)
        raise ValueError("4111 1111")

    remember()
    get(view)

    (record,) = records(1)
    assert intents_of(record) == [
        ("builtins.int", "discarded, because the response has the status 500: ValueError was raised")
    ]


def test_what_a_policy_has_dropped_is_explained(remember):
    remember()
    with airlock.scope(airlock.BlockTasks({"int"})):
        airlock.enqueue(int)
        airlock.enqueue(float)

    (record,) = records(1)
    assert intents_of(record) == [("builtins.int", f"dropped by {airlock.BlockTasks({'int'})!r}")]


@pytest.mark.django_db(transaction=True)
def test_what_was_rolled_back_is_explained(remember, rolled_back):
    remember()
    with airlock.scope(), rolled_back():
        airlock.enqueue(int)

    (record,) = records(1)
    ((_, why),) = intents_of(record)
    assert why.startswith("rolled back")
    assert "'default'" in why


def test_what_failed_is_explained_by_the_class_of_its_error(remember):
    remember()
    with airlock.scope():
        airlock.enqueue(int, SECRET)

    (record,) = records(1)
    assert intents_of(record) == [("builtins.int", "failed: ValueError was raised")]


@pytest.mark.parametrize("kind", ["parked", "skipped"])
def test_what_the_outbox_tells_of_is_explained(remember, kind):
    remember()
    tell([Event(kind, airlock.Intent(int), reason="it had to be")])

    (record,) = records(1)
    assert intents_of(record) == [("builtins.int", f"{kind}: it had to be")]


def late(count):
    """What was sent late, when so much is remembered."""
    wait_for(lambda: len(json.loads(explain("--json"))["sent_late"]) >= count)
    return json.loads(explain("--json"))["sent_late"]


def test_what_a_relay_sends_late_is_explained(remember):
    remember()
    intent = airlock.Intent(int)
    tell([Event("relayed", intent, reason="its process did not finish")])

    (record,) = late(1)
    assert intents_of(record) == [("builtins.int", "its process did not finish")]
    heading, *lines = explain().partition("Sent late:\n")[2].rstrip().splitlines()
    assert "process " in heading
    assert lines == ["  its process did not finish", "    builtins.int", f"      id {intent.id}"]


def test_what_a_relay_sends_in_the_ordinary_way_is_not_remembered(remember):
    remember()
    tell([Event("relayed", airlock.Intent(int)), Event("relayed", airlock.Intent(float), reason="late")])

    (record,) = late(1)
    assert intents_of(record) == [("builtins.float", "late")]


def test_what_is_sent_late_does_not_push_out_what_was_kept_back(remember):
    remember(SCOPES=3)
    discard(int)
    for count in (1, 2, 3):
        tell([Event("relayed", airlock.Intent(float), reason=f"late {count}")])
        late(count)
    tell([Event("relayed", airlock.Intent(float), reason="late 4")])
    wait_for(lambda: "late 4" in explain())

    assert len(late(3)) == 3
    assert [intents_of(record)[0][0] for record in records(1)] == ["builtins.int"]


def test_arguments_are_not_remembered_even_if_an_error_quotes_them(remember):
    remember()
    discard(int)
    with airlock.scope(airlock.DropAll()):
        airlock.enqueue(int, SECRET, key=SECRET)
    with airlock.scope():
        airlock.enqueue(int, SECRET)

    assert SECRET not in json.dumps(records(3))


def test_the_same_for_many_is_one_line(remember):
    remember()
    intents = discard(*[int] * 1000)

    (record,) = records(1)
    (line,) = record["intents"]
    assert (line["count"], line["ids"]) == (1000, [intent.id for intent in intents[:3]])


def test_a_scope_with_too_many_lines_is_remembered_in_part(remember):
    remember()
    with pytest.raises(LookupError), airlock.scope():
        for number in range(101):
            airlock.enqueue(int, _origin=f"shop.py:{number}")
        raise LookupError

    (record,) = records(1)
    assert len(record["intents"]) == 100


def test_the_newest_take_the_place_of_the_oldest(every_cache, settings):
    settings.AIRLOCK = {"EXPLAIN": {"CACHE": "explain", "SCOPES": 3}}
    for task in (int, float, str, bool):
        discard(task)
        names = [intents_of(record)[0][0] for record in records(1, "--task", task.__name__)]
        assert names == [f"builtins.{task.__name__}"]

    names = [intents_of(record)[0][0] for record in records(3)]
    assert names == ["builtins.bool", "builtins.str", "builtins.float"]


def test_a_cache_that_forgets_the_count_still_keeps_the_newest(cache_table, settings):
    caching = {"BACKEND": DATABASE, "LOCATION": "airlock_explain", "TIMEOUT": 0}
    settings.CACHES = {**settings.CACHES, "explain": caching}
    settings.AIRLOCK = {"EXPLAIN": {"CACHE": "explain", "SCOPES": 2}}
    for task in (int, float, str):
        discard(task)
        records(1, "--task", task.__name__)

    assert [intents_of(record)[0][0] for record in records(2)] == ["builtins.str", "builtins.float"]


def test_a_setting_that_is_overridden_counts_at_once(remember, settings):
    remember()
    on = settings.AIRLOCK
    settings.AIRLOCK = {}
    discard(int)
    settings.AIRLOCK = on
    discard(float)

    assert [intents_of(record)[0][0] for record in records(1)] == ["builtins.float"]


# What it costs


class Watched(LocMemCache):
    """A cache that notes how it is written to, and can be told to wait or to fail."""

    written: ClassVar = []
    may_write = threading.Event()
    error = None

    def incr(self, *args, **kwargs):
        self.may_write.wait(60)
        self.written.append("incr")
        if self.error is not None:
            raise self.error
        return super().incr(*args, **kwargs)

    def set_many(self, data, *args, **kwargs):
        self.written.append(f"set {len(data)}")
        return super().set_many(data, *args, **kwargs)


@pytest.fixture
def watched(remember, monkeypatch):
    monkeypatch.setattr(Watched, "written", [])
    monkeypatch.setattr(Watched, "may_write", threading.Event())
    remember({"BACKEND": f"{__name__}.Watched", "LOCATION": RUN})
    yield Watched
    Watched.may_write.set()


def test_nothing_is_written_for_what_goes_out(watched):
    watched.may_write.set()
    with airlock.scope(), airlock.scope():
        airlock.enqueue(int)
    discard(float)

    assert len(records(1)) == 1
    assert watched.written == ["incr", "incr", "set 1"]  # the first one finds no counter


def test_a_slow_cache_delays_nobody_and_gets_what_has_gathered_at_once(watched):
    discard(int)
    for _ in range(5):
        discard(float)
    assert watched.written == []

    watched.may_write.set()
    assert len(records(6)) == 6
    # Those that the thread had taken when it was held up, and all others.
    written = [int(call.removeprefix("set ")) for call in watched.written if call.startswith("set")]
    assert sum(written) == 6
    assert len(written) <= 2


def test_a_cache_that_is_away_breaks_nothing_and_is_logged_once(watched, log):
    watched.may_write.set()
    watched.error = ConnectionError("away")
    try:
        for count in (1, 2, 3):
            discard(int)
            wait_for(lambda count=count: len(watched.written) == count)
    finally:
        watched.error = None
    warnings = [record for record in log.records if record.levelno == logging.WARNING]
    assert ["'explain'" in record.getMessage() for record in warnings] == [True]
    assert warnings[0].exc_info[0] is ConnectionError

    discard(float)
    assert [intents_of(record)[0][0] for record in records(1)] == ["builtins.float"]


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.django_db(transaction=True)
def test_a_database_cache_is_written_to_from_an_event_loop(cache_table, settings):
    async def view(request):
        airlock.enqueue(int)
        return HttpResponse(status=400)

    settings.ROOT_URLCONF = (path("", view),)
    async_to_sync(AsyncClient().get)("/")

    assert len(records(1)) == 1


@pytest.mark.django_db(transaction=True)
def test_a_database_cache_keeps_what_a_rolled_back_transaction_has_discarded(cache_table):
    with pytest.raises(LookupError), atomic(), airlock.scope():
        airlock.enqueue(int)
        raise LookupError

    (record,) = records(1)
    assert intents_of(record) == [("builtins.int", "discarded, because LookupError was raised")]


# Several processes

PROGRAM = """
import json, os, sys
import airlock, django
from django.conf import settings
from django.core.management import call_command, execute_from_command_line
from io import StringIO

sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": FILE, "OPTIONS": {"timeout": 60}}
settings.configure(
    INSTALLED_APPS=["airlock.integrations.django"], DATABASES={"default": sqlite}, CACHES={"default": CACHE},
    AIRLOCK={"EXPLAIN": {}}, SILENCED_SYSTEM_CHECKS=["airlock.W002"], USE_TZ=False,
)
django.setup()

def discard(task):
    try:
        with airlock.scope():
            airlock.enqueue(task)
            raise LookupError
    except LookupError:
        pass

def wait():
    output = StringIO()
    while "builtins.int" not in output.getvalue():
        call_command("airlock_explain", "--json", stdout=output)
"""


@pytest.fixture(params=["redis", "database"])
def run(request, tmp_path):
    """Runs a program, in a process of its own, that shares a cache with others."""
    if request.param == "redis":
        server = request.getfixturevalue("redis_broker").celery["broker_url"]
        cache = {"BACKEND": REDIS, "LOCATION": server, "KEY_PREFIX": f"{RUN}:{tmp_path.name}"}
    else:
        cache = {"BACKEND": DATABASE, "LOCATION": "airlock_explain"}
    setup = PROGRAM.replace("FILE", repr(str(tmp_path / "db.sqlite3"))).replace("CACHE}", f"{cache!r}}}")

    def run(program, *arguments):
        # Newer Pythons warn of a fork where there are threads.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", setup + program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == ""
        return done.stdout

    run("execute_from_command_line(sys.argv)", "createcachetable")
    return run


def names(output):
    return [intents_of(record)[0][0] for record in json.loads(output)["kept_back"]]


def test_another_process_explains_what_one_that_has_ended_kept_back(run):
    run("discard(int)")
    run("discard(float)")

    output = run("execute_from_command_line(sys.argv)", "airlock_explain", "--json")
    assert names(output) == ["builtins.float", "builtins.int"]


def test_a_process_without_a_file_is_called_python(run):
    run("discard(int)")

    output = run("execute_from_command_line(sys.argv)", "airlock_explain", "--json")
    (record,) = json.loads(output)["kept_back"]
    assert record["process"].startswith("python, process ")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_remembers_for_itself(run):
    # One after the other: a cache in a database does not count two at the same moment.
    run("discard(int)\nwait()\nif os.fork() == 0:\n    discard(float)\nelse:\n    os.wait()\n    discard(str)\n")

    output = run("execute_from_command_line(sys.argv)", "airlock_explain", "--json")
    assert sorted(names(output)) == ["builtins.float", "builtins.int", "builtins.str"]


def test_a_process_ends_although_its_cache_does_not_answer(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and never answers
        cache = {"BACKEND": REDIS, "LOCATION": f"redis://127.0.0.1:{silent.getsockname()[1]}/0"}
        setup = PROGRAM.replace("FILE", repr(str(tmp_path / "db"))).replace("CACHE}", f"{cache!r}}}")
        subprocess.run([sys.executable, "-c", f"{setup}discard(int)"], timeout=60, check=True)


# What is printed


def test_the_newest_are_printed_first_with_all_that_is_known(remember):
    remember()
    discard(int)
    records(1)
    first, second = discard(float, float)
    records(2)

    newest, oldest, rest = explain().split("\n\n")
    assert newest.splitlines()[1:] == [
        "  discarded, because LookupError was raised",
        "    builtins.float (2 times)",
        "      enqueued at shop.py:7",
        f"      ids {first.id}, {second.id}",
    ]
    assert "builtins.int" in oldest
    assert rest == ""


def test_the_number_of_those_printed_can_be_given(remember):
    remember()
    for _ in range(12):
        discard(int)
    records(10)

    wait_for(lambda: len(records(10, 1000)) == 12)
    assert len(records(10)) == 10
    assert len(records(3, 3)) == 3


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_number_that_is_none_is_refused(remember, count):
    remember()
    with pytest.raises(CommandError, match=f"{count} is no number from 1 on"):
        explain(count)


@pytest.mark.parametrize("name", ["int", "builtins.int"])
def test_one_task_can_be_asked_for(remember, name):
    remember()
    discard(int, float)
    discard(float)
    records(2)

    (record,) = records(1, "--task", name)
    assert [line["task"] for line in record["intents"]] == ["builtins.int"]
    assert "builtins.float" not in explain("--task", name)
    assert "of the task str back" in explain("--task", "str")


def test_long_lines_wrap_in_a_terminal_and_ids_stay_whole(remember, monkeypatch):
    class Terminal(StringIO):
        def isatty(self):
            return True

    remember()
    intents = discard(*[int] * 4)
    records(1)
    monkeypatch.setenv("COLUMNS", "50")
    output = Terminal()
    call_command("airlock_explain", stdout=output, no_color=True)

    assert max(map(len, output.getvalue().splitlines())) <= 50
    assert all(intent.id in output.getvalue() for intent in intents[:3])
    assert "and 1 more" in " ".join(output.getvalue().split())


def test_where_something_was_enqueued_is_asked_for_if_it_was_not_recorded(remember):
    remember()
    discard(int)
    records(1)
    assert "CAPTURE_ORIGIN" not in explain()

    with airlock.scope(airlock.DropAll()):
        airlock.enqueue(int)
    records(2)
    assert 'AIRLOCK["CAPTURE_ORIGIN"] = True' in explain()


@pytest.mark.parametrize("kind", ["parked", "skipped", "failed"])
def test_what_a_relay_cannot_know_is_not_asked_for(remember, kind):
    remember()
    tell([Event(kind, airlock.Intent(int), reason="it had to be", is_handled=True)])
    records(1)

    assert "CAPTURE_ORIGIN" not in explain()


def test_time_is_that_of_the_time_zone(remember, settings):
    remember()
    discard(int)
    records(1)
    settings.TIME_ZONE = "Asia/Tokyo"
    assert " JST  DjangoScope " in explain()
    settings.USE_TZ = False
    assert " DjangoScope " in explain()


# What is said if there is nothing


def test_without_the_setting_it_says_what_to_turn_on(settings):
    settings.AIRLOCK = {}

    assert 'AIRLOCK["EXPLAIN"] = {"CACHE": "default"}' in explain()
    assert json.loads(explain("--json"))["kept_back"] is None


def test_if_nothing_was_kept_back_it_says_so(remember, redis_broker):
    remember({"BACKEND": REDIS, "LOCATION": redis_broker.celery["broker_url"], "KEY_PREFIX": RUN})

    assert explain() == "No scope has kept anything back, as far as is remembered.\n"
    assert json.loads(explain("--json"))["kept_back"] == []


@pytest.mark.parametrize("backend", ["locmem.LocMemCache", "dummy.DummyCache"])
def test_a_cache_of_one_process_is_named_as_the_reason(remember, backend):
    remember({"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": RUN})

    assert f"The cache 'explain' is a {backend.partition('.')[2]}" in explain()


def test_a_cache_that_cannot_be_read_is_an_error(remember, settings):
    remember()
    away = {"BACKEND": REDIS, "LOCATION": f"redis://127.0.0.1:{free_port()}/0"}
    settings.CACHES = {**settings.CACHES, "explain": away}
    with pytest.raises(CommandError, match=r"The cache 'explain' cannot be read\. ConnectionError"):
        explain()
    settings.CACHES = {**settings.CACHES, "explain": {"BACKEND": LOCAL}}


# The setting

BROKEN = {
    "no dictionary": (True, "airlock.E003", "dictionary"),
    "unknown key": ({"SIZE": 3}, "airlock.E001", "CACHE, SCOPES"),
    "unknown cache": ({"CACHE": "none"}, "airlock.E003", "Make it a dictionary whose CACHE is an alias"),
    "cache: a list": ({"CACHE": ["default"]}, "airlock.E003", "'default'"),
    "no scopes": ({"SCOPES": 0}, "airlock.E003", "Make it a dictionary whose SCOPES is a number from 1 to 1000"),
    "too many scopes": ({"SCOPES": 1001}, "airlock.E003", "from 1 to 1000"),
    "scopes: a word": ({"SCOPES": "all"}, "airlock.E003", "from 1 to 1000"),
    "scopes: true": ({"SCOPES": True}, "airlock.E003", "from 1 to 1000"),
}
broken = pytest.mark.parametrize(("given", "check_id", "hint"), BROKEN.values(), ids=BROKEN)


def messages():
    return [message for message in run_checks() if message.id.startswith("airlock.")]


@broken
def test_a_setting_that_is_wrong_is_a_check_error(settings, given, check_id, hint):
    settings.AIRLOCK = {"EXPLAIN": given}

    (message,) = messages()
    assert message.id == check_id
    assert "EXPLAIN" in message.msg
    assert hint in message.hint


@broken
def test_a_setting_that_is_wrong_is_an_error_of_the_command_alone(settings, given, check_id, hint):
    settings.AIRLOCK = {"EXPLAIN": given}
    discard(int)
    with pytest.raises(ImproperlyConfigured, match="EXPLAIN"):
        explain()


@pytest.mark.parametrize("backend", ["locmem.LocMemCache", "dummy.DummyCache"])
def test_a_cache_of_one_process_is_a_check_warning(remember, backend):
    remember({"BACKEND": f"django.core.cache.backends.{backend}"})

    (message,) = messages()
    assert message.id == "airlock.W005"
    assert backend.partition(".")[2] in message.msg
    assert "Redis" in message.hint


@pytest.mark.parametrize("backend", [REDIS, DATABASE])
def test_other_caches_pass_the_checks(settings, backend):
    settings.CACHES = {"default": {"BACKEND": backend}}
    settings.AIRLOCK = {"EXPLAIN": {}}

    assert messages() == []
