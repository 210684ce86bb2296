"""What is written, by which COMMIT."""

import threading
from contextlib import suppress

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.db.transaction import atomic
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils import timezone

import airlock

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
]

every_database = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql", "mariadb"], indirect=True, scope="session"
)


@pytest.fixture(autouse=True)
def _nothing_is_published_at_once(outbox):
    """So that what is written stays."""
    outbox(FAST_PATH_SECONDS=0)


def ids(entries):
    return [str(entry.id) for entry in entries]


def save(key):
    Session.objects.create(session_key=key, expire_date=timezone.now())


# -- One INSERT --------------------------------------------------------------------------------------------------------


@every_database
@pytest.mark.parametrize("number", [1, 10])
def test_one_insert_right_before_commit(add, number, statements, rows):
    with airlock.scope():
        with atomic():
            intents = [airlock.enqueue(add, x) for x in range(number)]
            assert statements == []
        assert statements == ["INSERT"]
        assert ids(rows()) == [intent.id for intent in intents]


@every_database
def test_more_than_one_statement_can_hold_are_written(add, rows):
    with airlock.scope(), atomic():
        intents = [airlock.enqueue(add, x) for x in range(2500)]

    assert ids(rows()) == [intent.id for intent in intents]


def test_transaction_without_intents_makes_no_statement(add, statements):
    with airlock.scope(), atomic():
        airlock.enqueue(add, 1)
    statements.clear()

    with airlock.scope(), atomic():
        pass

    assert statements == []


def test_transaction_of_dropped_intents_makes_no_statement(add, statements):
    with atomic(), airlock.scope(airlock.DropAll()):
        airlock.enqueue(add, 1)

    assert statements == []


@every_database
def test_entries_are_seen_with_what_was_committed(add, rows):
    with airlock.scope(), atomic():
        save("a")
        airlock.enqueue(add, 1)
        assert rows() == []
    assert len(rows()) == Session.objects.count() == 1


# -- Rollbacks ---------------------------------------------------------------------------------------------------------


@every_database
def test_rolled_back_savepoint_is_not_written(add, rolled_back, rows):
    with airlock.scope(), atomic():
        before = airlock.enqueue(add, 1)
        with rolled_back():
            airlock.enqueue(add, 2)
            with atomic():
                airlock.enqueue(add, 3)
        with atomic():
            inside = airlock.enqueue(add, 4)
        after = airlock.enqueue(add, 5)

    assert ids(rows()) == [before.id, inside.id, after.id]


@every_database
def test_rolled_back_transaction_is_not_written(add, rolled_back, rows, statements):
    with airlock.scope(), rolled_back(), atomic():
        airlock.enqueue(add, 1)

    assert statements == []
    assert rows() == []


def test_transaction_marked_for_rollback_is_not_written(add, rows):
    with airlock.scope(), atomic():
        airlock.enqueue(add, 1)
        transaction.set_rollback(True)

    assert rows() == []


def test_block_without_a_savepoint_that_fails_is_not_written(add, rows):
    with airlock.scope(), suppress(transaction.TransactionManagementError), atomic():
        airlock.enqueue(add, 1)
        with suppress(KeyError), atomic(savepoint=False):
            airlock.enqueue(add, 2)
            raise KeyError

    assert rows() == []


def test_scope_inside_of_a_transaction_that_rolls_back_writes_nothing(add, rolled_back, rows):
    with rolled_back(), airlock.scope():
        airlock.enqueue(add, 1)

    assert rows() == []


def test_next_transaction_writes_nothing_of_one_that_was_rolled_back(add, rolled_back, rows):
    with airlock.scope():
        with rolled_back():
            airlock.enqueue(add, 1)
        with atomic():
            kept = airlock.enqueue(add, 2)
        assert ids(rows()) == [kept.id]


def test_commit_inside_of_a_block_is_refused_and_writes_nothing(add, rolled_back, rows):
    with airlock.scope(), rolled_back():
        airlock.enqueue(add, 1)
        with pytest.raises(transaction.TransactionManagementError):
            connection.commit()

    assert rows() == []


# -- Discards ----------------------------------------------------------------------------------------------------------


@every_database
def test_discard_after_commit_deletes(add, rows):
    with suppress(KeyError), airlock.scope():
        with atomic():
            airlock.enqueue(add, 1)
        assert len(rows()) == 1
        raise KeyError

    assert rows() == []


def test_scope_discarded_before_commit_is_not_written(add, rows, statements):
    with atomic(), suppress(KeyError), airlock.scope():
        airlock.enqueue(add, 1)
        raise KeyError

    assert statements == []
    assert rows() == []


def test_discarded_nested_scope_leaves_the_entries_of_others(add, rows):
    with airlock.scope():
        with atomic():
            before = airlock.enqueue(add, 1)
        with suppress(KeyError), airlock.scope():
            with atomic():
                airlock.enqueue(add, 2)
            assert len(rows()) == 2
            raise KeyError
        assert ids(rows()) == [before.id]


def test_scope_around_that_discards_deletes_what_nested_ones_had(add, rows):
    with suppress(KeyError), airlock.scope():
        with airlock.scope(), atomic():
            airlock.enqueue(add, 1)
        assert len(rows()) == 1
        raise KeyError

    assert rows() == []


def test_what_a_policy_drops_at_the_flush_is_deleted(add, rows):
    with airlock.scope(airlock.DropAll()):
        with atomic():
            airlock.enqueue(add, 1)
        assert len(rows()) == 1

    assert rows() == []


# -- Aliases -----------------------------------------------------------------------------------------------------------


def test_entry_is_on_the_alias_of_its_transaction(add, rows):
    with airlock.scope(), atomic("other"):
        airlock.enqueue(add, 1)

    assert (len(rows("default")), len(rows("other"))) == (0, 1)


@every_database
def test_of_two_aliases_the_one_that_commits_last_has_the_entry(add, rows):
    with airlock.scope():
        with atomic("other"):
            with atomic("default"):
                airlock.enqueue(add, 1)
            assert rows("default") == []
        assert (len(rows("default")), len(rows("other"))) == (0, 1)


@pytest.mark.parametrize("alias", ["default", "other"])
def test_of_two_aliases_neither_has_it_if_one_rolls_back(add, rolled_back, rows, alias):
    outer, inner = (rolled_back, atomic) if alias == "other" else (atomic, rolled_back)
    with airlock.scope(), outer("other"), inner("default"):
        airlock.enqueue(add, 1)

    assert rows("default") == rows("other") == []


def test_scope_that_flushes_in_another_transaction_is_written_by_that(add, rows):
    with atomic("other"), airlock.scope():
        with atomic("default"):
            airlock.enqueue(add, 1)
        assert rows("default") == []

    assert (len(rows("default")), len(rows("other"))) == (0, 1)


class OnlyDefault:
    def allow_migrate(self, db, app_label, **hints):
        return db == "default" or app_label != "airlock_outbox"


def test_alias_that_the_router_keeps_the_table_from_is_not_written_to(add, published, rows, settings):
    settings.DATABASE_ROUTERS = [OnlyDefault()]
    with airlock.scope():
        with atomic("other"):
            airlock.enqueue(add, 1)
        assert rows("default") == rows("other") == []

    assert len(rows("default")) == 1  # at the flush, in autocommit


# -- Django's ways to have a transaction -------------------------------------------------------------------------------


def test_durable_block_writes(add, rows):
    with airlock.scope(), atomic(durable=True):
        airlock.enqueue(add, 1)

    assert len(rows()) == 1


@pytest.fixture(params=["WSGI", "ASGI"])
def get(request, settings):
    """Has Django's sync or async handler answer a request with a view."""

    async def asgi():
        await AsyncClient(raise_request_exception=False).get("/")

    def get(view):
        settings.ROOT_URLCONF = (path("", view),)
        if request.param == "WSGI":
            Client(raise_request_exception=False).get("/")
        else:
            async_to_sync(asgi)()

    return get


@pytest.fixture
def atomic_requests(settings):
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False


@pytest.mark.usefixtures("atomic_requests")
def test_request_in_a_transaction_writes_once(add, get, rows, statements):
    def view(request):
        airlock.enqueue(add, 1)
        airlock.enqueue(add, 2)
        return HttpResponse()

    get(view)

    assert statements.count("INSERT") == 1
    assert len(rows()) == 2


@pytest.mark.usefixtures("atomic_requests")
def test_failed_request_in_a_transaction_writes_nothing(add, get, rows):
    def view(request):
        airlock.enqueue(add, 1)
        raise KeyError

    get(view)

    assert rows() == []


def test_async_view_writes(add, get, rows):
    @sync_to_async
    def order():
        with atomic():
            airlock.enqueue(add, 1)
        seen.extend(rows())

    async def view(request):
        await order()
        return HttpResponse()

    seen = []
    get(view)

    assert len(seen) == len(rows()) == 1


def test_entries_of_a_streaming_response_are_held_until_its_end(add, rows, settings):
    def body():
        with atomic():
            airlock.enqueue(add, 1)
        yield b"begun"
        seen.extend(rows())
        yield b"ended"

    seen = []
    settings.ROOT_URLCONF = (path("", lambda request: StreamingHttpResponse(body())),)
    assert list(Client().get("/")) == [b"begun", b"ended"]
    (held,), (let_go,) = seen, rows()
    assert held.held
    assert not let_go.held


# -- Autocommit --------------------------------------------------------------------------------------------------------


@every_database
def test_in_autocommit_one_insert_at_the_flush(add, rows, statements):
    with airlock.scope():
        airlock.enqueue(add, 1)
        airlock.enqueue(add, 2)
        assert statements == []

    assert statements.count("INSERT") == 1
    assert len(rows()) == 2


def test_committed_and_not_committed_are_written_in_their_turn(add, rows):
    with airlock.scope():
        with atomic():
            first = airlock.enqueue(add, 1)
        second = airlock.enqueue(add, 2)

    assert ids(rows()) == [first.id, second.id]


def test_threads_write_into_the_transactions_of_their_own(add, rows):
    def work():
        with airlock.scope(), atomic():
            airlock.enqueue(add, 1)
            committing.wait(30)
        connection.close()

    committing = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert rows() == []
    finally:
        committing.set()
        thread.join()
    assert len(rows()) == 1
