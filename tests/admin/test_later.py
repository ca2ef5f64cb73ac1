"""Pages that are loaded when somebody asks, and what a starting service does not load."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from egressproxy.admin import browser
from egressproxy.admin.later import LaterPages

if TYPE_CHECKING:
    from egressproxy.admin.frame import Frame

FRAME = cast("Frame", object())
_STARTING = """
import sys
import egressproxy.cli.up, egressproxy.service.supervisor, egressproxy.admin.server
print(sorted({"sqlalchemy", "psycopg", "opentelemetry"} & set(sys.modules)))
"""


def test_a_starting_service_loads_no_database_library() -> None:
    done = subprocess.run([sys.executable, "-c", _STARTING], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


class Pair:
    """A page with two paths, which counts how often it was made."""

    made: list[object] = []  # noqa: RUF012 - emptied by each test
    ended = 0

    def __init__(self, frame: object) -> None:
        Pair.made.append(frame)

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/one", self.one), web.get("/two", self.two)]

    async def one(self, request: web.Request) -> web.Response:
        return web.Response(text=f"one {request.query_string}")

    async def two(self, _: web.Request) -> web.Response:
        return web.Response(text="two")

    async def end(self, _: web.Application) -> None:
        Pair.ended += 1


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> LaterPages:
    module = ModuleType("egressproxy.admin.pair")
    cast("Any", module).Pair = Pair
    monkeypatch.setitem(sys.modules, "egressproxy.admin.pair", module)
    Pair.made, Pair.ended = [], 0
    return LaterPages(FRAME, {"/one": ("pair", "Pair"), "/two": ("pair", "Pair")})


def test_a_page_is_made_once_whoever_asks_first(pair: LaterPages) -> None:
    async def ask() -> list[str]:
        application = web.Application()
        application.add_routes(pair.routes())
        application.on_shutdown.append(pair.end)
        async with TestClient(TestServer(application)) as client:
            paths = ("/one?x=1", "/two", "/one", "/two")
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(client.get(path), name=path) for path in paths]
            return [await task.result().text() for task in asked]

    assert Pair.made == []
    assert asyncio.run(ask()) == ["one x=1", "two", "one ", "two"]
    assert Pair.made == [FRAME]
    assert Pair.ended == 1


def test_a_page_that_nobody_asked_for_is_not_made_at_the_end(pair: LaterPages) -> None:
    asyncio.run(pair.end(web.Application()))
    assert (Pair.made, Pair.ended) == ([], 0)


@pytest.mark.parametrize(("path", "maker"), browser._LATER.items(), ids=list(browser._LATER))
def test_each_page_serves_the_paths_it_is_named_for(path: str, maker: tuple[str, str]) -> None:
    module = __import__(f"egressproxy.admin.{maker[0]}", fromlist=[maker[1]])
    page = getattr(module, maker[1])(FRAME)
    assert path in {route.path for route in page.routes()}
    served = {route.path for route in page.routes()}
    assert served == {each for each, other in browser._LATER.items() if other == maker}
