"""A thousand requests at once, half of which fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from served.conftest import Server, Site

REQUESTS = 1000
#: How many are under way at a time. Each may have a connection to the database, which has 100 for everybody.
CONCURRENTLY = 50

#: In place of a status.
CUT_OFF = None

#: What each request is answered with, and which effects it has.
GOOD: dict[str, tuple[int | None, tuple[str, ...]]] = {
    "commits": (200, ("{}", "{} again")),
    "autocommits": (201, ("{}",)),
    "redirects": (302, ("{}",)),
    "rolls_a_part_back": (200, ("{}",)),
    "streams": (200, ("{}", "{} streamed")),
}
BAD: dict[str, tuple[int | None, tuple[str, ...]]] = {
    "raises": (500, ()),
    "raises_in_transaction": (500, ()),
    "refuses": (400, ()),
    "is_unavailable": (503, ()),
    "rolls_back": (200, ()),
    "fails_at_commit": (200, ()),
    "streams?fails": (CUT_OFF, ()),
}
#: What commits, and so is in the database, whatever becomes of the request.
COMMITS = {*GOOD, "raises", "refuses", "is_unavailable", "streams?fails"}


def requests() -> list[str]:
    """The path of each: a good and a bad one in turn, all of their kinds, with a sync and an async view."""
    paths = []
    for number in range(REQUESTS):
        kinds = list(BAD if number % 2 else GOOD)
        turn, kind = divmod(number // 2, len(kinds))
        paths.append(f"{'async' if turn % 2 else 'sync'}/{kinds[kind]}")
    return paths


async def visit_all(site: Site, paths: list[str]) -> list[int | None]:
    """Ask for all of them at once, and return the status of each answer."""

    async def visit(number: int, path: str) -> int | None:
        path, _, fails = path.partition("?")
        url = site.url(f"crowd/{path}", number=str(number), **({fails: "yes"} if fails else {}))
        async with at_a_time:
            try:
                return (await client.get(url)).status_code
            except httpx.TransportError:
                return CUT_OFF

    at_a_time = asyncio.Semaphore(CONCURRENTLY)
    # A new connection for each, as one that is kept may be closed by the server while it is used again.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        return await asyncio.gather(*(visit(number, path) for number, path in enumerate(paths)))


def take_committed_orders(database: dict[str, Any]) -> Counter[int]:
    address = {key: database[key.upper()] for key in ("host", "port", "user", "password")}
    with psycopg.connect(dbname=database["NAME"], **address) as connection:
        numbers = connection.execute("DELETE FROM served_order WHERE number ~ '^[0-9]+$' RETURNING number").fetchall()
    return Counter(int(number) for (number,) in numbers)


@pytest.mark.parametrize(("kind", "broker"), [("WSGI", "redis"), ("ASGI", "rabbitmq")], indirect=["broker"])
async def test_of_a_thousand_requests_at_once_every_effect_of_a_good_one_goes_out_once_and_none_of_a_bad_one(
    kind: str,
    broker: Any,
    serve: Callable[..., Server],
    site_of: Callable[[Server], Site],
    postgresql_database: dict[str, Any],
) -> None:
    site = site_of(serve(kind, broker))
    paths = requests()
    statuses = await visit_all(site, paths)

    ends = {**GOOD, **BAD}
    kinds = [path.partition("/")[2] for path in paths]
    expected = {path: ends[kind][0] for path, kind in zip(paths, kinds, strict=True)}
    if kind == "WSGI":
        # There Django runs an async body to its end before it answers.
        expected["async/streams?fails"] = 500
    assert Counter(zip(paths, statuses, strict=True)) == Counter((path, expected[path]) for path in paths)
    assert take_committed_orders(postgresql_database) == Counter(
        number for number, kind in enumerate(kinds) if kind in COMMITS
    )
    effects = Counter(site.effects())
    assert effects == Counter(effect.format(number) for number, kind in enumerate(kinds) for effect in ends[kind][1])
    assert effects.total() == 700
