"""Tasks, threads and cancellations in requests, and dispatch beside the event loop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from served.conftest import leave

if TYPE_CHECKING:
    from served.conftest import Site


@pytest.mark.parametrize("view", ["gather", "task_group"])
def test_tasks_of_a_request_share_its_scope(site: Site, view: str) -> None:
    assert site.get(f"coroutines/{view}").status_code == 200

    effects = site.effects()
    assert effects == ["a begins", "b begins", "c begins", "a ends", "b ends", "c ends"]


def test_scopes_of_tasks_are_captured_by_that_of_the_request_if_they_end_well(site: Site) -> None:
    assert site.get("coroutines/task_group_with_scopes").status_code == 200

    assert site.effects() == ["a begins", "c begins", "a ends", "c ends"]


def test_threads_of_a_request_share_its_scope_and_have_transactions_of_their_own(site: Site) -> None:
    assert site.get("coroutines/threads").status_code == 200

    assert sorted(site.effects()) == [
        "first never rolled back",
        "in Django's thread",
        "in any thread",
        "one of two",
        "second never rolled back",
        "third never rolled back",
    ]


def test_coroutine_in_a_sync_view_shares_its_scope_and_its_transaction(site: Site) -> None:
    assert site.get("coroutines/coroutine_in_sync_view").status_code == 200

    assert site.effects() == [
        "coroutine",
        "a begins",
        "b begins",
        "a ends",
        "b ends",
        "thread",
        "never rolled back",
        "view",
    ]


@pytest.mark.parametrize(("view", "effect"), [("background_task", "view"), ("background_task_of_stream", "body")])
def test_background_task_that_outlives_its_request_cannot_enqueue(asgi_site: Site, view: str, effect: str) -> None:
    assert asgi_site.get(f"coroutines/{view}").status_code == 200
    assert asgi_site.hear("over") == "flushed"
    asgi_site.tell("go on")

    refused = asgi_site.hear("refused")
    assert refused.startswith("ScopeStateError: served.effects.effect was enqueued in <DjangoScope flushed")
    assert asgi_site.effects() == [effect]


def test_thread_that_outlives_its_request_cannot_enqueue(site: Site) -> None:
    assert site.get("coroutines/background_thread").status_code == 200
    assert site.hear("over") == "flushed"
    site.tell("go on")

    assert site.hear("refused").startswith("ScopeStateError: ")
    assert site.effects() == ["view"]


def test_task_that_outlives_a_request_that_failed_cannot_enqueue(asgi_site: Site) -> None:
    assert asgi_site.get("coroutines/gather_that_fails").status_code == 500
    assert asgi_site.hear("over") == "discarded"
    asgi_site.tell("go on")

    assert asgi_site.hear("refused").startswith("ScopeStateError: ")
    assert asgi_site.effects() == []


def test_background_task_that_outlives_its_request_can_enter_a_scope_of_its_own(asgi_site: Site) -> None:
    assert asgi_site.get("coroutines/background_task_with_a_scope").status_code == 200
    assert asgi_site.hear("over") == "flushed"
    asgi_site.tell("go on")

    asgi_site.hear("background is done")
    assert asgi_site.effects() == ["view", "background"]


def test_view_whose_client_goes_away_is_cancelled_and_discards(asgi_site: Site) -> None:
    visitor = asgi_site.visit("coroutines/waits")
    asgi_site.hear("begun")
    leave(visitor)

    asgi_site.hear("cancelled")
    assert asgi_site.hear("over") == "discarded"
    assert asgi_site.effects() == []


def test_sync_view_whose_client_goes_away_discards_and_cannot_enqueue_any_more(asgi_site: Site) -> None:
    visitor = asgi_site.visit("coroutines/waits_in_thread")
    asgi_site.hear("begun")
    leave(visitor)
    asgi_site.hear("cancelled")
    asgi_site.tell("go on")

    assert asgi_site.hear("refused").startswith("ScopeStateError: ")
    assert asgi_site.hear("over") == "discarded"
    assert asgi_site.effects() == []


@pytest.mark.parametrize(
    "view", ["slow_dispatch", "slow_dispatch_of_sync_view", "slow_dispatch_of_stream", "slow_dispatch_of_block"]
)
def test_flush_that_was_begun_is_finished_when_the_client_goes_away(asgi_site: Site, view: str) -> None:
    visitor = asgi_site.visit(f"coroutines/{view}")
    asgi_site.hear("dispatching")
    leave(visitor)
    asgi_site.hear("client gone")
    # When another request was answered, the cancellation of this one has arrived.
    assert asgi_site.another().get("coroutines/lets_go_on", waiting="nobody").status_code == 200
    asgi_site.tell("go on")

    asgi_site.hear("dispatched")
    # The block's request has a scope of its own, with nothing in it.
    assert asgi_site.hear("over") == ("discarded" if view == "slow_dispatch_of_block" else "flushed")
    if view != "slow_dispatch_of_stream":  # whose view has long returned
        asgi_site.hear("cancelled")
    assert asgi_site.effects() == ["before", "after"]


views_with_slow_dispatch = pytest.mark.parametrize(
    "view", ["slow_dispatch", "slow_dispatch_of_sync_view", "slow_dispatch_of_stream", "slow_dispatch_of_block"]
)


@views_with_slow_dispatch
def test_other_requests_go_on_while_effects_are_dispatched(asgi_site: Site, view: str) -> None:
    with ThreadPoolExecutor() as clients:
        answer = clients.submit(asgi_site.get, f"coroutines/{view}")
        asgi_site.hear("dispatching")
        # The one lets the other go on, and is not answered if the event loop waits.
        assert asgi_site.another().get("coroutines/lets_go_on", waiting=asgi_site.name).status_code == 200
        asgi_site.hear("dispatched")
        assert answer.result().status_code == 200

    assert asgi_site.hear("over") == "flushed"
    assert asgi_site.effects() == ["before", "after"]
