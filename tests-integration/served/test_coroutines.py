"""Tasks, threads and cancellations in requests, and dispatch beside the event loop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from served.conftest import COMMANDS, leave

if TYPE_CHECKING:
    from collections.abc import Callable

    from served.conftest import Site

slow_views = pytest.mark.parametrize(
    "view", ["slow_dispatch", "slow_dispatch_of_sync_view", "slow_dispatch_of_stream", "slow_dispatch_of_block"]
)


@pytest.mark.parametrize(
    ("view", "effects"),
    [
        ("gather", ["a", "b"]),
        ("threads", ["Django's thread", "any thread"]),
        ("coroutine_in_transaction", ["coroutine"]),
    ],
)
def test_tasks_and_threads_share_the_scope_of_their_request(
    site: Site, view: str, effects: list[str], number: str
) -> None:
    assert site.get(f"coroutines/{view}/{number}").status_code == 200

    assert site.effects(number) == effects


@pytest.mark.parametrize(
    ("kind", "view"), [("ASGI", "background_task"), ("WSGI", "background_thread"), ("ASGI", "background_thread")]
)
def test_what_outlives_its_request_cannot_enqueue(
    serve: Callable[..., Site], kind: str, view: str, number: str
) -> None:
    site = serve(kind)
    assert site.get(f"coroutines/{view}/{number}").status_code == 200
    assert site.effects(number) == ["view"]
    site.tell(f"{number}.go-on")

    site.hear(f"{number}.refused")


@pytest.mark.parametrize("view", ["background_task", "background_task_of_a_sync_view"])
def test_background_task_has_effects_in_a_scope_of_its_own(asgi_site: Site, view: str, number: str) -> None:
    assert asgi_site.get(f"coroutines/{view}/{number}").status_code == 200
    asgi_site.tell(f"{number}.go-on")

    assert asgi_site.effects(number, 2) == ["view", "background"]


@pytest.mark.parametrize("view", ["waits", "waits_in_thread"])
def test_view_whose_client_goes_away_discards(asgi_site: Site, view: str, number: str) -> None:
    visitor = asgi_site.visit(f"coroutines/{view}/{number}")
    asgi_site.hear(f"{number}.begun")
    leave(visitor)

    asgi_site.until_dropped(number, "CancelledError")
    asgi_site.tell(f"{number}.go-on")
    if view == "waits_in_thread":  # which nobody can stop
        asgi_site.hear(f"{number}.refused")
    assert asgi_site.effects(number) == []


@slow_views
def test_other_requests_go_on_while_effects_are_dispatched(asgi_site: Site, view: str, number: str) -> None:
    with ThreadPoolExecutor() as clients:
        answer = clients.submit(asgi_site.get, f"coroutines/{view}/{number}")
        asgi_site.hear(f"{number}.dispatching")
        assert asgi_site.get(f"coroutines/lets_go_on/{number}").status_code == 200
        assert answer.result().status_code == 200

    assert asgi_site.effects(number) == ["before", "order", "after"]


@slow_views
def test_flush_that_was_begun_is_finished_when_the_client_goes_away(asgi_site: Site, view: str, number: str) -> None:
    visitor = asgi_site.visit(f"coroutines/{view}/{number}")
    asgi_site.hear(f"{number}.dispatching")
    leave(visitor)
    assert asgi_site.get("event-loop/200/" + number).status_code == 200  # by then, the server knows

    asgi_site.tell(f"{number}.go-on")
    assert sorted(asgi_site.effects(number, 4)) == ["after", "before", "order", "order"]


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("view", ["slow_dispatch", "slow_dispatch_of_sync_view"])
def test_flush_that_was_begun_is_finished_when_the_server_stops(
    serve: Callable[..., Site], kind: str, view: str, number: str
) -> None:
    site = serve(kind, STOPS=f"{kind} {view}")  # a server for this test alone
    visitor = site.visit(f"coroutines/{view}/{number}")
    site.hear(f"{number}.dispatching")
    site.process.terminate()
    site.process.until("Shutting down" if kind == "ASGI" else "Handling signal: term")
    site.tell(f"{number}.go-on")

    assert site.effects(number, 3) == ["before", "order", "after"]
    site.process.stop()
    visitor.close()
