"""``/review/live``: denies as they are stored, as server-sent events.

Event ids are the store's record numbers, so that a browser which reconnects goes on where it was.
A stream ends after some minutes and is asked for anew, with a look at the session; how many there
are is bounded, and of a flood only the newest are sent.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from egressproxy.admin.access import SECURITY_HEADERS
from egressproxy.admin.render import link, moment_text, visible
from egressproxy.admin.request import RefusedError
from egressproxy.admin.review_data import TroubleError
from egressproxy.review import queries
from egressproxy.review.ask import class_text, read_filter
from egressproxy.review.report import target_of

if TYPE_CHECKING:
    from egressproxy.admin.frame import Frame
    from egressproxy.admin.review_data import Review
    from egressproxy.review.model import Filter, StoredRecord

MAX_STREAMS: Final = 8
POLL_S: Final = 1.0
MAX_AT_ONCE: Final = 50
HEARTBEAT_S: Final = 15.0
LIFE_S: Final = 300.0
WRITE_TIMEOUT_S: Final = 10.0
"""A browser that reads nothing for so long is let go."""
_ID_DIGITS: Final = 18


class Live:
    """The handler, and how many streams there are."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._open: list[web.Request] = []
        self._stop = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        """The page with its path."""
        return [web.get("/review/live", self.stream)]

    async def end(self, _: web.Application) -> None:
        """Let every stream end: the service does."""
        self._stop.set()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Events until the client leaves, the service ends, or it has lasted long enough."""
        if sum(map(_is_there, self._open)) >= MAX_STREAMS:
            raise RefusedError(503, "too many live tails", hint="close one, or load the page again")
        query = {key: request.query.getall(key) for key in request.query}
        where = replace(read_filter(query, time.time())[0], since=None, until=None)
        self._open.append(request)
        try:
            last = await self._begin(request)
            response = web.StreamResponse(
                headers={
                    **SECURITY_HEADERS,
                    "Content-Type": "text/event-stream",
                    "Cache-Control": "no-store",
                    "X-Accel-Buffering": "no",  # nginx in front would keep events to itself
                }
            )
            await response.prepare(request)
            with suppress(ConnectionError, TimeoutError):
                await self._send(request, response, where, last)
            return response
        finally:
            self._open.remove(request)

    async def _begin(self, request: web.Request) -> int:
        """The record after which the stream begins: the browser's last one, the page's, or now."""
        for text in (request.headers.get("Last-Event-ID", ""), request.query.get("after", "")):
            if text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS:
                return int(text)
        return await self._frame.data.ask(queries.newest_id)

    async def _send(
        self, request: web.Request, response: web.StreamResponse, where: Filter, last: int
    ) -> None:
        loop = asyncio.get_running_loop()
        end, silent_since = loop.time() + LIFE_S, loop.time()
        await response.write(b"retry: 2000\n\n")
        while not self._stop.is_set() and loop.time() < end and _is_there(request):
            events, last = await self._events(where, last)
            if not events and loop.time() - silent_since > HEARTBEAT_S:
                events = b": still here\n\n"
            if events:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await response.write(events)
                silent_since = loop.time()
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._stop.wait()

    async def _events(self, where: Filter, last: int) -> tuple[bytes, int]:
        """What was stored since, and up to where that was."""
        data = self._frame.data
        try:
            newest = await data.ask(queries.newest_id)
            if newest <= last:
                return b"", last
            rows = await data.review(partial(new_rows, where=where, after=last))
        except TroubleError as trouble:
            return f"event: trouble\ndata: {json.dumps(trouble.message)}\n\n".encode(), last
        events = [f"id: {row['id']}\ndata: {json.dumps(row)}\n\n" for row in rows]
        # Where the newest are no denies, the next look begins after them all the same.
        return "".join([*events, f"id: {newest}\n\n"]).encode(), newest


def _is_there(request: web.Request) -> bool:
    """Whether its client is still connected; who only waits is not told that it left."""
    return request.transport is not None and not request.transport.is_closing()


def new_rows(review: Review, *, where: Filter, after: int) -> list[dict[str, Any]]:
    """The newest records since one, oldest first, as a page shows them; blocks."""
    found = queries.records(review.store, where, limit=MAX_AT_ONCE)
    return [
        row
        for each in reversed(found)
        if each.id > after and (row := _row(review, each, where)) is not None
    ]


def _row(review: Review, record: StoredRecord, where: Filter) -> dict[str, Any] | None:
    subject = record.subject
    kind = review.classifier.finding(subject).kind
    if where.classes and kind not in where.classes:
        return None
    target = target_of(subject)
    return {
        "id": record.id,
        "at": moment_text(record.at),
        "source": visible(subject.src_ip),
        "target": visible(target),
        "href": link("/review/name", name=subject.target) if subject.target else "",
        "port": f"{subject.protocol}:{subject.dst_port}",
        "reason": str(subject.reason),
        "class": str(kind),
        "class_text": class_text(kind),
        "count": record.count,
    }
