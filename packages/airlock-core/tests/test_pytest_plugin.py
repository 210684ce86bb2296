"""The pytest plugin gives tests their effects, and fails those whose effects fail."""

import pytest

pytest_plugins = ["pytester"]

SHOP = """
    import airlock
    import pytest


    ran = []


    class Logging(airlock.Scope):
        dispatch_errors = "log"


    def notify(order_id):
        ran.append(order_id)


    def fail(order_id):
        raise ConnectionError("no mail server")


    def order(order_id, task=notify):
        with airlock.scope(_cls=Logging):
            airlock.enqueue(task, order_id)
"""


@pytest.fixture
def run(pytester):
    """A function that runs a test module, which begins with that shop, and returns how its tests have ended."""

    def run(tests, *arguments):
        pytester.makepyfile(shop=SHOP, test_shop=f"from shop import *\n{tests}")
        quiet = ("-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function")
        return pytester.runpytest(*quiet, *arguments)

    return run


def test_the_fixture_collects_and_the_next_test_is_as_ever(run):
    result = run(
        """
def test_one(airlock_effects):
    order(1)
    airlock_effects.assert_enqueued(notify, 1)
    assert ran == []


def test_two():
    order(2)
    assert ran == [2]
"""
    )
    result.assert_outcomes(passed=2)


def test_a_failure_ends_with_the_line_of_the_test(run):
    result = run(
        """
def test_one(airlock_effects):
    order(1)
    airlock_effects.assert_enqueued(notify, 2)
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "airlock_effects = <Effects: notify(1)>",
            ">       airlock_effects.assert_enqueued(notify, 2)",
            "E       AssertionError: notify(2) would not have gone out.",
            "E       The nearest call (+) was enqueued at shop.py:*:",
            "E       -     order_id=2,",
            "E       +     order_id=1,",
            "test_shop.py:5: AssertionError",
        ]
    )


def test_the_mark_runs_effects_and_a_task_that_raises_fails_the_test(run):
    result = run(
        """
@pytest.mark.airlock(run=True)
def test_one():
    order(1)
    assert ran == [1]


@pytest.mark.airlock(run=True)
def test_two():
    order(2, fail)
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       raise ConnectionError(*",
            "E       ConnectionError: no mail server",
            "E       fail(2), enqueued at shop.py:*, has failed in this test.",
            "shop.py:*: ConnectionError",
            "FAILED test_shop.py::test_two - ConnectionError: no mail server",
        ]
    )


def test_a_test_that_fails_says_which_effects_had_failed(run):
    result = run(
        """
@pytest.mark.airlock(run=True)
def test_one():
    order(1, fail)
    assert ran == [1]
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E       assert * == [[]1]",
            "E       fail(1), enqueued at shop.py:*, has failed in this test. It raised ConnectionError(*",
        ]
    )


def test_a_failure_may_be_expected(run):
    result = run(
        """
@pytest.mark.airlock(run=True)
def test_one(airlock_effects):
    order(1, fail)
    assert "no mail server" in str(airlock_effects.failures.pop().error)
"""
    )
    result.assert_outcomes(passed=1)


def test_the_mark_may_name_an_executor(run):
    result = run(
        """
sent = []


@pytest.mark.airlock(executor=sent.append)
def test_one():
    order(1)
    assert [str(intent) for intent in sent] == ["notify(1)"]
    assert ran == []
"""
    )
    result.assert_outcomes(passed=1)


def test_the_nearest_mark_counts_and_only_for_its_own_test(run):
    result = run(
        """
@pytest.mark.airlock(run=True)
class TestShop:
    def test_one(self):
        order(1)
        assert ran == [1]

    @pytest.mark.airlock
    def test_two(self, airlock_effects):
        order(2)
        assert ran == [1]


@pytest.mark.parametrize("marked", [pytest.param(True, marks=pytest.mark.airlock), False])
def test_three(marked):
    order(3)
    assert ran == ([1] if marked else [1, 3])
"""
    )
    result.assert_outcomes(passed=4)


def test_the_mark_is_about_the_fixtures_of_the_test_too(run):
    result = run(
        """
@pytest.fixture
def old_order():
    order(1)


@pytest.mark.airlock
def test_one(old_order):
    assert ran == []
"""
    )
    result.assert_outcomes(passed=1)


def test_a_wrong_mark_says_so(run):
    result = run(
        """
@pytest.mark.airlock(runs=True)
def test_one(): ...


@pytest.mark.airlock(True)
def test_two(): ...


@pytest.mark.airlock(run=True, executor=print)
def test_three(): ...
""",
        "--strict-markers",
    )
    result.assert_outcomes(errors=3)
    says = "E*The mark airlock takes run=True or executor=..., and not "
    result.stdout.fnmatch_lines([f"{says}runs=.", f"{says}True.", "E*UsageError: *print* Give one of the two."])


def test_configuration_is_put_back(run):
    result = run(
        """
@pytest.mark.airlock
def test_one():
    airlock.configure(policy=airlock.DropAll())


def test_two():
    assert airlock.get_configuration().policy is None
"""
    )
    result.assert_outcomes(passed=2)


def test_classes_of_unittest_may_be_marked(run):
    result = run(
        """
import unittest


@pytest.mark.airlock(run=True)
class ShopTest(unittest.TestCase):
    def test_one(self):
        order(1)
        assert ran == [1]

    def test_two(self):
        order(2, fail)

    def test_three(self):
        order(3, fail)
        assert ran == [3]
"""
    )
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["FAILED *test_two - ConnectionError*"])


def test_async_tests_have_their_effects(run):
    result = run(
        """
@pytest.mark.asyncio
async def test_one(airlock_effects):
    order(1)
    airlock_effects.assert_enqueued(notify, 1)


@pytest.mark.asyncio
@pytest.mark.airlock(run=True)
async def test_two():
    order(2, fail)
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED *test_two - ConnectionError*"])


def test_workers_of_xdist_have_their_effects(run):
    result = run(
        """
@pytest.mark.airlock(run=True)
@pytest.mark.parametrize("number", range(10))
def test_one(number):
    order(number, notify if number else fail)
    assert ran[-1] == number
""",
        "-n2",
    )
    result.assert_outcomes(passed=9, failed=1)
    result.stdout.fnmatch_lines(["E*has failed in this test.*"])


def test_without_the_plugin_nothing_is_left_of_it(run):
    result = run("def test_one(airlock_effects): ...", "-p", "no:airlock")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E       fixture 'airlock_effects' not found"])


def test_mark_and_fixture_are_described(pytester):
    pytester.runpytest("--markers").stdout.fnmatch_lines(["@pytest.mark.airlock(run=False, executor=None):*"])
    fixtures = pytester.runpytest("--fixtures").stdout
    fixtures.fnmatch_lines(["airlock_effects*", "*What would have gone out of the test*"])
