"""Intents hang on transactions that somebody else decides: here, a toy database that an outsider has integrated."""

import gc
import os
import weakref
from contextlib import contextmanager

import pytest

import airlock
from airlock.ext import register_fates


class Block:
    """A transaction, or a savepoint in one."""

    def __init__(self, transaction=None):
        self.state = "open"
        self.transaction = transaction or self
        self.parts = []
        self.waiting = []

    def when_over(self, tell):
        if self.state == "open":
            self.waiting.append(tell)
        else:
            tell()


class Database:
    """Knows the blocks that are open. Those of a rollback are not told, as with callbacks on commit."""

    def __init__(self):
        self.open = []
        self.refused = None

    def open_fates(self):
        if self.refused:
            raise airlock.UsageError(self.refused)
        return tuple(self.open)

    def refresh(self, fates):
        """A real one would look at what the database has done. This one notes it as it happens."""

    @contextmanager
    def atomic(self):
        block = Block(self.open[0] if self.open else None)
        self.open.append(block)
        parts = block.transaction.parts
        first = len(parts)
        parts.append(block)
        try:
            yield block
        except BaseException:
            self.open.pop()
            for part in parts[first:]:
                part.state = "gone"
            raise
        self.open.pop()
        if block is block.transaction:
            self.commit(block)

    def commit(self, block):
        for part in (block, *block.parts):
            if part.state == "open":
                part.state = "kept"
        while block.waiting:
            block.waiting.pop(0)()


database, other_database = Database(), Database()


@pytest.fixture(scope="module", autouse=True)
def _registered():
    register_fates(database)
    register_fates(other_database)


class UndoError(Exception):
    pass


@contextmanager
def undone():
    """A block of the database that is rolled back."""
    with pytest.raises(UndoError), database.atomic():
        yield
        raise UndoError


def test_without_a_transaction_intents_go_out_at_the_flush(ran):
    with airlock.scope():
        airlock.enqueue(ran.append, 1)
    assert ran == [1]


def test_intents_wait_for_the_transaction_that_is_open_at_the_flush(ran):
    with database.atomic():
        with airlock.scope() as scope:
            airlock.enqueue(ran.append, 1)
            airlock.enqueue(ran.append, 2)
        assert ran == []
        assert scope.undispatched_intents == scope.intents
    assert ran == [1, 2]
    assert scope.dispatched_intents == scope.intents
    assert scope.undispatched_intents == scope.rolled_back_intents == []


def test_intents_of_a_committed_transaction_go_out_at_the_flush(ran):
    with airlock.scope():
        with database.atomic():
            airlock.enqueue(ran.append, 1)
        assert ran == []
    assert ran == [1]


def test_intents_of_a_rolled_back_transaction_never_go_out(ran):
    with airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)
        with undone():
            gone = airlock.enqueue(ran.append, 2)
    assert ran == [1]
    assert scope.rolled_back_intents == [gone]
    assert scope.undispatched_intents == []


def test_what_waits_for_a_transaction_that_rolls_back_never_goes_out(ran):
    with undone(), airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)
    assert ran == []
    assert scope.rolled_back_intents == scope.intents
    assert scope.undispatched_intents == []


def test_a_rolled_back_savepoint_drops_its_intents(ran):
    with airlock.scope() as scope, database.atomic():
        airlock.enqueue(ran.append, 1)
        with undone(), database.atomic():
            gone = airlock.enqueue(ran.append, 2)
        with database.atomic():
            airlock.enqueue(ran.append, 3)
    assert ran == [1, 3]
    assert scope.rolled_back_intents == [gone]


def test_a_savepoint_rolled_back_after_the_flush_drops_what_waited(ran):
    with database.atomic():
        with airlock.scope() as scope:
            airlock.enqueue(ran.append, 1)
        with undone(), airlock.scope() as inner:
            airlock.enqueue(ran.append, 2)
        with airlock.scope():
            airlock.enqueue(ran.append, 3)
    assert ran == [1, 3]
    assert (scope.rolled_back_intents, inner.rolled_back_intents) == ([], inner.intents)


def test_intents_wait_for_what_is_open_at_the_flush_only(ran):
    scope = airlock.scope()
    with scope:
        airlock.enqueue(ran.append, 1)
        database.open.append(Block())
    block = database.open.pop()
    assert ran == []
    database.commit(block)
    assert ran == [1]


def test_what_is_open_at_the_flush_takes_all_along_when_it_is_gone(ran):
    scope = airlock.scope()
    with scope:
        airlock.enqueue(ran.append, 1)
        database.open.append(Block())
    database.open.pop().state = "gone"
    assert scope.rolled_back_intents == scope.intents
    assert ran == []


def test_intents_wait_for_every_database(ran):
    with other_database.atomic():
        with database.atomic(), airlock.scope():
            airlock.enqueue(ran.append, 1)
        assert ran == []
    assert ran == [1]


def test_parts_of_a_scope_wait_for_transactions_of_their_own(ran):
    first, second = Block(), Block()
    with airlock.scope() as scope:
        for block in (first, second):
            database.open.append(block)
            airlock.enqueue(ran.append, len(scope.intents))
            database.open.pop()
        airlock.enqueue(ran.append, "at once")
    assert ran == ["at once"]
    database.commit(second)
    assert ran == ["at once", 1]
    database.commit(first)
    assert ran == ["at once", 1, 0]


def test_a_rollback_that_is_told_is_logged(ran, caplog):
    caplog.set_level("INFO", logger="airlock")
    with airlock.scope(), undone():
        airlock.enqueue(ran.append, 2)
    with database.atomic():
        with database.atomic() as late, airlock.scope():
            airlock.enqueue(ran.append, 3)
        late.state = "gone"
    message = "1 of the intents of a Scope will not be dispatched. append: rolled back with their transaction"
    assert caplog.messages == [message, message]
    assert ran == []


def test_policies_are_not_asked_about_what_was_rolled_back(caplog):
    caplog.set_level("INFO", logger="airlock")
    with airlock.scope(airlock.DropAll()), undone():
        airlock.enqueue(int)
    with airlock.scope(airlock.DropAll()):
        airlock.enqueue(int)
    start = "1 of the intents of a Scope will not be dispatched. int: "
    assert caplog.messages == [start + "rolled back with their transaction", start + "dropped by DropAll()"]


def test_captured_and_let_through_intents_respect_transactions(ran):
    class LetsAllThrough(airlock.Scope):
        def before_descendant_flushes(self, exiting_scope, intents):
            return intents

    with airlock.scope(), undone(), airlock.scope():
        airlock.enqueue(ran.append, "captured")
    with airlock.scope(_cls=LetsAllThrough):
        with undone(), airlock.scope():
            airlock.enqueue(ran.append, "let through")
        with database.atomic(), airlock.scope():
            airlock.enqueue(ran.append, "kept")
        assert ran == ["kept"]
    assert ran == ["kept"]


def test_dispatch_all_deferred_into_a_later_transaction(ran):
    class Later(airlock.Scope):
        def dispatch_all(self, intents):
            self.kept = intents

    with undone(), airlock.scope(_cls=Later) as gone:
        airlock.enqueue(ran.append, "gone")
    with database.atomic(), airlock.scope(_cls=Later) as kept:
        airlock.enqueue(ran.append, "kept")
    with database.atomic():
        for scope in (gone, kept):
            airlock.Scope.dispatch_all(scope, scope.kept)
        assert ran == []
    assert ran == ["kept"]
    assert gone.rolled_back_intents == gone.intents


def test_detached_and_other_untransactional_scopes_do_not_wait(ran):
    class AtOnce(airlock.Scope):
        transactional = False

    with undone():
        with airlock.detached():
            airlock.enqueue(ran.append, "detached")
        with airlock.scope(_cls=AtOnce):
            airlock.enqueue(ran.append, "at once")
    assert ran == ["detached", "at once"]


def test_where_it_cannot_be_known_enqueue_is_refused(ran):
    database.refused = "manual transaction management"
    try:
        with airlock.scope() as scope:
            with pytest.raises(airlock.UsageError, match="manual"):
                airlock.enqueue(ran.append, 1)
            assert scope.intents == []
    finally:
        database.refused = None


def test_a_failure_after_the_commit_follows_the_scope(ran):
    class Logging(airlock.Scope):
        dispatch_errors = "log"

    with database.atomic():
        with airlock.scope(_cls=Logging) as first:
            airlock.enqueue(int, "x")
            airlock.enqueue(ran.append, 1)
        with airlock.scope(_cls=Logging):
            airlock.enqueue(ran.append, 2)
    assert ran == [1, 2]
    assert first.undispatched_intents == first.intents[:1]


def test_a_child_forked_while_intents_wait_dispatches_nothing(ran):
    transaction = Block()
    database.open.append(transaction)
    with airlock.scope():
        airlock.enqueue(ran.append, 1)
    database.open.pop()
    child = os.fork()
    if child == 0:
        database.commit(transaction)
        os._exit(len(ran))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    database.commit(transaction)
    assert ran == [1]


def test_what_has_waited_and_gone_out_is_freed_at_once():
    class Order:
        pass

    order = Order()
    gone = weakref.ref(order)
    gc.disable()
    try:
        with database.atomic(), airlock.scope():
            airlock.enqueue(id, order)
        with airlock.scope():
            airlock.enqueue(id, order)
        del order
        assert gone() is None
    finally:
        gc.enable()


def test_what_waits_goes_out_though_what_did_not_wait_has_failed(ran):
    def fail():
        raise ValueError("broken")

    with database.atomic():
        scope = airlock.scope()
        scope.transactional = True
        scope.dispatch_errors = "raise"
        scope.enter()
        waits = airlock.enqueue(ran.append, 1)
        database_open, database.open = database.open, []
        fails = airlock.enqueue(fail)
        scope.exit()
        with pytest.raises(ValueError, match="broken"):
            scope.flush()
        database.open = database_open
        assert scope.undispatched_intents == [waits, fails]
    assert ran == [1]
