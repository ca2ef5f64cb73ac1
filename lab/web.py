"""What the web sites of the lab answer, whatever carries it (HTTP/1.1 by aiohttp, or HTTP/2)."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from lab.events import EventWriter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES: Final = 1 << 28
_PATTERN: Final = hashlib.sha256(b"egressproxy lab").digest() * 2048  # 64 KiB


@dataclass(slots=True)
class Connection:
    """What is known of one connection; ``hello`` is the exact ClientHello in hex."""

    site: str
    local: str
    port: int
    peer: str
    hello: str = ""
    sni: str | None = None
    alpn: str | None = None
    client_certificate: str | None = None
    requests: int = 0

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


PEERS: Final = web.AppKey("peers", dict[Any, Connection])
EVENTS: Final = web.AppKey("events", EventWriter)


def pattern(size: int) -> bytes:
    """The first ``size`` bytes of an endless, known text."""
    whole, rest = divmod(size, len(_PATTERN))
    return _PATTERN * whole + _PATTERN[:rest]


def page(host: str, path: str, connection: Connection) -> tuple[str, bytes]:
    """Content type and body of a plain GET."""
    if path == "/.lab/hello":
        return "application/json", json.dumps(connection.facts()).encode()
    if path.startswith("/bytes/"):
        return "application/octet-stream", pattern(int(path.removeprefix("/bytes/")))
    carried = f" over {connection.alpn or 'http/1.1'}" if connection.hello else ""
    body = f"<!doctype html><title>{host}</title><p>Hello from {host}{path}{carried}</p>\n"
    return "text/html", body.encode()


def application(events: EventWriter, registry: Handler | None) -> web.Application:
    """All HTTP/1.1 sites in one application; ``registry`` answers for the registry's names."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[PEERS] = {}
    app[EVENTS] = events

    async def handle(request: web.Request) -> web.StreamResponse:
        connection = connection_of(request)
        connection.requests += 1
        events.write(
            "request",
            host=request.host,
            method=request.method,
            path=request.path,
            site=connection.site,
            peer=connection.peer,
        )
        if registry is not None and connection.site.startswith("registry"):
            return await registry(request)
        if request.path == "/websocket":
            return await _websocket(request)
        if request.path == "/upload":
            return await _upload(request)
        if request.path.startswith("/slow/"):
            return await _slow(request)
        kind, body = page(request.host, request.path, connection)
        return web.Response(body=body, content_type=kind)

    app.router.add_route("*", "/{path:.*}", handle)
    return app


def connection_of(request: web.Request) -> Connection:
    """The facts of the connection a request came on."""
    assert request.transport is not None  # noqa: S101 - a request being handled has one
    return request.app[PEERS][request.transport.get_extra_info("peername")]


async def _websocket(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(max_msg_size=MAX_BODY_BYTES)
    await socket.prepare(request)
    async for message in socket:
        if isinstance(message.data, str):
            await socket.send_str(message.data)
        elif isinstance(message.data, bytes):
            await socket.send_bytes(message.data)
    return socket


async def _upload(request: web.Request) -> web.StreamResponse:
    digest, count = hashlib.sha256(), 0
    async for chunk in request.content.iter_any():
        digest.update(chunk)
        count += len(chunk)
    request.app[EVENTS].write("upload", host=request.host, bytes=count)
    return web.json_response({"bytes": count, "sha256": digest.hexdigest()})


async def _slow(request: web.Request) -> web.StreamResponse:
    """``/slow/N``: N bytes in a hundred steps over about two seconds, so that it can be watched."""
    body = pattern(int(request.path.removeprefix("/slow/")))
    response = web.StreamResponse(headers={"Content-Length": str(len(body))})
    await response.prepare(request)
    step = max(1, len(body) // 100)
    for start in range(0, len(body), step):
        await response.write(body[start : start + step])
        await asyncio.sleep(0.02)
    return response
