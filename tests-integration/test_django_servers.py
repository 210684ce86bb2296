"""Requests to a Django project in real servers: which of their effects reach the broker, and when.

Every test also lets a good order be placed after the one it is about: what it finds in the broker is exactly what is
due, from a server that does publish.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from processes import Process
    from services import Broker

HERE = Path(__file__).parent

COMMANDS = {
    "WSGI": ["gunicorn", "--bind=127.0.0.1:0", "--worker-class=gthread", "--threads=4", "ordering.wsgi"],
    "ASGI": ["uvicorn", "--port=0", "--lifespan=off", "--no-access-log", "ordering.asgi:application"],
}
READY = {"WSGI": "Booting worker", "ASGI": "Uvicorn running on"}
#: On which broker each server publishes over each database, so that all of them meet.
BROKERS = {
    ("WSGI", "sqlite"): "redis",
    ("WSGI", "postgresql"): "rabbitmq",
    ("WSGI", "mariadb"): "redis",
    ("ASGI", "sqlite"): "rabbitmq",
    ("ASGI", "postgresql"): "redis",
    ("ASGI", "mariadb"): "rabbitmq",
}

# No connections are kept: a server may close one while it is used again.
CLIENT = httpx.Client(timeout=120, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)


@dataclass
class Site:
    """The project in a server process."""

    process: Process
    broker: Broker | None = None
    queue: str = ""

    @functools.cached_property
    def address(self) -> str:
        (found,) = re.findall(r"http://[\d.]+:\d+", self.process.log)
        return found

    def get(self, path: str, **query: str) -> httpx.Response:
        return CLIENT.get(f"{self.address}/{path}", params=query)

    def messages(self) -> list[Any]:
        """Take what is in the broker."""
        assert self.broker
        return self.broker.take(self.queue)

    def published(self) -> list[str]:
        """Take the numbers of the orders whose confirmations are in the broker; all were published after the commit."""
        messages = self.messages()
        early = [message.payload for message in messages if message.headers["order_is_committed"] is not True]
        assert early == [], "published before the commit"
        return [message.payload[1]["number"] for message in messages]


_numbers = itertools.count()


def new_number() -> str:
    return f"{secrets.token_hex(4)}-{next(_numbers)}"


@pytest.fixture(scope="session")
def database_address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    """A function that returns the entry for `DATABASES` of a database in which the project has its tables."""

    @functools.cache
    def database_address(name: str) -> dict[str, Any]:
        if name == "sqlite":
            file = tmp_path_factory.mktemp("ordering") / "ordering.sqlite3"
            # Threads that write at the same time wait for each other.
            address = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file), "OPTIONS": {"timeout": 60}}
        else:
            address = request.getfixturevalue(f"{name}_database")
        subprocess.run(
            [sys.executable, "-m", "django", "migrate", "--run-syncdb", "--verbosity=0"],
            cwd=HERE,
            env={
                **os.environ,
                "PYTHONPATH": str(HERE),
                "DJANGO_SETTINGS_MODULE": "ordering.settings",
                "ORDERING_DATABASE": json.dumps(address),
                "AIRLOCK_TEST_CELERY": "{}",
            },
            check=True,
            timeout=120,
        )
        return address

    return database_address


@pytest.fixture(scope="session")
def serve(
    start_process: Callable[..., Process], database_address: Callable[[str], dict[str, Any]]
) -> Callable[..., Process]:
    """A function that starts the project in a server.

    Args:
        server: `WSGI` or `ASGI`.
        database: `sqlite`, `postgresql` or `mariadb`.
        celery: the settings of its Celery app.
        atomic_requests: what the setting is.
    """

    def serve(server: str, database: str, celery: dict[str, Any], *, atomic_requests: bool = False) -> Process:
        env = {
            "DJANGO_SETTINGS_MODULE": "ordering.settings",
            "ORDERING_DATABASE": json.dumps({**database_address(database), "ATOMIC_REQUESTS": atomic_requests}),
            "AIRLOCK_TEST_CELERY": json.dumps(celery),
        }
        return start_process(sys.executable, "-m", *COMMANDS[server], ready=READY[server], env=env, cwd=HERE)

    return serve


@pytest.fixture(scope="module")
def find_site(request: pytest.FixtureRequest, serve: Callable[..., Process]) -> Iterator[Callable[..., Site]]:
    """A function that returns the project in a server; each is started once, and stopped after these tests.

    Args:
        server: `WSGI` or `ASGI`.
        database: `sqlite`, `postgresql` or `mariadb`.
        atomic_requests: what the setting is.
    """

    @functools.cache
    def find_site(server: str, database: str, *, atomic_requests: bool = False) -> Site:
        broker = request.getfixturevalue(f"{BROKERS[server, database]}_broker")
        queue = broker.queue(f"ordering.{secrets.token_hex(4)}")
        options = {**broker.celery["broker_transport_options"]}
        if broker.name == "rabbitmq":
            options["confirm_publish"] = True  # so that it has a message before the response is made
        celery = {**broker.celery, "task_default_queue": queue, "broker_transport_options": options}
        site = Site(serve(server, database, celery, atomic_requests=atomic_requests), broker, queue)
        started.append(site)
        # Whoever publishes first makes the queue; before that there is nothing to take messages from.
        assert site.get(f"sync/good/{new_number()}").status_code == 200
        assert len(site.published()) == 1
        return site

    started: list[Site] = []
    yield find_site
    for site in started:
        site.process.stop()


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def database(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=["WSGI", "ASGI"])
def server(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=[False, True], ids=["no ATOMIC_REQUESTS", "ATOMIC_REQUESTS"])
def atomic_requests(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module")
def site(find_site: Callable[..., Site], server: str, database: str, atomic_requests: bool) -> Site:
    """The project in each server, over each database, with and without ATOMIC_REQUESTS."""
    return find_site(server, database, atomic_requests=atomic_requests)


@pytest.fixture(scope="module")
def site_with_atomic_requests(find_site: Callable[..., Site], server: str, database: str) -> Site:
    """The project in each server, over each database, with ATOMIC_REQUESTS."""
    return find_site(server, database, atomic_requests=True)


views = pytest.mark.parametrize("view", ["sync", "async"])


@views
@pytest.mark.parametrize("ending", ["good", "autocommit", "enqueues_before_it_saves", "redirects"])
def test_effects_of_a_good_request_are_published_once_after_the_commit(site: Site, view: str, ending: str) -> None:
    numbers = [new_number(), new_number()]

    statuses = [site.get(f"{view}/{ending}/{number}").status_code for number in numbers]

    assert set(statuses) == {302 if ending == "redirects" else 200}
    assert site.published() == numbers


@views
@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("commits_and_answers_400", 400),
        ("commits_and_answers_404", 404),
        ("commits_and_answers_503", 503),
        ("commits_and_raises", 500),
        ("raises_in_the_transaction", 500),
        ("catches_what_left_the_transaction", 200),
        ("sets_rollback", 200),
    ],
)
def test_effects_of_a_request_that_failed_or_rolled_back_are_not_published(
    site: Site, view: str, ending: str, status: int
) -> None:
    assert site.get(f"{view}/{ending}/{new_number()}").status_code == status

    after = new_number()
    assert site.get(f"{view}/good/{after}").status_code == 200
    assert site.published() == [after]


@views
def test_effects_of_a_savepoint_that_was_rolled_back_are_not_published(site: Site, view: str) -> None:
    number = new_number()

    assert site.get(f"{view}/rolls_back_a_savepoint/{number}").status_code == 200

    assert site.published() == [number]


def test_effects_of_a_request_whose_transaction_was_rolled_back_are_not_published(
    site_with_atomic_requests: Site,
) -> None:
    site = site_with_atomic_requests
    assert site.get(f"rolls-back-the-request/{new_number()}").status_code == 200

    after = new_number()
    assert site.get(f"sync/good/{after}").status_code == 200
    assert site.published() == [after]


def test_view_that_is_none_of_atomic_requests_decides_about_its_own_transactions(
    site_with_atomic_requests: Site,
) -> None:
    site = site_with_atomic_requests
    endings = ["autocommit", "commits_and_raises", "raises_in_the_transaction", "sets_rollback", "good"]
    numbers = [new_number() for _ in endings]

    statuses = [
        site.get(f"non-atomic/{ending}/{number}").status_code for ending, number in zip(endings, numbers, strict=True)
    ]

    assert statuses == [200, 500, 500, 200, 200]
    assert site.published() == [numbers[0], numbers[-1]]


def test_effects_that_an_async_view_enqueues_in_the_event_loop_depend_on_the_response(site: Site) -> None:
    good = new_number()
    for status, number in [(500, new_number()), (200, good), (404, new_number())]:
        assert site.get(f"event-loop/{status}/{number}").status_code == status

    assert site.published() == [good]


def test_many_requests_at_a_time_each_decide_about_their_own_effects(site: Site) -> None:
    endings = ["good", "commits_and_raises", "catches_what_left_the_transaction", "commits_and_answers_400"]
    asked = [(view, ending, new_number()) for view in ("sync", "async") for ending in endings for _ in range(4)]
    threads = [threading.Thread(target=site.get, args=(f"{view}/{end}/{number}",)) for view, end, number in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(site.published()) == sorted(number for _, ending, number in asked if ending == "good")


def test_the_witness_tells_what_is_published_before_the_commit(site: Site) -> None:
    site.get(f"non-atomic/publishes_by_itself/{new_number()}")

    with pytest.raises(AssertionError, match="published before the commit"):
        site.published()


@pytest.fixture(scope="module")
def one_site(find_site: Callable[..., Site], server: str) -> Site:
    """The project in each server, over one database."""
    return find_site(server, "postgresql")


def test_ids_of_the_intents_are_those_of_the_tasks(one_site: Site) -> None:
    ids = one_site.get(f"several/{new_number()}").json()["ids"]

    assert [message.headers["id"] for message in one_site.messages()] == ids


def test_effect_that_cannot_be_serialised_is_logged_and_the_others_are_published(one_site: Site) -> None:
    number = new_number()
    response = one_site.get(f"several/{number}", broken="yes")
    ids = response.json()["ids"]

    assert response.status_code == 200
    assert [message.headers["id"] for message in one_site.messages()] == ids[::2]
    for broken in ids[1::2]:
        (logged,) = [line for line in one_site.process.log.splitlines() if broken in line and "not dispatched" in line]
        assert "confirm" in logged
        assert "views.py:7" in logged


@pytest.mark.parametrize("server", ["ASGI"], indirect=True)
def test_event_loop_goes_on_while_effects_are_published(one_site: Site, tmp_path: Path) -> None:
    meanwhile = str(tmp_path / "meanwhile")
    number = new_number()
    answered = []

    def ask(path: str) -> None:
        one_site.get(path, meanwhile=meanwhile)
        answered.append(path)

    publishing = threading.Thread(target=ask, args=(f"slow-to-publish/{number}",))
    publishing.start()
    until_exists(Path(f"{meanwhile}.begun"))
    # The one event loop of the server answers this in the middle of it, and only this lets it go on.
    ask("lets-go-on")
    publishing.join()

    assert answered == ["lets-go-on", f"slow-to-publish/{number}"]
    (message,) = one_site.messages()
    assert message.headers["was_let_go_on"] is True
    assert message.headers["order_is_committed"] is True


def until_exists(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} is not there"
        time.sleep(0.01)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_broker_that_is_down_is_one_record_for_each_effect_and_no_error_for_the_client(
    server: str, serve: Callable[..., Process], scheme: str
) -> None:
    address = f"{scheme}://127.0.0.1:{free_port()}//"
    results = address if scheme == "redis" else "disabled://"
    process = serve(server, "sqlite", {"broker_url": address, "result_backend": results})

    response = Site(process).get(f"several/{new_number()}")
    process.stop()

    assert response.status_code == 200
    for intent_id in response.json()["ids"]:
        (logged,) = [line for line in process.log.splitlines() if intent_id in line and "not dispatched" in line]
        assert "confirm" in logged
