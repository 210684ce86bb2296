"""Requests in transactions of the settings and of middleware, which itself is around Airlock's, or inside of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from served.conftest import Server, Site
    from services import Broker


@pytest.fixture(params=["WSGI", "ASGI"])
def site(
    request: pytest.FixtureRequest,
    serve: Callable[..., Server],
    redis_broker: Broker,
    site_of: Callable[[Server], Site],
) -> Site:
    """Each kind of server in turn, with `ATOMIC_REQUESTS`."""
    return site_of(serve(request.param, redis_broker, atomic_requests=True))


@pytest.fixture
def is_committed(postgresql_database: dict[str, Any], site: Site) -> Callable[[], bool]:
    """A function that tells whether the order of the request is in the database."""
    address = {key: postgresql_database[key.upper()] for key in ("host", "port", "user", "password")}

    def is_committed() -> bool:
        with psycopg.connect(dbname=postgresql_database["NAME"], **address) as connection:
            found = connection.execute("SELECT 1 FROM served_order WHERE number = %s", [site.name]).fetchall()
        return len(found) == 1

    return is_committed


placements = pytest.mark.parametrize("placement", ["before", "between", "after"])
# Django has no async views in transactions.
views = pytest.mark.parametrize("view", ["place_order", "non_atomic_async"])
EFFECTS = ["order", "order, too"]


@placements
@views
@pytest.mark.parametrize("holder", ["inner", "outer"])
def test_effects_go_out_after_the_last_commit_and_not_before(
    site: Site, is_committed: Callable[[], bool], placement: str, view: str, holder: str
) -> None:
    visitor = site.visit(f"transactions/{view}", placement=placement, holds=holder)
    site.hear("held")
    assert not is_committed()
    assert site.effects() == []
    site.tell("go on")

    assert site.hear("over") == "flushed"
    assert is_committed()
    assert site.effects() == EFFECTS
    visitor.close()


@placements
@views
@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"rolls_back": "inner"}, 200),
        ({"rolls_back": "outer"}, 200),
        ({"raises": "inner"}, 500),
        ({"raises": "outer"}, 500),
        ({"fails_at_commit": "outer"}, 500),
    ],
    ids=lambda parameter: "-".join(*parameter.items()) if isinstance(parameter, dict) else str(parameter),
)
def test_whatever_transaction_of_a_middleware_is_rolled_back_drops_the_effects(
    site: Site, is_committed: Callable[[], bool], placement: str, view: str, how: dict[str, str], status: int
) -> None:
    assert site.get(f"transactions/{view}", placement=placement, **how).status_code == status

    assert not is_committed()
    assert site.effects() == []


@placements
@views
@pytest.mark.parametrize(("how", "status"), [("raises", 500), ("refuses", 400)])
def test_request_that_fails_has_no_effects_wherever_the_middleware_stands(
    site: Site, placement: str, view: str, how: str, status: int
) -> None:
    assert site.get(f"transactions/{view}", placement=placement, view=how).status_code == status

    assert site.hear("over") == "discarded"
    assert site.effects() == []


@pytest.mark.parametrize(
    ("view", "is_atomic"), [("place_order", True), ("non_atomic", False), ("non_atomic_async", False)]
)
def test_request_that_succeeds_has_its_effects_atomic_or_not(
    site: Site, is_committed: Callable[[], bool], view: str, is_atomic: bool
) -> None:
    assert site.get(f"transactions/{view}").text == str(is_atomic)

    assert is_committed()
    assert site.effects() == EFFECTS


def test_view_that_rolls_its_atomic_request_back_has_no_effects(site: Site, is_committed: Callable[[], bool]) -> None:
    assert site.get("transactions/place_order", view="rolls back").status_code == 200

    assert not is_committed()
    assert site.effects() == []


def test_stream_runs_after_the_transaction_of_the_request_and_has_its_effects_besides(
    site: Site, is_committed: Callable[[], bool]
) -> None:
    assert site.get("transactions/stream").text == "False"

    assert is_committed()
    assert site.effects() == [*EFFECTS, "body"]


def test_stream_has_effects_of_its_own_if_the_transaction_of_the_request_was_rolled_back(
    site: Site, is_committed: Callable[[], bool]
) -> None:
    assert site.get("transactions/stream", view="rolls back").text == "False"

    assert not is_committed()
    assert site.effects() == ["body"]


@placements
@pytest.mark.parametrize("rolls_back", ["inner", "outer", "neither"])
def test_stream_runs_after_the_transactions_of_middleware(
    site: Site, is_committed: Callable[[], bool], placement: str, rolls_back: str
) -> None:
    assert site.get("transactions/stream", placement=placement, rolls_back=rolls_back).text == "False"

    commits = rolls_back == "neither"
    assert is_committed() == commits
    assert site.effects() == ([*EFFECTS, "body"] if commits else ["body"])
