"""Streaming bodies run in the scope of their request, and end it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from served.conftest import leave, new_number

if TYPE_CHECKING:
    from served.conftest import Site

kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.fixture
def own_kind(site: Site) -> str:
    """The kind of body that a server sends chunk by chunk. The other kind Django runs to its end before it answers."""
    return {"WSGI": "sync", "ASGI": "async"}[site.kind]


def receive(visitor: object, what: bytes) -> None:
    received = b""
    while what not in received:
        received += visitor.recv(4096)  # type: ignore[attr-defined]


def test_stream_flushes_after_its_last_chunk_and_not_before(site: Site, own_kind: str, number: str) -> None:
    visitor = site.visit(f"streams/{own_kind}/waits/{number}")
    receive(visitor, b"first")
    assert site.effects(number) == []
    site.tell(f"{number}.go-on")

    assert site.effects(number, 3) == ["view", "first", "last"]
    visitor.close()


@kinds
def test_stream_of_an_error_response_discards(site: Site, kind: str, number: str) -> None:
    site.tell(f"{number}.go-on")
    response = site.get(f"streams/{kind}/waits/{number}", status="404")

    assert (response.status_code, response.content) == (404, b"firstlast")
    site.until_dropped(number, "status 404")
    assert site.effects(number) == []


@kinds
def test_stream_that_fails_discards(site: Site, kind: str, number: str) -> None:
    with suppress(httpx.TransportError):
        site.get(f"streams/{kind}/fails/{number}")

    site.until_dropped(number, "KeyError")
    assert site.effects(number) == []


def test_stream_whose_client_goes_away_discards_with_what_its_cleanup_enqueues(site: Site, own_kind: str) -> None:
    for _ in range(20):  # more than the server has threads
        number = new_number()
        visitor = site.visit(f"streams/{own_kind}/never-ends/{number}")
        receive(visitor, b"\0\0\0")
        leave(visitor)
        site.until_dropped(number, "the body ended early|CancelledError")
        assert site.effects(number) == []
    site.get(f"sync/good/{number}")

    assert site.effects(number) == ["order"]


def test_streams_at_the_same_time_have_scopes_of_their_own(site: Site, own_kind: str) -> None:
    waiting, failing, good = new_number(), new_number(), new_number()
    visitor = site.visit(f"streams/{own_kind}/waits/{waiting}")
    receive(visitor, b"first")
    with suppress(httpx.TransportError):
        site.get(f"streams/{own_kind}/fails/{failing}")
    site.get(f"sync/good/{good}")
    site.tell(f"{waiting}.go-on")

    assert site.effects(waiting, 3) == ["view", "first", "last"]
    assert site.effects(failing) == []
    assert site.effects(good) == ["order"]
    visitor.close()


@kinds
def test_effects_of_a_body_find_the_request_id_of_its_view(site: Site, kind: str, number: str) -> None:
    site.tell(f"{number}.go-on")
    site.get(f"streams/{kind}/waits/{number}", request_id="of the view")

    (entry, *_) = site.journal(number)
    assert (entry["what"], entry["request_id"]) == ("view", "of the view")
