"""What `_fate.py` reads of Django: each test here fails on a version of Django in which that is different."""

import gc
import weakref
from contextlib import contextmanager, suppress

import pytest
from django.db import Error, connections, transaction
from django.db.transaction import atomic

from airlock.integrations.django._fate import (
    Fate,
    connections_of_this_thread,
    is_in_transaction,
    when_committed,
)


class RollBackError(Exception):
    """Leaves an `atomic` block in a way that rolls it back."""


class Callback:
    """A callback that one can refer to weakly."""

    calls = 0

    def __call__(self):
        type(self).calls += 1


@pytest.fixture(autouse=True)
def _no_calls_so_far():
    Callback.calls = 0


@pytest.fixture
def no_garbage_collector():
    """What is freed is freed because nobody refers to it any more."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def connection(database):
    """The connection itself; `django.db.connection` stands in for it."""
    return connections["default"]


@contextmanager
def rolled_back(using="default"):
    with suppress(RollBackError), atomic(using):
        yield
        raise RollBackError


@pytest.mark.usefixtures("on_database")
class TestDjango:
    def test_savepoint_ids_has_one_for_each_block_but_the_outermost(self, connection):
        outside = list(connection.savepoint_ids)
        of_the_test = len(connection.atomic_blocks)
        with atomic(), atomic(), atomic(savepoint=False):
            assert len(connection.savepoint_ids) == len(connection.atomic_blocks) - 1 == of_the_test + 2
            assert isinstance(connection.savepoint_ids[-2], str)
            assert connection.savepoint_ids[-1] is None
        assert connection.savepoint_ids == outside

    def test_savepoint_ids_are_not_used_twice(self, connection):
        ids = []
        with atomic():
            for _ in range(3):
                with atomic():
                    ids.append(connection.savepoint_ids[-1])
                with rolled_back():
                    ids.append(connection.savepoint_ids[-1])

        assert len(set(ids)) == len(ids) == 6

    def test_atomic_blocks_are_the_open_ones_and_those_of_the_test_case_are_marked(self, connection, on_database):
        of_the_test = [block._from_testcase for block in connection.atomic_blocks]  # noqa: SLF001
        assert of_the_test == ([True] if on_database == "test in a transaction" else [])
        with atomic(), atomic():
            assert [block._from_testcase for block in connection.atomic_blocks] == [*of_the_test, False, False]  # noqa: SLF001
        assert len(connection.atomic_blocks) == len(of_the_test)

    def test_run_on_commit_has_savepoint_ids_callback_and_robustness_in_order(self, connection):
        first, second = Callback(), Callback()
        with atomic():
            transaction.on_commit(first)
            with atomic():
                transaction.on_commit(second)
                assert connection.run_on_commit[-2:] == [
                    (set(connection.savepoint_ids[:-1]), first, False),
                    (set(connection.savepoint_ids), second, False),
                ]

    @pytest.mark.usefixtures("no_garbage_collector")
    def test_nobody_refers_to_a_callback_whose_savepoint_was_rolled_back(self, connection):
        with atomic():
            kept, dropped = Callback(), Callback()
            transaction.on_commit(kept)
            with rolled_back():
                with atomic():
                    transaction.on_commit(dropped)
                dropped = weakref.ref(dropped)
                assert dropped() is not None
            assert dropped() is None
            assert connection.run_on_commit[-1][1] is kept

    @pytest.mark.usefixtures("no_garbage_collector")
    def test_nobody_refers_to_a_callback_whose_transaction_was_rolled_back(self):
        with rolled_back():
            callback = Callback()
            transaction.on_commit(callback)
            callback = weakref.ref(callback)
            assert callback() is not None
        assert callback() is None

        with atomic():
            callback = Callback()
            transaction.on_commit(callback)
            callback = weakref.ref(callback)
            transaction.set_rollback(True)
        assert callback() is None
        assert Callback.calls == 0

    def test_a_savepoint_is_committed_when_its_block_has_ended_also_after_it_was_rolled_back(
        self, connection, monkeypatch
    ):
        def noting(connection, sid):
            noted.append((sid, len(connection.atomic_blocks)))
            assert sid not in connection.savepoint_ids
            savepoint_commit(connection, sid)

        noted = []
        savepoint_commit = type(connection).savepoint_commit
        monkeypatch.setattr(type(connection), "savepoint_commit", noting)
        of_the_test = len(connection.atomic_blocks)
        with atomic():
            of_the_outermost = connection.savepoint_ids[-1:]
            with atomic():
                committed = connection.savepoint_ids[-1]
            with rolled_back():
                dropped = connection.savepoint_ids[-1]
            assert noted == [(committed, of_the_test + 1), (dropped, of_the_test + 1)]

        # In a test case the outermost block is a savepoint as well.
        assert noted[2:] == [(sid, of_the_test) for sid in of_the_outermost]

    def test_savepoint_ids_end_with_the_number_of_savepoints_made_so_far(self, connection):
        with atomic():
            before = connection.savepoint_state
            with atomic():
                assert connection.savepoint_state == before + 1
                assert connection.savepoint_ids[-1].endswith(f"_x{before + 1}")
            assert connection.savepoint_state == before + 1
            with atomic(savepoint=False):
                assert connection.savepoint_state == before + 1

    def test_clean_savepoints_is_that_of_the_connection_and_begins_the_count_anew(self, connection, monkeypatch):
        with atomic(), atomic():
            assert connection.savepoint_state > 0
            transaction.clean_savepoints()
            assert connection.savepoint_state == 0
            monkeypatch.setattr(type(connection), "clean_savepoints", lambda connection: called.append(connection))
            called = []
            transaction.clean_savepoints()
            assert called == [connection]

    def test_autocommit_is_off_in_every_block(self, connection, on_database):
        in_a_transaction = on_database == "test in a transaction"
        assert connection.autocommit is not in_a_transaction
        with atomic():
            assert not connection.autocommit
            with atomic(), atomic(savepoint=False):
                assert not connection.autocommit
            assert not connection.autocommit
        assert connection.autocommit is not in_a_transaction

    def test_savepoints_made_by_hand_are_savepoints_of_the_connection(self, connection, monkeypatch):
        calls = []
        for name in ("savepoint_commit", "savepoint_rollback"):
            monkeypatch.setattr(type(connection), name, lambda connection, sid, name=name: calls.append((name, sid)))
        transaction.savepoint_commit("s1_x1")
        transaction.savepoint_rollback("s1_x2")

        assert calls == [("savepoint_commit", "s1_x1"), ("savepoint_rollback", "s1_x2")]

    def test_needs_rollback_is_true_where_a_block_without_savepoint_has_failed(self, connection):
        with suppress(RollBackError), atomic():
            assert not connection.needs_rollback
            with suppress(RollBackError), atomic(savepoint=False):
                raise RollBackError
            assert connection.needs_rollback
            raise RollBackError

    def test_connections_are_the_same_objects_as_long_as_the_thread_lives(self):
        assert set(connections_of_this_thread()) == {connections["default"], connections["other"]}
        with atomic():
            assert transaction.get_connection() in connections_of_this_thread()


@pytest.mark.usefixtures("database")
@pytest.mark.django_db(transaction=True)
class TestDjangoAtARealCommit:
    def test_callbacks_are_called_once_in_order_when_nothing_is_open_any_more(self, connection):
        seen = []
        with atomic():
            for number in range(3):
                transaction.on_commit(
                    lambda number=number: seen.append((number, connection.in_atomic_block, connection.run_on_commit))
                )
        assert seen == [(0, False, []), (1, False, []), (2, False, [])]

    @pytest.mark.usefixtures("no_garbage_collector")
    def test_nobody_refers_to_a_callback_of_a_transaction_whose_connection_was_closed(self, connection):
        with atomic():
            callback = Callback()
            transaction.on_commit(callback)
            callback = weakref.ref(callback)
            connection.close()
            assert not connection.autocommit
        assert callback() is None
        assert Callback.calls == 0

    def test_autocommit_is_off_before_a_connection_is_used(self, connection):
        connection.close()
        unused = connection.copy()
        assert (unused.autocommit, unused.connection, unused.in_atomic_block) == (False, None, False)

    @pytest.mark.usefixtures("no_garbage_collector")
    def test_nobody_refers_to_a_callback_of_a_commit_that_the_database_refused(self, connection):
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE parent (id integer PRIMARY KEY)")
            cursor.execute("CREATE TABLE child (parent integer REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)")
        try:
            with suppress(Error), atomic():
                callback = Callback()
                transaction.on_commit(callback)
                callback = weakref.ref(callback)
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO child VALUES (1)")
            assert callback() is None
            assert Callback.calls == 0
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP TABLE child")
                cursor.execute("DROP TABLE parent")

    def test_a_callback_that_is_put_before_the_others_is_called_before_them(self, connection):
        seen = []
        with atomic():
            transaction.on_commit(lambda: seen.append("second"))
            connection.run_on_commit.insert(0, (set(), lambda: seen.append("first"), False))
        assert seen == ["first", "second"]

    @pytest.mark.usefixtures("no_garbage_collector")
    def test_a_callback_that_raises_frees_those_after_it(self):
        def fails():
            raise KeyError

        with suppress(KeyError), atomic():
            callback = Callback()
            transaction.on_commit(fails)
            transaction.on_commit(callback)
            callback = weakref.ref(callback)
        assert callback() is None
        assert Callback.calls == 0

    def test_commit_on_exit_is_false_only_by_hand(self, connection):
        with atomic(), atomic():
            assert connection.commit_on_exit
        transaction.set_autocommit(False)
        with atomic(), atomic():
            assert connection.in_atomic_block
            assert not connection.commit_on_exit
        transaction.commit()
        transaction.set_autocommit(True)

    def test_by_hand_a_commit_is_a_call_of_commit_without_arguments(self, connection, monkeypatch):
        commit, calls = type(connection).commit, []
        monkeypatch.setattr(
            type(connection), "commit", lambda *given, **named: (calls.append((given, named)), commit(*given))
        )
        transaction.set_autocommit(False)
        transaction.commit()
        transaction.set_autocommit(True)
        assert calls == [((connection,), {})]

    def test_by_hand_a_callback_is_called_when_autocommit_comes_back_after_a_commit(self, connection):
        transaction.set_autocommit(False)
        assert not connection.in_atomic_block
        assert not connection.autocommit
        connection.run_on_commit.append((set(), Callback(), False))
        transaction.commit()
        assert Callback.calls == 0
        transaction.set_autocommit(True)
        assert Callback.calls == 1

    @pytest.mark.usefixtures("no_garbage_collector")
    def test_by_hand_nobody_refers_to_a_callback_after_a_rollback(self, connection):
        transaction.set_autocommit(False)
        callback = Callback()
        connection.run_on_commit.append((set(), callback, False))
        callback = weakref.ref(callback)
        transaction.rollback()
        assert callback() is None
        transaction.set_autocommit(True)
        assert Callback.calls == 0


@pytest.mark.usefixtures("on_database")
class TestFate:
    def test_is_open_until_it_is_committed(self, connection):
        with atomic():
            fate = Fate(connection)
            assert fate.is_current()
            assert (fate.is_committed, fate.is_rolled_back) == (False, False)
            assert repr(fate) == "<Fate on 'default': open>"
        assert not fate.is_current()
        assert (fate.is_committed, fate.is_rolled_back) == (True, False)
        assert repr(fate) == "<Fate on 'default': committed>"

    def test_is_open_until_it_is_rolled_back(self, connection):
        with rolled_back():
            fate = Fate(connection)
        assert not fate.is_current()
        assert (fate.is_committed, fate.is_rolled_back) == (False, True)
        assert repr(fate) == "<Fate on 'default': rolled back>"

    def test_of_a_savepoint_is_open_as_long_as_the_transaction_is(self, connection):
        with atomic():
            with atomic():
                fate = Fate(connection)
            # Its savepoint is no more, so what is done now is undone with it or not at all.
            assert fate.is_current()
            assert not fate.is_committed
        assert fate.is_committed

    def test_is_not_that_of_what_comes_after_it(self, connection):
        with atomic():
            fate = Fate(connection)
            with atomic():
                assert not fate.is_current()
            # What was done in the block may be undone without the rest, or the rest without it.
            assert not fate.is_current()
            assert Fate(connection).is_current()
        with atomic():
            assert not fate.is_current()

    def test_action_is_called_at_once_where_there_is_nothing_to_wait_for(self, connection, ran):
        with atomic():
            fate = Fate(connection)
        when_committed([], lambda: ran.append(1))
        when_committed([fate], lambda: ran.append(2))

        assert ran == [1, 2]

    def test_action_or_its_alternative_is_called_once_when_all_is_known(self, connection, ran):
        def both_end(first, second):
            with first("other"), second():
                fates = [Fate(connection), Fate(connection), Fate(connections["other"])]
                when_committed(fates, lambda: ran.append("committed"), lambda: ran.append("rolled back"))

        both_end(atomic, atomic)
        assert ran == ["committed"]
        both_end(rolled_back, atomic)
        both_end(atomic, rolled_back)
        both_end(rolled_back, rolled_back)
        assert ran == ["committed", "rolled back", "rolled back", "rolled back"]

    def test_who_follows_when_all_is_known_is_called_at_once(self, connection, ran):
        """It became known in another thread, after this one had looked."""
        with atomic():
            committed = Fate(connection)
        with rolled_back():
            dropped = Fate(connection)
        committed.follow(lambda: ran.append(1), lambda: ran.append(-1))
        dropped.follow(lambda: ran.append(2), lambda: ran.append(-2))

        assert ran == [1, -2]

    def test_in_transaction_is_what_a_test_case_has_not_opened(self, connection):
        assert not is_in_transaction(connection)
        with atomic():
            assert is_in_transaction(connection)
            assert not is_in_transaction(connections["other"])
            with atomic(savepoint=False):
                assert is_in_transaction(connection)
        assert not is_in_transaction(connection)

    def test_leaves_no_mark_on_the_connection(self, connection):
        marks = set(vars(connection))
        with atomic():
            Fate(connection)
            with rolled_back():
                Fate(connection)
            with atomic():
                Fate(connection)
        with rolled_back():
            Fate(connection)

        assert set(vars(connection)) == marks

    @pytest.mark.parametrize("when", ["before it", "after it"])
    def test_leaves_what_others_have_put_on_the_connection(self, connection, when):
        def savepoint_commit(sid):
            seen.append(sid)
            there_before(sid)

        seen = []
        try:
            if when == "before it":
                there_before = connection.savepoint_commit
                connection.savepoint_commit = savepoint_commit
            with atomic():
                fate = Fate(connection)
                if when == "after it":
                    there_before = connection.savepoint_commit
                    connection.savepoint_commit = savepoint_commit
                with atomic():
                    pass
            assert fate.is_committed
            assert connection.savepoint_commit is savepoint_commit
        finally:
            vars(connection).pop("savepoint_commit", None)
        assert len(seen) >= 1
