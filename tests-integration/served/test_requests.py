"""Requests that end in every way there is, over each database: which of their effects go out, and when."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from processes import free_port
from served.conftest import new_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from served.conftest import Site
    from services import Broker

views = pytest.mark.parametrize("view", ["sync", "async"])

#: How each is answered.
GOOD = {"good": 200, "autocommit": 200, "redirects": 302, "enqueues_before_it_saves": 200, "rolls_back_a_savepoint": 200}
BAD = {
    "commits_and_answers_400": 400,
    "commits_and_answers_404": 404,
    "commits_and_raises": 500,
    "raises_in_the_transaction": 500,
    "catches_what_left_the_transaction": 200,
    "sets_rollback": 200,
}


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["WSGI", "ASGI"])
def site(request: pytest.FixtureRequest, serve: Callable[..., Site], database: str) -> Site:
    """The project in each server, over each database."""
    return serve(request.param, database)


@views
@pytest.mark.parametrize("ending", GOOD)
def test_effects_of_a_good_request_go_out_once_after_the_commit(
    site: Site, view: str, ending: str, number: str
) -> None:
    assert site.get(f"{view}/{ending}/{number}").status_code == GOOD[ending]

    (entry,) = site.journal(number)
    assert (entry["what"], entry["is_committed"], entry["on_event_loop"]) == ("order", True, False)


@views
@pytest.mark.parametrize("ending", BAD)
def test_request_that_fails_or_rolls_back_has_no_effects(site: Site, view: str, ending: str, number: str) -> None:
    assert site.get(f"{view}/{ending}/{number}").status_code == BAD[ending]

    site.until_dropped(number, "discarded" if BAD[ending] >= 400 else "rolled back")
    assert site.effects(number) == []


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)  # MariaDB checks at once
def test_commit_that_fails_has_no_effects(site: Site, number: str) -> None:
    assert site.get(f"sync/fails_at_commit/{number}").status_code == 200

    assert site.effects(number) == []


def test_effects_of_the_event_loop_depend_on_the_response(site: Site) -> None:
    good, bad = new_number(), new_number()
    assert site.get(f"event-loop/200/{good}").status_code == 200
    assert site.get(f"event-loop/500/{bad}").status_code == 500

    assert site.effects(good) == ["order"]
    assert site.effects(bad) == []


@views
def test_effects_find_the_request_id_of_their_request(site: Site, view: str, number: str) -> None:
    site.get(f"{view}/good/{number}", request_id=f"id of {number}")

    assert [entry["request_id"] for entry in site.journal(number)] == [f"id of {number}"]


def test_many_requests_at_a_time_decide_each_about_their_own_effects(site: Site) -> None:
    asked = [(view, end, new_number()) for _ in range(5) for view in ("sync", "async") for end in (*GOOD, *BAD)]
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda asked: site.get("/".join(asked), request_id=asked[2]).status_code, asked))

    assert answers == [(GOOD | BAD)[ending] for _, ending, _ in asked]
    for _, ending, number in asked:
        entries = [(entry["what"], entry["is_committed"], entry["request_id"]) for entry in site.journal(number)]
        assert entries == ([("order", True, number)] if ending in GOOD else [])


def test_view_that_forgets_a_scope_takes_nothing_from_the_next_request(serve: Callable[..., Site], number: str) -> None:
    site = serve("WSGI, one thread")
    site.get(f"sync/enters_a_scope_and_forgets_it/{new_number()}")
    site.get(f"sync/good/{number}")

    assert site.effects(number) == ["order"]
    assert "was entered inside" in site.process.log


# Celery tasks

servers = pytest.mark.parametrize("kind", ["WSGI", "ASGI"])


@servers
def test_celery_tasks_are_published_and_one_that_cannot_be_is_logged(
    serve: Callable[..., Site], broker: Broker, kind: str, number: str
) -> None:
    queue = broker.queue(f"ordering-{number}")
    celery = {**broker.celery, "task_default_queue": queue}
    if broker.name == "rabbitmq":
        celery["broker_transport_options"] = {"confirm_publish": True}
    site = serve(kind, AIRLOCK_TEST_CELERY=json.dumps(celery))
    response = site.get(f"celery/{number}")
    ids = response.json()["ids"]

    assert response.status_code == 200
    assert [message.headers["id"] for message in broker.take(queue)] == ids[::2]
    for unserialisable in ids[1::2]:
        (logged,) = lines_about(site, unserialisable)
        assert "confirm" in logged
        assert "views.py:7" in logged


@servers
def test_broker_that_is_down_is_one_line_for_each_effect_and_no_error_for_the_client(
    serve: Callable[..., Site], kind: str, number: str
) -> None:
    address = f"redis://127.0.0.1:{free_port()}/0"
    site = serve(kind, AIRLOCK_TEST_CELERY=json.dumps({"broker_url": address, "result_backend": address}))
    response = site.get(f"celery/{number}")

    assert response.status_code == 200
    assert [len(lines_about(site, intent_id)) for intent_id in response.json()["ids"]] == [1, 1, 1, 1]


def lines_about(site: Site, intent_id: str) -> list[Any]:
    return [line for line in site.process.log.splitlines() if intent_id in line and "was not dispatched" in line]
