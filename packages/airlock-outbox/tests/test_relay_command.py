"""What `manage.py airlock_relay` says."""

import re
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db.transaction import atomic

import airlock
from airlock.integrations.outbox.management.commands.airlock_relay import Command
from airlock.integrations.outbox.models import Entry
from airlock.integrations.outbox.tasks import relay as relay_task
from own_brokers import Proxy, url
from processes import free_port

pytestmark = [
    pytest.mark.usefixtures("database", "app"),
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
]


@pytest.fixture
def leave(outbox, add):
    """Leaves tasks to the relay of a database."""

    def leave(*arguments, alias="default"):
        outbox(FAST_PATH_SECONDS=0, BATCH_SIZE=2)
        with airlock.scope(), atomic(using=alias):
            for argument in arguments:
                airlock.enqueue(add, argument)

    return leave


class Terminal(StringIO):
    def isatty(self):
        return True


def relay(*arguments, stdout=None):
    """What it says."""
    stdout = stdout or StringIO()
    call_command("airlock_relay", *arguments, stdout=stdout)
    return stdout.getvalue()


def test_once_dispatches_one_batch(leave, published):
    leave(1, 2, 3)

    assert relay("--once") == "2 dispatched, 0 put off, 0 parked.\n"
    assert published() == [1, 2]


def test_drain_dispatches_all_that_is_due(leave, published):
    leave(1, 2, 3)

    assert relay("--drain") == "3 dispatched, 0 put off, 0 parked.\n"
    assert published() == [1, 2, 3]


def test_drain_shows_its_progress_on_a_terminal(leave):
    leave(1, 2, 3, 4)

    assert relay("--drain", stdout=Terminal()) == (
        "\r[####################                    ] 2 of 4"
        "\r[########################################] 4 of 4\n"
        "4 dispatched, 0 put off, 0 parked.\n"
    )


def test_drain_says_what_it_could_not_dispatch(leave):
    leave(1, 2)
    Entry.objects.filter(id=Entry.objects.first().id).update(payload="changed")

    assert relay("--drain") == "1 dispatched, 0 put off, 1 parked.\n"


def test_all_databases_unless_some_are_named(leave, published):
    leave(1)
    leave(2, alias="other")

    assert relay("--drain", "--database=other") == "1 dispatched, 0 put off, 0 parked.\n"
    assert published() == [2]
    assert relay("--drain") == "1 dispatched, 0 put off, 0 parked.\n"
    assert published() == [1]


def test_the_task_for_beat_drains(leave, published):
    leave(1, 2, 3)

    assert relay_task() == 3
    assert published() == [1, 2, 3]


def test_check_of_a_healthy_outbox(leave):
    assert relay("--check") == "All well.\n"


def test_check_finds_what_has_been_due_for_too_long(leave, published):
    leave(1)
    assert relay("--check") == "All well.\n"

    with pytest.raises(CommandError, match=r"In the database 'default' an entry has been due for \d+ s\."):
        relay("--check", "--max-age=0")
    assert published() == []


def test_check_finds_that_the_broker_is_away(app):
    app.conf.broker_url = f"redis://127.0.0.1:{free_port()}/0"

    with pytest.raises(CommandError, match=r"^The broker is down: redis\S+: "):
        relay("--check")


def run_by_itself(*arguments):
    """As `manage.py` runs it."""
    Command().run_from_argv(["manage.py", "airlock_relay", "--skip-checks", *arguments])


@pytest.fixture(params=["redis", "amqp"])
def silent_broker(request, app):
    """A broker that takes connections, and never answers."""
    with Proxy(free_port()) as way:
        way.answers.clear()
        app.conf.update(
            broker_url=url(request.param, way.port),
            broker_connection_timeout=0.1,
            broker_transport_options={"socket_timeout": 0.1} if request.param == "redis" else {},
        )
        yield
        way.refuses = True


@pytest.mark.parametrize("how", ["--check", "--once", "--drain"])
@pytest.mark.usefixtures("silent_broker")
def test_a_broker_that_never_answers_is_away(how, leave, capsys):
    leave(1)

    with pytest.raises(SystemExit):
        run_by_itself(how)

    assert " is down: " in capsys.readouterr().err
    assert Entry.objects.get().attempts == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"socket_timeout": 10, "socket_connect_timeout": 10}),
        (
            {"socket_timeout": None, "fanout_prefix": True},
            {"socket_timeout": None, "socket_connect_timeout": 10, "fanout_prefix": True},
        ),
    ],
)
def test_redis_is_not_waited_for_for_ever_unless_somebody_says_so(app, options, expected):
    app.conf.update(broker_url=url("redis", free_port()), broker_transport_options=options)

    with pytest.raises(SystemExit):
        run_by_itself("--check")

    assert app.conf.broker_transport_options == expected


def test_a_process_with_other_things_to_do_keeps_its_settings(app):
    app.conf.broker_url = url("redis", free_port())

    with pytest.raises(CommandError, match="is down"):
        relay("--check")

    assert app.conf.broker_transport_options == {}


@pytest.mark.parametrize("how", ["--check", "--once", "--drain", "--database=other"])
def test_table_that_is_not_there(how):
    call_command("migrate", "airlock_outbox", "zero", database="other", verbosity=0)
    try:
        with pytest.raises(CommandError, match=re.escape("Run: manage.py migrate --database other.")):
            relay(how)
    finally:
        call_command("migrate", database="other", verbosity=0)


class NoDatabase:
    def allow_migrate(self, *args, **hints):
        return False


def test_no_database_may_have_the_table(settings):
    settings.DATABASE_ROUTERS = [NoDatabase()]

    with pytest.raises(CommandError, match="see DATABASE_ROUTERS"):
        relay("--drain")
