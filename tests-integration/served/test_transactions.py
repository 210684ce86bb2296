"""Requests in transactions of the settings and of middleware."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from served.conftest import Site

AIRLOCK = "airlock.integrations.django.AirlockMiddleware"
TRANSACTION = "ordering.middleware.in_transaction"

servers = pytest.mark.parametrize("kind", ["WSGI", "ASGI"])
middlewares = pytest.mark.parametrize(
    "middleware", [[TRANSACTION, AIRLOCK], [AIRLOCK, TRANSACTION]], ids=["around Airlock", "inside Airlock"]
)


@pytest.fixture(params=["WSGI", "ASGI"])
def atomic_site(request: pytest.FixtureRequest, serve: Callable[..., Site]) -> Site:
    return serve(request.param, "postgresql", atomic_requests=True)


@pytest.fixture(params=["WSGI", "ASGI"])
def site_with(request: pytest.FixtureRequest, serve: Callable[..., Site]) -> Callable[[list[str]], Site]:
    """A function that returns the project with a middleware of transactions."""
    return lambda middleware: serve(
        request.param, "postgresql", atomic_requests=True, ORDERING_MIDDLEWARE=json.dumps(middleware)
    )


@pytest.mark.parametrize("ending", ["good", "autocommit", "rolls_back_a_savepoint"])
@pytest.mark.parametrize("view", ["sync", "non-atomic", "async"])
def test_atomic_request_has_its_effects_after_the_commit(
    atomic_site: Site, view: str, ending: str, number: str
) -> None:
    assert atomic_site.get(f"{view}/{ending}/{number}").status_code == 200

    assert [(entry["what"], entry["is_committed"]) for entry in atomic_site.journal(number)] == [("order", True)]


@pytest.mark.parametrize("ending", ["rolls_back_the_request", "commits_and_raises", "fails_at_commit"])
def test_atomic_request_that_is_rolled_back_has_no_effects(atomic_site: Site, ending: str, number: str) -> None:
    atomic_site.get(f"sync/{ending}/{number}")

    assert atomic_site.effects(number) == []


@pytest.mark.parametrize("kind_of_body", ["sync", "async"])
def test_body_is_made_after_the_transaction_of_its_request(
    atomic_site: Site, kind_of_body: str, number: str
) -> None:
    atomic_site.tell(f"{number}.go-on")
    if kind_of_body == "async":
        pytest.skip("Django has no ATOMIC_REQUESTS for async views")
    assert atomic_site.get(f"streams/{kind_of_body}/waits/{number}").content == b"firstlast"

    assert [entry["is_committed"] for entry in atomic_site.journal(number)] == [True] * 3


@middlewares
@pytest.mark.parametrize("view", ["sync", "non-atomic", "async"])
def test_transaction_of_a_middleware_commits_before_the_effects(
    site_with: Callable[[list[str]], Site], middleware: list[str], view: str, number: str
) -> None:
    site = site_with(middleware)
    assert site.get(f"{view}/rolls_back_a_savepoint/{number}").status_code == 200

    assert [(entry["what"], entry["is_committed"]) for entry in site.journal(number)] == [("order", True)]


@middlewares
@pytest.mark.parametrize("view", ["sync", "non-atomic", "async"])
@pytest.mark.parametrize("ending", ["tells_the_middleware_to_roll_back", "commits_and_raises"])
def test_transaction_of_a_middleware_that_is_rolled_back_drops_the_effects(
    site_with: Callable[[list[str]], Site], middleware: list[str], view: str, ending: str, number: str
) -> None:
    site = site_with(middleware)
    site.get(f"{view}/{ending}/{number}")

    assert site.effects(number) == []
