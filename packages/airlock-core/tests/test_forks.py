"""A forked child is in no scope, and dispatches nothing of its parent's."""

import os
import traceback

import pytest

import airlock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def in_child(work):
    """Do some work in a forked child, and fail if it fails there."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "see what the child has printed"


def test_what_a_forked_child_enqueues_fails_loudly(ran):
    def child():
        assert airlock.get_current_scope() is None
        with pytest.raises(airlock.NoScopeError):
            airlock.enqueue(ran.append, "child")

    with airlock.scope(), airlock.policy(airlock.AllowAll()), airlock.scope():
        in_child(child)
        airlock.enqueue(ran.append, "parent")
    assert ran == ["parent"]


@pytest.mark.parametrize("error", [None, ValueError("wrong")], ids=["flush", "discard"])
def test_leaving_the_block_in_a_forked_child_dispatches_nothing(ran, caplog, error):
    def child():
        for scope in (inner, outer):
            scope.__exit__(error and type(error), error, None)
        assert outer.flush() == inner.discard() == outer.intents == []
        assert not outer.is_flushed
        assert ran == []
        assert caplog.records == []

    caplog.set_level("INFO")
    with airlock.scope() as outer:
        airlock.enqueue(ran.append, 1)
        with airlock.scope() as inner:
            airlock.enqueue(ran.append, 2)
            in_child(child)
    assert ran == [1, 2]


def test_a_child_forked_in_a_local_policy_alone_leaves_it(ran):
    def child():
        airlock.scoped(airlock.enqueue)(ran.append, 1)
        assert ran == [1]

    with airlock.policy(airlock.DropAll()):
        in_child(child)


def test_a_forked_child_may_have_scopes_of_its_own(ran):
    def child():
        with airlock.scope():
            airlock.enqueue(ran.append, "child")
        assert ran == ["child"]

    with airlock.scope():
        airlock.enqueue(ran.append, "parent")
        in_child(child)
    assert ran == ["parent"]


def test_a_child_forked_by_an_executor_dispatches_nothing_more(ran):
    def fork(intent):
        ran.append(os.getpid())
        if len(ran) == 1:
            children.append(os.fork())

    parent, children = os.getpid(), []
    with airlock.scope(executor=fork):
        airlock.enqueue(abs, 1)
        airlock.enqueue(abs, 2)
    if children == [0]:
        os._exit(0 if ran == [parent] else 1)
    assert ran == [parent, parent]
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
