"""The admin listener: a bounded HTTP server beside the supervisor."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from egressproxy.admin.access import Access, cookie_name
from egressproxy.admin.browser import add_browser_pages
from egressproxy.admin.frame import Frame
from egressproxy.admin.guard import guarded
from egressproxy.admin.pages import Pages
from egressproxy.admin.registry import make_registry
from egressproxy.admin.review_data import ReviewData
from egressproxy.errors import ServiceError
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from egressproxy.admin.options import AdminOptions
    from egressproxy.service.options import Endpoint
    from egressproxy.service.supervisor import Supervisor

MAX_BODY_BYTES: Final = 4096
MAX_FIELD_BYTES: Final = 8190
MAX_CONNECTIONS: Final = 64
ACCEPT_BATCH: Final = 16
"""asyncio accepts as many at a time, before any of them counts as a connection."""
BACKLOG: Final = 1024
KEEPALIVE_S: Final = 15.0
SHUTDOWN_TIMEOUT_S: Final = 2.0


@asynccontextmanager
async def serve_admin(supervisor: Supervisor, options: AdminOptions) -> AsyncIterator[str]:
    """Listen until the block ends; gives where, as people write it.

    Raises:
        ServiceError: the place cannot be had.
    """
    access = Access(options, cookie_name(supervisor.options.gateway))
    data = ReviewData(supervisor)
    frame = Frame(supervisor, access, data)
    application = web.Application(
        middlewares=[guarded(access, frame)], client_max_size=MAX_BODY_BYTES
    )
    application.add_routes(Pages(supervisor, make_registry(supervisor)).routes())
    add_browser_pages(application, frame)
    runner = web.AppRunner(
        application,
        access_log=None,
        logger=_faults(),
        handle_signals=False,
        keepalive_timeout=KEEPALIVE_S,
        max_line_size=MAX_FIELD_BYTES,
        max_field_size=MAX_FIELD_BYTES,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
    )
    await runner.setup()
    sock = _listen(options.place)
    try:
        server = await asyncio.get_running_loop().create_server(
            _bounded(runner.server), sock=sock, backlog=ACCEPT_BATCH
        )
        sock.listen(BACKLOG)  # the kernel's queue; asyncio has one number for both
        place = _place(options, sock)
        journal().info("admin listens", at=place)
        try:
            yield place
        finally:
            server.close()
            await runner.cleanup()
    finally:
        sock.close()
        data.close()
        if isinstance(options.place, Path):
            options.place.unlink(missing_ok=True)


def _bounded(server: web.Server | None) -> Callable[[], asyncio.BaseProtocol]:
    """A protocol a connection; above the bound, the oldest connection makes room."""
    if server is None:
        raise ServiceError("the admin server is not set up")

    def accept() -> asyncio.BaseProtocol:
        connections = server.connections
        for oldest in connections[: max(0, len(connections) + 1 - MAX_CONNECTIONS)]:
            oldest.force_close()
        return server()

    return accept


def _faults() -> logging.Logger:
    """A logger of our own faults: a request that is no HTTP is its sender's, and no news."""
    logger = logging.getLogger(f"{__name__}.requests")
    logger.addFilter(_is_our_fault)  # the same one again adds nothing
    return logger


def _is_our_fault(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _listen(place: Endpoint | Path) -> socket.socket:
    try:
        return _unix_socket(place) if isinstance(place, Path) else _tcp_socket(place)
    except OSError as error:
        hint = "another process listens there: ss -ltnp" if error.errno == errno.EADDRINUSE else ""
        raise ServiceError(
            f"the admin listener cannot have {place}: {error.strerror}",
            hint=hint or "--admin ADDR:PORT, unix:PATH or none",
        ) from error


def _tcp_socket(endpoint: Endpoint) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if endpoint.is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, endpoint.address != "::")
        sock.bind((endpoint.address, endpoint.port))
    except OSError:
        sock.close()
        raise
    return sock


def _unix_socket(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        sock.bind(str(path))
        path.chmod(0o600)  # nobody can connect before listen(), which comes later
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    """Remove the socket of a service that is gone; one that answers is left."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _place(options: AdminOptions, sock: socket.socket) -> str:
    if isinstance(options.place, Path):
        return str(options)
    return f"http://{replace(options.place, port=sock.getsockname()[1])}"
