"""`airlock.testing` tells what would have gone out of a test, and why the rest would not."""

import threading
import unittest
from functools import partial
from unittest.mock import ANY

import pytest

import airlock
from airlock import UsageError
from airlock.ext import Event, tell
from airlock.testing import Effects, EffectsMixin, collect_effects


def notify(order_id, urgent=False): ...


def greet(name): ...


def fail(order_id):
    raise ConnectionError("no mail server")


class Logging(airlock.Scope):
    """As a `DjangoScope`."""

    dispatch_errors = "log"


class Raising(airlock.Scope):
    dispatch_errors = "raise"


# What counts


def test_nothing_goes_out(airlock_effects, ran):
    with airlock.scope():
        airlock.enqueue(ran.append, 1)
    with airlock.detached():
        airlock.enqueue(ran.append, 2)
    with airlock.scope(executor=ran.append):
        airlock.enqueue(ran.append, 3)
    assert ran == []
    assert [intent.args for intent in airlock_effects] == [(1,), (2,), (3,)]


def test_effects_are_a_sequence_of_intents(airlock_effects):
    assert len(airlock_effects) == 0
    assert repr(airlock_effects) == "<Effects: none>"
    with airlock.scope():
        first, second = airlock.enqueue(notify, 1), airlock.enqueue(greet, "Ada")
    assert isinstance(airlock_effects, Effects)
    assert airlock_effects.intents == list(airlock_effects) == [first, second]
    assert airlock_effects[-1] is second
    assert airlock_effects[:1] == [first]
    assert repr(airlock_effects) == "<Effects: notify(1), greet('Ada')>"


def test_what_would_go_out_counts_before_its_scope_ends(airlock_effects):
    with airlock.scope(airlock.BlockTasks({"greet"})), airlock.scope():
        intent = airlock.enqueue(notify, 1)
        airlock.enqueue(greet, "Ada")
        assert airlock_effects.intents == [intent]
    assert airlock_effects.intents == [intent]


def test_what_is_discarded_does_not_count(airlock_effects):
    with pytest.raises(ZeroDivisionError), airlock.scope(), airlock.scope():
        airlock.enqueue(notify, 1)
        raise ZeroDivisionError
    assert airlock_effects.intents == []


def test_a_captured_scope_shares_the_end_of_the_one_around(airlock_effects):
    with pytest.raises(ZeroDivisionError), airlock.scope():
        with airlock.scope():
            airlock.enqueue(notify, 1)
        assert len(airlock_effects) == 1
        raise ZeroDivisionError
    assert len(airlock_effects) == 0


def test_effects_of_threads_count(airlock_effects, ran):
    @airlock.scoped
    def work():
        airlock.enqueue(ran.append, 1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(airlock_effects) == 1
    assert ran == []


async def test_effects_of_async_code_count(airlock_effects):
    async with airlock.scope():
        airlock.enqueue(notify, 1)
    airlock_effects.assert_enqueued(notify, 1)


class Choosy:
    """An executor that refuses what it could not carry out, now or later."""

    def accepts(self, task):
        return isinstance(task, str)

    def check(self, intent):
        if intent.kwargs:
            raise TypeError("no keywords")

    def prepare(self, intent, fates):
        if not all(isinstance(value, int) for value in intent.args):
            raise ValueError("numbers only")

    def __call__(self, intent):
        raise AssertionError("it is not to carry out anything")


def test_the_real_executor_still_refuses_what_it_cannot_carry_out(airlock_effects):
    with airlock.scope(executor=Choosy()):
        airlock.enqueue("pack", 1)
        with pytest.raises(TypeError, match="no keywords"):
            airlock.enqueue("pack", number=1)
        with pytest.raises(ValueError, match="numbers only"):
            airlock.enqueue("pack", "one")
        with pytest.raises(TypeError, match="cannot be enqueued"):
            airlock.enqueue(17)
    assert repr(airlock_effects) == "<Effects: pack(1)>"
    with airlock.scope(), pytest.raises(TypeError, match="cannot be enqueued"):
        airlock.enqueue("pack", 1)


def test_enqueue_outside_of_any_scope_is_a_mistake_as_ever(airlock_effects):
    with pytest.raises(airlock.NoScopeError):
        airlock.enqueue(notify, 1)


def test_a_scope_entered_before_would_dispatch_so_it_is_refused():
    with airlock.scope(), pytest.raises(UsageError, match="airlock_effects"), collect_effects():
        pytest.fail("it is in no position to keep its promise")


# Assertions


@pytest.fixture
def effects(airlock_effects):
    with airlock.scope():
        yield airlock_effects


def test_a_call_is_found_by_its_task_and_arguments(effects):
    intent = airlock.enqueue(notify, 1)
    assert effects.assert_enqueued(notify, 1) is intent
    assert effects.assert_enqueued(notify) is intent
    effects.assert_not_enqueued(notify, 2)
    effects.assert_not_enqueued(greet)


@pytest.mark.parametrize("name", ["notify", f"{notify.__module__}.notify"])
def test_a_call_is_found_by_its_name(effects, name):
    airlock.enqueue(notify, 1)
    effects.assert_enqueued(name, 1)
    effects.assert_not_enqueued(name, 2)
    effects.assert_not_enqueued(f"other.{name}")


def test_a_call_is_found_by_the_name_that_it_was_given(effects):
    airlock.enqueue(notify, 1, _name="alert")
    effects.assert_enqueued("alert", 1)
    effects.assert_enqueued("notify", 1)


def test_it_makes_no_difference_how_an_argument_was_given(effects):
    airlock.enqueue(notify, 1)
    airlock.enqueue(notify, order_id=2, urgent=True)
    effects.assert_enqueued(notify, order_id=1)
    effects.assert_enqueued(notify, 1, urgent=False)
    effects.assert_enqueued(notify, 2, True)
    effects.assert_enqueued("notify", 2, True)
    effects.assert_not_enqueued(notify, 2)


def test_any_stands_for_any_value(effects):
    airlock.enqueue(notify, {"id": 1, "at": object()})
    effects.assert_enqueued(notify, ANY)
    effects.assert_enqueued(notify, {"id": 1, "at": ANY})
    effects.assert_not_enqueued(notify, {"id": 2, "at": ANY})
    effects.assert_not_enqueued(notify, ANY, urgent=True)


def test_a_bound_method_and_a_built_in_are_found(effects, ran):
    airlock.enqueue(ran.append, 1)
    airlock.enqueue(max, 1, 2, default=3)
    effects.assert_enqueued(ran.append, 1)
    effects.assert_not_enqueued([].append, 2)
    effects.assert_enqueued(max, 1, 2, default=3)
    effects.assert_not_enqueued(max, 1, 2)


def test_a_partial_function_is_a_call_with_its_arguments(effects):
    airlock.enqueue(partial(notify, 1), urgent=True)
    effects.assert_enqueued(notify, 1, urgent=True)
    effects.assert_enqueued(partial(notify, urgent=True), 1)
    effects.assert_not_enqueued(partial(notify, 2))


def test_the_number_of_calls_can_be_asserted(effects):
    for _ in range(2):
        airlock.enqueue(notify, 1)
    effects.assert_enqueued(notify, 1, _times=2)
    with pytest.raises(AssertionError, match=r"^notify\(1\) would have gone out 2 times, not once:\n    notify\(1\), "):
        effects.assert_enqueued(notify, 1, _times=1)
    with pytest.raises(ValueError, match="assert_not_enqueued"):
        effects.assert_enqueued(notify, 1, _times=0)


def test_a_call_that_the_task_does_not_have_is_a_mistake_of_the_test(effects):
    with pytest.raises(TypeError, match=r"notify\(1, 2, 3\) is no call of notify\(order_id, urgent=False\): too many"):
        effects.assert_not_enqueued(notify, 1, 2, 3)
    with pytest.raises(TypeError, match=r"missing a required argument: 'order_id'.*ANY"):
        effects.assert_enqueued(notify, urgent=True)


@pytest.mark.parametrize("task", [None, 17])
def test_what_is_no_task_is_a_mistake_of_the_test(effects, task):
    """Such as what a task returns that is called by mistake: there is never such an intent."""
    for check in (effects.assert_enqueued, effects.assert_not_enqueued):
        with pytest.raises(TypeError, match=f"{task} is no task. Give the task itself, not called yet"):
            check(task)


def test_nothing_can_be_asserted(effects):
    effects.assert_nothing_enqueued()
    airlock.enqueue(notify, 1, _origin="shop.py:7")
    with pytest.raises(AssertionError) as raised:
        effects.assert_nothing_enqueued()
    assert str(raised.value) == "This would have gone out:\n    notify(1), enqueued at shop.py:7"


def test_a_call_that_should_not_be_there_is_shown(effects):
    airlock.enqueue(notify, 1, _origin="shop.py:7")
    with pytest.raises(AssertionError) as raised:
        effects.assert_not_enqueued(notify)
    assert str(raised.value) == "notify(...) would have gone out:\n    notify(1), enqueued at shop.py:7"


def test_what_was_enqueued_before_does_not_count():
    intent = airlock.Intent(notify, (1,))
    with collect_effects() as effects:
        tell([Event("relayed", intent)])
        effects.assert_nothing_enqueued()


# What they say


def test_the_nearest_miss_is_compared(effects):
    airlock.enqueue(notify, 3, _origin="shop.py:1")
    airlock.enqueue(notify, 2, urgent=True, _origin="shop.py:2")
    airlock.enqueue(greet, "Ada", _origin="shop.py:3")
    with pytest.raises(AssertionError) as raised:
        effects.assert_enqueued(notify, 1, urgent=True)
    assert str(raised.value).splitlines() == [
        "notify(1, urgent=True) would not have gone out.",
        "The nearest call (+) was enqueued at shop.py:2:",
        "  notify(",
        "-     order_id=1,",
        "+     order_id=2,",
        "      urgent=True,",
        "  )",
        "This would have gone out:",
        "    notify(3), enqueued at shop.py:1",
        "    notify(2, urgent=True), enqueued at shop.py:2",
        "    greet('Ada'), enqueued at shop.py:3",
    ]


def test_a_long_argument_is_compared_line_by_line(effects):
    order = {"id": 1, "lines": [{"article": f"book number {number}", "count": number} for number in range(4)]}
    airlock.enqueue(notify, order)
    with pytest.raises(AssertionError) as raised:
        effects.assert_enqueued(notify, {**order, "id": 2, "lines": ANY})
    changed = [line for line in str(raised.value).splitlines() if line[:1] in "+-"]
    assert changed[0] == "-     order_id={'id': 2, 'lines': <ANY>},"
    assert changed[1] == "+     order_id={'id': 1,"
    assert len(changed) == 6


def test_what_any_stands_for_is_no_difference(effects):
    airlock.enqueue(notify, 1)
    with pytest.raises(AssertionError) as raised:
        effects.assert_enqueued(notify, ANY, urgent=True)
    lines = str(raised.value).splitlines()
    assert lines[3:6] == ["      order_id=1,", "-     urgent=True,", "+     urgent=False,"]


def test_what_did_not_count_is_said_with_its_reason():
    with collect_effects() as effects:
        with airlock.scope(airlock.DropAll()):
            airlock.enqueue(notify, 1, _origin="shop.py:1")
        with pytest.raises(ZeroDivisionError), airlock.scope():
            airlock.enqueue(notify, 2, _origin="shop.py:2")
            raise ZeroDivisionError
        reasons = {
            1: "notify(1) was enqueued at shop.py:1, and dropped by DropAll().",
            2: "notify(2) was enqueued at shop.py:2, and discarded, because ZeroDivisionError was raised.",
        }
        for number, reason in reasons.items():
            with pytest.raises(AssertionError) as raised:
                effects.assert_enqueued(notify, number)
            assert str(raised.value) == f"notify({number}) would not have gone out.\n{reason}"


def test_a_scope_that_drops_says_so_before_it_ends(airlock_effects):
    with airlock.scope(airlock.DropAll()):
        airlock.enqueue(notify, 1)
        with pytest.raises(AssertionError, match=r"and dropped by DropAll\(\)"):
            airlock_effects.assert_enqueued(notify, 1)


def test_what_was_withheld_is_listed_when_nothing_is_near(airlock_effects):
    with airlock.scope(airlock.BlockTasks({"notify"})):
        airlock.enqueue(notify, 1, _origin="shop.py:1")
    with pytest.raises(AssertionError) as raised:
        airlock_effects.assert_enqueued(greet)
    assert str(raised.value).splitlines() == [
        "greet(...) would not have gone out.",
        "Nothing would have gone out.",
        "This would not:",
        "    notify(1), enqueued at shop.py:1: dropped by BlockTasks(['notify'], raise_on_enqueue=False)",
    ]


def test_the_nearest_miss_may_be_one_that_was_withheld(airlock_effects):
    with airlock.scope(airlock.DropAll()):
        airlock.enqueue(notify, 1, _origin="shop.py:1")
    with pytest.raises(AssertionError, match=r"enqueued at shop.py:1, and dropped by DropAll\(\):\n"):
        airlock_effects.assert_enqueued(notify, 2)


def test_long_lists_are_cut(effects):
    for number in range(23):
        airlock.enqueue(notify, number)
    with pytest.raises(AssertionError) as raised:
        effects.assert_nothing_enqueued()
    assert str(raised.value).splitlines()[-1] == "    and 3 more"


def test_places_are_said_as_seen_from_where_the_tests_run(airlock_effects, monkeypatch, request):
    monkeypatch.chdir(request.path.parent)
    with airlock.scope():
        airlock.enqueue(notify, 1)
    with pytest.raises(AssertionError, match=rf"enqueued at {request.path.name}:\d+$"):
        airlock_effects.assert_nothing_enqueued()
    monkeypatch.chdir("/")
    airlock.configure(capture_origin=False)
    with airlock.scope():
        airlock.enqueue(notify, 2)
    with pytest.raises(AssertionError, match=r"notify\(2\), enqueued at a place that was not recorded$"):
        airlock_effects.assert_nothing_enqueued()


# Effects that run


def test_effects_run_in_place_where_they_would_go_out(ran):
    with collect_effects(run=True) as effects:
        with airlock.scope(executor=print):
            airlock.enqueue(ran.append, 1)
            assert ran == []
        assert ran == [1]
        effects.assert_enqueued(ran.append, 1)


def test_effects_go_to_the_given_executor(ran):
    with collect_effects(executor=lambda intent: ran.append(str(intent))), airlock.scope():
        airlock.enqueue(notify, 1)
    assert ran == ["notify(1)"]
    with pytest.raises(UsageError, match="Give one of the two"), collect_effects(run=True, executor=print):
        pytest.fail("nobody knows what was meant")
    with pytest.raises(TypeError, match="not callable"), collect_effects(executor="celery"):
        pytest.fail("it cannot be used")


def test_a_task_that_raises_fails_the_test_though_its_scope_only_logs():
    def test():
        with collect_effects(run=True) as effects:
            with airlock.scope(_cls=Logging):
                airlock.enqueue(fail, 1, _origin="shop.py:1")
                airlock.enqueue(fail, 2)
            effects.assert_enqueued(fail, 1)

    with pytest.raises(ConnectionError, match="no mail server") as raised:
        test()
    assert raised.traceback[-1].name == "fail"
    assert raised.value.__notes__ == [
        "fail(1), enqueued at shop.py:1, has failed in this test.",
        "It is the first of 2 failures.",
    ]


def test_a_failure_that_the_test_has_seen_is_its_own_affair():
    with collect_effects(run=True) as effects:
        for scope_class in (airlock.Scope, Raising):
            with pytest.raises(ConnectionError), airlock.scope(_cls=scope_class):
                airlock.enqueue(fail, 1)
        assert effects.failures == []
        with airlock.scope(_cls=Logging):
            intent = airlock.enqueue(fail, 2)
        failure = effects.failures.pop()
        assert failure.intent is intent
        assert isinstance(failure.error, ConnectionError)


def test_a_test_that_fails_by_itself_keeps_its_error():
    with pytest.raises(ZeroDivisionError), collect_effects(run=True):
        with airlock.scope(_cls=Logging):
            airlock.enqueue(fail, 1)
        raise ZeroDivisionError


# Afterwards


def test_all_is_as_before_afterwards(ran):
    airlock.configure(policy=airlock.DropAll())
    before = airlock.get_configuration()
    with collect_effects():
        assert airlock.get_configuration().capture_origin
        airlock.configure(policy=None, scope_cls=Logging)
    assert airlock.get_configuration() == before
    airlock.configure(policy=None)
    with airlock.scope():
        airlock.enqueue(ran.append, 1)
    assert ran == [1]


# unittest


def results_of(test_case):
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(test_case).run(result)
    return result


def test_a_test_case_has_its_effects(ran):
    class Tests(EffectsMixin, unittest.TestCase):
        def test_one(self):
            with airlock.scope():
                airlock.enqueue(ran.append, 1)
            self.airlock_effects.assert_enqueued(ran.append, 1)

        def test_two(self):
            self.airlock_effects.assert_nothing_enqueued()

        def test_wrong(self):
            self.airlock_effects.assert_enqueued(notify)

    result = results_of(Tests)
    assert (result.testsRun, result.errors) == (3, [])
    ((failed, text),) = result.failures
    assert failed.id().endswith("test_wrong")
    assert "Nothing would have gone out." in text
    assert ran == []


def test_a_mixin_after_the_test_case_is_refused_as_it_would_do_nothing():
    with pytest.raises(TypeError, match=r"class Tests\(EffectsMixin, TestCase\)"):

        class Tests(unittest.TestCase, EffectsMixin): ...


def test_a_setup_that_does_not_call_that_of_the_mixin_is_told_so():
    class Tests(EffectsMixin, unittest.TestCase):
        def setUp(self):
            pass

        def test_one(self):
            self.airlock_effects.assert_nothing_enqueued()

    ((_, text),) = results_of(Tests).errors
    assert "Tests collects no effects" in text
    assert "begin that with super().setUp()" in text


def test_a_test_case_may_run_its_effects(ran):
    class Tests(EffectsMixin, unittest.TestCase):
        airlock_run = True

        def test_one(self):
            with airlock.scope(_cls=Logging):
                airlock.enqueue(ran.append, 1)
                airlock.enqueue(fail, 1)

    ((_, text),) = results_of(Tests).errors
    assert "no mail server" in text
    assert ran == [1]


def test_a_test_case_may_have_a_function_as_its_executor(ran):
    def note(intent):
        ran.append(intent.name)

    class Tests(EffectsMixin, unittest.TestCase):
        airlock_executor = note

        def test_one(self):
            with airlock.scope():
                airlock.enqueue(notify, 1)

    assert results_of(Tests).wasSuccessful()
    assert ran == ["notify"]


def test_an_async_test_case_has_its_effects(ran):
    class Tests(EffectsMixin, unittest.IsolatedAsyncioTestCase):
        async def test_one(self):
            async with airlock.scope():
                airlock.enqueue(ran.append, 1)
            self.airlock_effects.assert_enqueued(ran.append, 1)

    # In a thread, as it runs an event loop of its own.
    results = []
    thread = threading.Thread(target=lambda: results.append(results_of(Tests)))
    thread.start()
    thread.join()
    assert results[0].wasSuccessful()
    assert ran == []
