"""The stream of denies: where it begins, what is in it, how many there are, when it ends."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from egressproxy.admin.live import MAX_AT_ONCE, MAX_STREAMS
from egressproxy.admin.options import AdminOptions
from egressproxy.admin.server import SHUTDOWN_TIMEOUT_S, serve_admin
from egressproxy.review.bounds import Bounds
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer
from egressproxy.service.options import Endpoint
from tests.admin.chromium import a_deny
from tests.admin.double import serving_supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def streams(
    folder: Path, *, token: str = ""
) -> AsyncIterator[tuple[aiohttp.ClientSession, Writer]]:
    place = str(folder / "review.db")
    options = AdminOptions(Endpoint("127.0.0.1", 0), token)
    with (
        open_store(place) as store,
        serving_supervisor(folder, store=place) as supervisor,
    ):
        async with (
            asyncio.timeout(20),
            serve_admin(supervisor.as_supervisor, options) as base,
            aiohttp.ClientSession(base) as session,
        ):
            yield session, Writer(store, gateway="one", bounds=Bounds())


async def events(response: aiohttp.ClientResponse, count: int) -> list[tuple[str, Any]]:
    """The first so many events that have data: their id and the data."""
    found: list[tuple[str, Any]] = []
    id_ = ""
    while len(found) < count:
        line = (await response.content.readline()).decode().rstrip("\n")
        if line.startswith("id: "):
            id_ = line.removeprefix("id: ")
        elif line.startswith("data: "):
            found.append((id_, json.loads(line.removeprefix("data: "))))
    return found


async def test_a_stream_goes_on_where_the_browser_was(tmp_path: Path) -> None:
    async with streams(tmp_path) as (session, writer):
        writer.add([a_deny(f"{n}.example") for n in range(3)])
        async with session.get("/review/live?after=1") as response:
            assert response.content_type == "text/event-stream"
            assert response.headers["Cache-Control"] == "no-store"
            found = await events(response, 2)
        assert [(id_, data["target"]) for id_, data in found] == [
            ("2", "1.example"),
            ("3", "2.example"),
        ]
        headers = {"Last-Event-ID": "2"}
        async with session.get("/review/live?after=1", headers=headers) as response:
            ((id_, _),) = await events(response, 1)
        assert id_ == "3"


async def test_a_stream_has_the_filter_of_its_address(tmp_path: Path) -> None:
    async with streams(tmp_path) as (session, writer):
        query = "after=0&name=*.wanted.example&since=1h&nonsense=1&port=x"
        async with session.get(f"/review/live?{query}") as response:
            writer.add([a_deny("other.example"), a_deny("a.wanted.example"), a_deny("b.example")])
            ((id_, data),) = await events(response, 1)
        assert (id_, data["target"], data["class"]) == ("2", "a.wanted.example", "unknown")


async def test_of_a_flood_the_newest_are_sent(tmp_path: Path) -> None:
    async with streams(tmp_path) as (session, writer):
        writer.add([a_deny(f"{n}.example") for n in range(3 * MAX_AT_ONCE)])
        async with session.get("/review/live?after=0") as response:
            found = await events(response, MAX_AT_ONCE)
        assert int(found[0][0]) == 2 * MAX_AT_ONCE + 1
        assert int(found[-1][0]) == 3 * MAX_AT_ONCE


@pytest.mark.parametrize("text", ["-1", "x", "9" * 30, "1" * 5000, "\u0661", "1e3", ""])
async def test_a_place_that_is_none_is_now(tmp_path: Path, text: str) -> None:
    async with streams(tmp_path) as (session, writer):
        writer.add([a_deny("before.example")])
        async with session.get("/review/live", params={"after": text}) as response:
            await response.content.readline()  # retry: the stream has its place
            await asyncio.to_thread(writer.add, [a_deny("after.example")])
            ((_, data),) = await events(response, 1)
        assert data["target"] == "after.example"


async def test_streams_are_bounded_and_one_that_is_left_makes_room(tmp_path: Path) -> None:
    async with streams(tmp_path) as (session, _):
        responses = [await session.get("/review/live") for _ in range(MAX_STREAMS)]
        assert {each.status for each in responses} == {200}
        async with session.get("/review/live") as response:
            assert response.status == 503
            assert "Too many live tails" in await response.text()
        responses[0].close()
        while True:
            async with session.get("/review/live") as response:
                if response.status == 200:
                    break
        for each in responses:
            each.close()


async def test_the_end_of_the_service_waits_for_no_stream(tmp_path: Path) -> None:
    async with streams(tmp_path) as (session, _):
        response = await session.get("/review/live")
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < SHUTDOWN_TIMEOUT_S
    response.close()


async def test_a_stream_wants_a_session(tmp_path: Path) -> None:
    async with (
        streams(tmp_path, token="correct-horse-battery-staple") as (session, _),
        session.get("/review/live", allow_redirects=False) as response,
    ):
        assert response.status == 303


async def test_without_a_store_there_is_no_stream(tmp_path: Path) -> None:
    with serving_supervisor(tmp_path) as supervisor:
        options = AdminOptions(Endpoint("127.0.0.1", 0))
        async with (
            asyncio.timeout(20),
            serve_admin(supervisor.as_supervisor, options) as base,
            aiohttp.ClientSession(base) as session,
            session.get("/review/live") as response,
        ):
            assert response.content_type == "text/html"
            assert "keeps no review store" in await response.text()
