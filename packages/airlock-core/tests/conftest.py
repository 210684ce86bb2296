"""What the tests of airlock-core share."""

import pytest

import airlock


@pytest.fixture(autouse=True)
def _leave_as_found():
    yield
    airlock.reset_configuration()
    left_over = []
    while (scope := airlock.get_current_scope()) and scope.is_active:
        left_over.append(scope)
        scope.exit()
    assert not left_over, "the test did not leave its scopes"


@pytest.fixture
def ran():
    """What has run so far. The task of most tests is `ran.append`: it runs in place and is easy to see."""
    return []


@pytest.fixture
def left_with():
    """A function that returns a scope which was left and not yet flushed, with an intent for each number."""

    def left_with(*numbers, **arguments):
        scope = airlock.scope(**arguments)
        scope.enter()
        for number in numbers:
            airlock.enqueue(abs, number, _name=f"task_{number}", _origin=f"views.py:{number}")
        scope.exit()
        return scope

    return left_with
