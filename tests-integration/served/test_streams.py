"""Streaming bodies run in the scope of their request, and end it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from served.conftest import leave
from served.messages import hear

if TYPE_CHECKING:
    from served.conftest import Site


@pytest.fixture
def own_kind(site: Site) -> str:
    """The kind of body that a server sends chunk by chunk. The other kind Django runs to its end before it answers."""
    return {"WSGI": "sync", "ASGI": "async"}[site.server.kind]


kinds = pytest.mark.parametrize("kind", ["sync", "async"])


def client_leaves(site: Site, path: str, until: bytes = b"first", **query: str) -> None:
    """Go away when `until` was received, and wait for the server to notice, if it can."""
    visitor = site.visit(path, **query)
    received = b""
    while until not in received:
        received += visitor.recv(4096)
    leave(visitor)
    if site.server.kind == "ASGI":
        site.hear("client gone")


def test_stream_flushes_after_its_last_chunk_and_not_before(site: Site, own_kind: str) -> None:
    with site.stream(f"streams/{own_kind}/waits") as chunks:
        assert next(chunks) == b"first"
        assert site.effects() == []
        site.tell("go on")
        assert next(chunks) == b"last"
        assert site.effects() == []
        site.tell("go on")
        assert list(chunks) == []
        assert site.effects() == ["view", "first", "last"]

    assert site.hear("over") == "flushed"


@kinds
def test_stream_flushes_when_its_body_ends_and_not_before(site: Site, kind: str) -> None:
    visitor = site.visit(f"streams/{kind}/waits")
    for chunk in ("first", "last"):
        assert site.hear("produced") == chunk
        assert site.effects() == []
        site.tell("go on")

    assert site.hear("over") == "flushed"
    assert site.effects() == ["view", "first", "last"]
    visitor.close()


@kinds
def test_stream_of_an_error_response_discards(site: Site, kind: str) -> None:
    site.tell("go on")
    site.tell("go on")
    response = site.get(f"streams/{kind}/waits", status="404")

    assert (response.status_code, response.content) == (404, b"firstlast")
    assert site.hear("over") == "discarded"
    assert site.effects() == []


@kinds
def test_stream_that_fails_discards(site: Site, kind: str) -> None:
    site.tell("go on")
    with suppress(httpx.TransportError):
        site.get(f"streams/{kind}/fails")

    assert site.hear("over") == "discarded"
    assert site.effects() == []


def test_stream_whose_client_goes_away_between_chunks_discards(site: Site, own_kind: str) -> None:
    client_leaves(site, f"streams/{own_kind}/goes_on_and_on")
    site.tell("go on")

    assert site.hear("over") == "discarded"
    assert site.effects() == []


def test_stream_whose_client_goes_away_in_the_middle_of_a_chunk_discards(site: Site, own_kind: str) -> None:
    client_leaves(site, f"streams/{own_kind}/is_large", until=b"\0\0\0")
    site.tell("go on")

    assert site.hear("over") == "discarded"
    assert site.effects() == []


def test_stream_whose_client_goes_away_in_the_middle_of_its_last_chunk_discards(site: Site, own_kind: str) -> None:
    site.tell("go on")
    client_leaves(site, f"streams/{own_kind}/goes_on_and_on", until=b"\0\0\0")

    assert site.hear("over") == "discarded"
    assert site.effects() == []


def test_body_that_runs_to_its_end_before_it_is_sent_discards_if_the_client_goes_away_meanwhile(
    asgi_site: Site,
) -> None:
    site = asgi_site
    visitor = site.visit("streams/sync/waits")
    assert site.hear("produced") == "first"
    leave(visitor)
    site.hear("client gone")
    site.tell("go on")
    site.tell("go on")

    assert site.hear("over") == "discarded"
    assert site.effects() == []


def test_server_goes_on_after_clients_went_away(site: Site, own_kind: str) -> None:
    for _ in range(30):  # more than it has threads
        gone = site.another()
        client_leaves(gone, f"streams/{own_kind}/goes_on_and_on")
        gone.tell("go on")
        assert gone.hear("over") == "discarded"
    site.tell("go on")
    site.tell("go on")
    site.get(f"streams/{own_kind}/waits")

    assert site.hear("over") == "flushed"
    assert site.effects() == ["view", "first", "last"]


def test_stream_is_still_in_its_scope_when_it_is_closed_early(site: Site, own_kind: str) -> None:
    client_leaves(site, f"streams/{own_kind}/closed")
    site.tell("go on")

    assert site.hear("cleaned up") is None
    assert site.hear("over") == "discarded"
    assert site.effects() == []


def test_streams_at_the_same_time_have_scopes_of_their_own(site: Site, own_kind: str) -> None:
    good, bad = site, site.another()
    with good.stream(f"streams/{own_kind}/waits") as chunks:
        with suppress(httpx.TransportError), bad.stream(f"streams/{own_kind}/fails") as other_chunks:
            assert (next(chunks), next(other_chunks)) == (b"first", b"first")
            good.tell("go on")
            assert next(chunks) == b"last"
            bad.tell("go on")
            assert list(other_chunks) == []
        assert bad.hear("over") == "discarded"
        good.tell("go on")
        assert list(chunks) == []

    assert good.hear("over") == "flushed"
    assert site.effects() == ["view", "first", "last"]


def test_async_body_cleans_up_in_its_own_scope_and_in_that_of_no_other_request(asgi_site: Site) -> None:
    site, other = asgi_site, asgi_site.another()
    client_leaves(site, "streams/async/forgotten", between="waits")
    assert site.hear("over") == "discarded"
    visitor = other.visit("streams/collects_garbage")
    other.tell("go on")

    assert other.hear("over") == "flushed"
    assert site.hear("cleaned up") is None
    assert site.effects() == ["between", "of another request"]
    visitor.close()


@kinds
def test_what_runs_between_two_chunks_is_not_in_the_scope_of_the_stream(site: Site, kind: str) -> None:
    site.tell("go on")
    site.tell("go on")
    site.get(f"streams/{kind}/waits", status="404", between="yes")

    assert site.hear("over") == "discarded"
    assert site.effects() == ["between", "between"]


def test_streams_that_one_thread_sends_in_turn_have_scopes_of_their_own(
    wsgi_site: Site,
) -> None:
    site = wsgi_site
    good, failing = f"{site.name}.good", f"{site.name}.failing"
    response = site.get("interleaved", names=f"{good},{failing}")

    assert response.content == b"firstfirstlastfailed"
    assert hear(f"{good}: over") == "flushed"
    assert hear(f"{failing}: over") == "discarded"
    assert site.effects() == ["view", "first", "last"]
