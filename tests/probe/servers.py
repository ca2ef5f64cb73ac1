"""Servers on loopback for the probe: good, slow, rude, and certified for somebody else."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from egressproxy.kernel.sockets import reset_on_close
from egressproxy.probe.attempt import Means, trusting
from egressproxy.resolve.guard import Guard
from egressproxy.resolve.resolver import Resolver
from egressproxy.settings import Settings
from tests.policy.building import networks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from egressproxy.names import DnsName

    Session = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

LOOPBACK: Final = networks("127.0.0.0/8", "::1/128")


async def answer_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak HTTP: 404 for everything, with the Host that was asked for."""
    head = await reader.readuntil(b"\r\n\r\n")
    host = head.partition(b"Host: ")[2].partition(b"\r\n")[0]
    writer.write(b"HTTP/1.1 404 Not Found\r\nX-Host: " + host + b"\r\n\r\n")
    await reader.read()


async def keep_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Say nothing until the client leaves."""
    await reader.read()


async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with what is neither TLS nor HTTP, without end."""
    await reader.read(1)
    writer.write(b"x" * 100_000)
    await reader.read()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset, as a firewall does that saw a name it does not like."""
    await reader.read(1)
    reset_on_close(writer.get_extra_info("socket"))
    writer.transport.abort()


def certified(pem: Path) -> ssl.SSLContext:
    """A server's side with the key and chain in a file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(["http/1.1"])
    return context


@asynccontextmanager
async def server(session: Session, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server's port; its sessions end with their clients."""
    sessions: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sessions.add(asyncio.current_task())
        with suppress(OSError, asyncio.IncompleteReadError):
            await session(reader, writer)
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()

    started = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield started.sockets[0].getsockname()[1]
    finally:
        started.close()
        if running := [task for task in sessions if task is not None]:
            await asyncio.wait(running, timeout=5)


@asynccontextmanager
async def means(
    names: Mapping[DnsName, tuple[str, ...]],
    *,
    ca_file: Path | None = None,
    is_lab: bool = True,
    hello_timeout_s: float = 5.0,
) -> AsyncIterator[Means]:
    """What an attempt is made with; loopback may be dialled where ``is_lab``."""
    settings = Settings(hello_timeout_s=hello_timeout_s, dial_timeout_s=2, dial_total_timeout_s=4)
    resolver = Resolver(settings, overrides=names, servers=["127.0.0.1:9"])
    try:
        yield Means(
            resolver=resolver,
            guard=Guard(exempt=LOOPBACK if is_lab else ()),
            trust=trusting(str(ca_file) if ca_file else None),
            settings=settings,
        )
    finally:
        await resolver.aclose()
