"""Transactions whose entries cannot be written, and those that cannot commit."""

from contextlib import contextmanager, suppress

import pytest
from django.contrib.sessions.models import Session
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.db.transaction import atomic
from django.utils import timezone

import airlock
from airlock.integrations.outbox.models import Entry

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.django_db(transaction=True),
]


def on(*databases):
    return pytest.mark.parametrize("database", databases, indirect=True, scope="session")


def execute(*statements):
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def no_table(database):
    """The table is not there."""
    with connection.schema_editor() as editor:
        editor.alter_db_table(Entry, "airlock_outbox", "elsewhere")
    yield
    with connection.schema_editor() as editor:
        editor.alter_db_table(Entry, "elsewhere", "airlock_outbox")


@pytest.fixture
def trigger(database):
    """The database refuses each row."""
    when = "CREATE TRIGGER refuse BEFORE INSERT ON airlock_outbox"
    if database == "postgresql":
        execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$",
            f"{when} FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
    elif database == "mariadb":
        execute(f"{when} FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'")
    else:
        execute(f"{when} BEGIN SELECT RAISE(ABORT, 'no'); END")
    yield
    execute("DROP TRIGGER refuse ON airlock_outbox" if database == "postgresql" else "DROP TRIGGER refuse")
    if database == "postgresql":
        execute("DROP FUNCTION refuse")


@contextmanager
def raising_at_insert(error):
    """Raises an error, if there is one, where entries would be written."""

    def wrapper(execute, sql, *args):
        if error is not None and sql.startswith("INSERT INTO airlock_outbox"):
            raise error
        return execute(sql, *args)

    with connection.execute_wrapper(wrapper):
        yield


@pytest.fixture(params=["scope around", "scope inside"])
def order(request, add, ran):
    """Saves something, enqueues something, and asks for a callback, in a transaction."""

    @contextmanager
    def boundary():
        outer, inner = airlock.scope(), atomic()
        if request.param == "scope inside":
            outer, inner = inner, outer
        with outer, inner:
            yield

    def order(before_the_end=lambda: None):
        with boundary():
            Session.objects.create(session_key="order", expire_date=timezone.now())
            airlock.enqueue(add, 1)
            transaction.on_commit(lambda: ran.append("callback"))
            before_the_end()

    return order


@pytest.fixture
def check_rolled_back(published, ran, rows):
    """Checks that nothing is left of an order, and that the connection can be used."""

    def check():
        assert connection.get_autocommit()
        assert not connection.in_atomic_block
        assert list(Session.objects.all()) == []
        assert ran == published() == []
        with atomic():  # a leftover callback would run after this one
            Session.objects.create(session_key="next", expire_date=timezone.now())
        assert Session.objects.count() == 1
        assert ran == []

    return check


@on("sqlite", "postgresql", "mariadb")
@pytest.mark.parametrize("refusal", ["no_table", "trigger"])
def test_refused_entry_rolls_the_transaction_back(request, refusal, order, check_rolled_back):
    request.getfixturevalue(refusal)
    with pytest.raises(DatabaseError):
        order()

    check_rolled_back()


@on("sqlite", "postgresql", "mariadb")
@pytest.mark.parametrize("error", [RuntimeError("something else"), KeyboardInterrupt()], ids=["error", "interruption"])
def test_whatever_is_handled_at_the_write_rolls_the_transaction_back(error, order, check_rolled_back):
    with raising_at_insert(error), pytest.raises(type(error)) as raised:
        order()

    assert raised.value is error
    check_rolled_back()


@on("postgresql", "mariadb")
@pytest.mark.parametrize("error", [None, KeyboardInterrupt()], ids=["nothing more", "interruption"])
def test_connection_that_is_killed_rolls_the_transaction_back(database, error, order, check_rolled_back):
    def kill():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()" if database == "postgresql" else "SELECT CONNECTION_ID()")
            (number,) = cursor.fetchone()
        other = connections.create_connection("default")
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)" if database == "postgresql" else "KILL %s", [number])
        other.close()

    with raising_at_insert(error), pytest.raises((DatabaseError, KeyboardInterrupt)):
        order(before_the_end=kill)

    check_rolled_back()


def test_caller_who_goes_on_after_a_refused_write_drops_its_intents(trigger, add, published):
    with airlock.scope() as scope:
        with suppress(DatabaseError), atomic():
            airlock.enqueue(add, 1)
        airlock.enqueue(add, 2, _name="in autocommit")

    assert len(scope.rolled_back_intents) == 1
    assert published() == [2]


@on("sqlite", "postgresql")
def test_refused_commit_leaves_nothing(database, order, check_rolled_back, rows):
    execute(
        "CREATE TABLE parent (id integer PRIMARY KEY)",
        "CREATE TABLE child (parent integer REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
    )
    try:
        with pytest.raises(IntegrityError):
            order(before_the_end=lambda: execute("INSERT INTO child VALUES (1)"))
    finally:
        execute("DROP TABLE child", "DROP TABLE parent")

    assert rows() == []
    check_rolled_back()


def test_nothing_is_deleted_of_a_transaction_that_broke_off(trigger, add, statements):
    """Its COMMIT may have got through: then its effects are due."""
    with suppress(DatabaseError), airlock.scope(), atomic():
        airlock.enqueue(add, 1)

    assert "DELETE" not in statements


@on("postgresql")
def test_transaction_that_postgresql_would_roll_back_fails_at_its_end(order, check_rolled_back):
    """Without the outbox, Django takes it for a commit: somebody caught an error inside of the block it broke."""

    def query_nothing():
        with suppress(DatabaseError):
            execute("SELECT nothing FROM nowhere")

    with pytest.raises(DatabaseError):
        order(before_the_end=query_nothing)

    check_rolled_back()


def test_in_autocommit_what_cannot_be_written_is_dispatched_all_the_same(trigger, add, log, published):
    with airlock.scope():
        airlock.enqueue(add, 1)

    assert published() == [1]
    assert "could not record" in log.text
