"""The pytest plugin: the fixture `airlock_effects` and the mark `airlock`. Only pytest imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airlock.testing import Effects, collect_effects

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_effects = pytest.StashKey[Effects]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "airlock(run=False, executor=None): collect the effects of the test, as the fixture airlock_effects does; "
        "run=True runs them in place, executor=... has something else carry them out, and a task that raises fails the "
        "test.",
    )


@pytest.fixture(autouse=True)
def _airlock_mark(request: pytest.FixtureRequest) -> None:
    """Have the mark come before the other fixtures of the test, so that nothing of theirs goes out."""
    if request.node.get_closest_marker("airlock"):
        request.getfixturevalue("airlock_effects")


@pytest.fixture
def airlock_effects(request: pytest.FixtureRequest) -> Iterator[Effects]:
    """What would have gone out of the test: an `airlock.testing.Effects`. Nothing does.

    The mark `@pytest.mark.airlock(run=True)` runs the effects in place.
    """
    mark = request.node.get_closest_marker("airlock")
    arguments = mark.kwargs if mark else {}
    wrong = mark and ([*map(repr, mark.args)] + [f"{key}=" for key in arguments.keys() - {"run", "executor"}])
    if wrong:
        raise pytest.UsageError(f"The mark airlock takes run=True or executor=..., and not {', '.join(wrong)}.")
    with collect_effects(**arguments) as effects:
        request.node.stash[_effects] = effects
        yield effects


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Have a test fail, and not its end, if effects have failed in it."""
    __tracebackhide__ = True
    effects = item.stash.get(_effects, None)
    if effects is None:
        return (yield)
    try:
        result = yield
    except BaseException as error:
        effects._explain(error)
        raise
    effects._raise_failures()
    return result
