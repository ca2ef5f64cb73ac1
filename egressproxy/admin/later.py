"""Pages whose modules are loaded when somebody first asks for one.

They bring the database library, which costs a starting service more CPU than all of its own
modules; whoever opens a page waits a third of a second once, and nobody else does.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

    from egressproxy.admin.frame import Frame


class LaterPages:
    """Stands in for pages until they are loaded.

    Args:
        frame: what every page is made with.
        makers: by path the page's module in this package and its class, which is given the frame
            and has ``routes()``. One page may have several paths.
    """

    def __init__(self, frame: Frame, makers: Mapping[str, tuple[str, str]]) -> None:
        self._frame = frame
        self._makers = makers
        self._pages: dict[tuple[str, str], Any] = {}
        self._handlers: dict[str, Any] = {}

    def routes(self) -> list[web.RouteDef]:
        """Every path."""
        return [web.get(path, self.answer) for path in self._makers]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Ask the page, which is loaded first where it has to be."""
        handler = self._handlers.get(request.path)
        if handler is None:
            module, name = maker = self._makers[request.path]
            loaded = await asyncio.to_thread(import_module, f"egressproxy.admin.{module}")
            page = self._pages.get(maker)  # another request may have made it meanwhile
            if page is None:
                page = self._pages[maker] = getattr(loaded, name)(self._frame)
                self._handlers |= {route.path: route.handler for route in page.routes()}
            handler = self._handlers[request.path]
        answered: web.StreamResponse = await handler(request)
        return answered

    async def end(self, application: web.Application) -> None:
        """Tell the pages that want to know that the service ends."""
        for page in self._pages.values():
            if hasattr(page, "end"):
                await page.end(application)
