"""A hook that returns what it must not, such as a coroutine, is an error at once, and never taken for true."""

import pytest

import airlock


async def coroutine_function(*_):
    return True


def generator_function(*_):
    yield True


async def async_generator_function(*_):
    yield True


def returns(answer):
    return lambda *_: answer


wrong = pytest.mark.parametrize(
    "answer",
    [coroutine_function, generator_function, returns(None), returns(1), returns("yes")],
    ids=["coroutine", "generator", "None", "1", "yes"],
)
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


@wrong
@pytest.mark.parametrize("local", [True, False], ids=["local", "of the scope"])
def test_a_wrong_answer_of_allows_keeps_everything_back(ran, answer, local):
    policy = airlock.AllowAll()
    policy.allows = answer
    scope = airlock.scope(None if local else policy)
    local_policy = airlock.policy(policy if local else airlock.AllowAll())
    with pytest.raises(airlock.UsageError, match=r"allows of AllowAll\(\)"), scope, local_policy:
        airlock.enqueue(ran.append, 1)
    assert ran == []
    assert scope.undispatched_intents == scope.intents


@pytest.mark.parametrize("answer", [coroutine_function, generator_function, returns(True)])
def test_a_wrong_answer_of_on_enqueue_refuses_the_intent(answer):
    policy = airlock.AllowAll()
    policy.on_enqueue = answer
    with airlock.scope(policy) as scope:
        with pytest.raises(airlock.UsageError, match=r"on_enqueue of AllowAll\(\)"):
            airlock.enqueue(int)
        assert scope.intents == []


@wrong
def test_a_wrong_answer_of_should_flush_discards(ran, answer):
    scope = type("RequestScope", (airlock.Scope,), {"should_flush": answer})()
    with pytest.raises(airlock.UsageError, match=r"RequestScope\.should_flush returned"), scope:
        airlock.enqueue(ran.append, 1)
    assert ran == []
    assert scope.is_discarded


@wrong
def test_a_wrong_answer_of_before_descendant_flushes_sends_nothing(ran, answer):
    parent = type("RequestScope", (airlock.Scope,), {"before_descendant_flushes": answer})()
    with parent:
        nested = airlock.scope()
        with pytest.raises(airlock.UsageError, match=r"RequestScope\.before_descendant_flushes returned"), nested:
            airlock.enqueue(ran.append, 1)
        assert nested.undispatched_intents == nested.intents
    assert ran == []


@pytest.mark.parametrize("executor", [coroutine_function, generator_function, async_generator_function])
def test_an_executor_that_only_promises_to_run_dispatches_nothing(executor):
    with pytest.raises(airlock.UsageError, match="which nobody runs"), airlock.scope(executor=executor) as scope:
        airlock.enqueue(int)
    assert scope.dispatched_intents == []


@wrong
def test_an_executor_accepts_a_task_only_by_true(answer):
    class Takes:
        accepts = staticmethod(answer)

        def __call__(self, intent):
            raise AssertionError("nothing is enqueued")

    with airlock.scope(executor=Takes()), pytest.raises(TypeError, match="cannot be enqueued"):
        airlock.enqueue("shop.tasks.send_email")
