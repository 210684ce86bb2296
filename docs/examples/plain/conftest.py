import airlock
import pytest


@pytest.fixture
def effects():
    """The scope of a test: it records what is enqueued, and dispatches nothing."""
    with airlock.scope(airlock.DropAll()) as scope:
        yield scope
