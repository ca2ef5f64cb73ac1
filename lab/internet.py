"""The servers of the internet namespace in one process: ``python -m lab.internet DIRECTORY``.

Prints ``ready`` when everything listens, and serves until its stdin ends, so that it cannot outlive
the program that started it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, assert_never, cast

from aiohttp import ClientSession, web

from lab import ntp, sites
from lab.authority import Authority, load_authority
from lab.dns_server import serve_dns
from lab.echo import ByteEcho, DatagramEcho, Greeter
from lab.events import FILE, EventWriter
from lab.hello_tap import peek_hello
from lab.http2 import Http2
from lab.registry import front
from lab.web import PEERS, Connection, application

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

READY: Final = "ready"
TLS_PORTS: Final = (443, 8443)
HTTP_PORTS: Final = (80,)
ECHO_PORTS: Final = (1433, 9000)
UDP_PORTS: Final = (123, 1194)
KONNECTIVITY: Final = "konnectivity"
_HELLO_TIMEOUT_S: Final = 20.0
_BACKLOG: Final = 1024
_HTTP_ONLY: Final = frozenset({"registry", "registry-data"})


@dataclass(slots=True)
class Certificates:
    """A TLS context for each name and site, made when it is first asked for."""

    authority: Authority
    _contexts: dict[tuple[str, str], ssl.SSLContext] = field(default_factory=dict)

    def entry(self, site: sites.Site, connection: Connection) -> ssl.SSLContext:
        """The context to accept with: it switches to the certificate of the name asked for."""
        context = self._make(site, site.key, [*site.addresses, *site.names])

        def choose(channel: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            connection.sni = name
            if name is not None:
                channel.context = self.named(site, name)

        context.sni_callback = choose
        return context

    def named(self, site: sites.Site, name: str) -> ssl.SSLContext:
        """The context with the certificate of a name."""
        key = (site.key, name)
        if key not in self._contexts:
            self._contexts[key] = self._make(site, f"leaf-{site.key}-{name}"[:200], [name])
        return self._contexts[key]

    def _make(self, site: sites.Site, stem: str, names: list[str]) -> ssl.SSLContext:
        path = self.authority.directory / f"{stem}.pem"
        if not path.exists():
            path = self.authority.issue(names, stem=stem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        if site.key in _HTTP_ONLY:
            context.set_alpn_protocols(["http/1.1"])
        elif site is sites.API_SERVER:
            context.set_alpn_protocols([KONNECTIVITY, "h2", "http/1.1"])
            context.load_verify_locations(self.authority.ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL  # the agent's client certificate, end to end
        else:
            context.set_alpn_protocols(["h2", "http/1.1"])
        return context


class Dispatcher(asyncio.Protocol):
    """Takes an established connection and gives it to the protocol that its ALPN chose."""

    def __init__(self, internet: Internet, connection: Connection) -> None:
        self._internet = internet
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        plain = cast("asyncio.Transport", transport)
        chosen = self._internet.protocol_of(self._connection, plain)
        plain.set_protocol(chosen)
        chosen.connection_made(transport)


@dataclass(slots=True)
class Internet:
    """All sites; one connection after another is taken, looked at, and dispatched."""

    certificates: Certificates
    events: EventWriter
    http: web.Server
    app: web.Application
    tasks: asyncio.TaskGroup

    async def serve(self) -> None:
        """Listen on every port of every site; returns when all listen."""
        for site in sites.SITES:
            for address in site.addresses:
                await self._serve_site(site, address)
        for address in (*sites.API_SERVER.addresses, *sites.CONTOSO.addresses):
            await self._serve_datagrams(address, UDP_PORTS, DatagramEcho)
        for address in sites.DNS_SERVER:
            await serve_dns(address, self.events)

    def protocol_of(self, connection: Connection, transport: asyncio.Transport) -> asyncio.Protocol:
        """The protocol for an established connection."""
        channel = transport.get_extra_info("ssl_object")
        if channel is not None:
            connection.alpn = channel.selected_alpn_protocol()
            connection.client_certificate = _common_name(channel.getpeercert())
            self.events.write("tls", **connection.facts())
        match connection.alpn:
            case "konnectivity":
                return Greeter(connection.facts())
            case "h2":
                return Http2(connection, self.events)
            case _:
                self.app[PEERS][transport.get_extra_info("peername")] = connection
                return self.http()

    async def _serve_site(self, site: sites.Site, address: str) -> None:
        match site.service:
            case sites.Service.OPAQUE:
                await self._serve_echo(address, TLS_PORTS[0])
            case sites.Service.TIME:
                await self._serve_datagrams(address, (ntp.PORT,), lambda: ntp.Server(self.events))
            case sites.Service.PORTS:
                for port in sites.OPEN_TCP:
                    await self._serve_echo(address, port)
                await self._serve_datagrams(address, sites.OPEN_UDP, DatagramEcho)
            case sites.Service.WEB:
                for port in TLS_PORTS:
                    self._listen(address, port, partial(self._take_tls, site))
                for port in HTTP_PORTS:
                    self._listen(address, port, partial(self._take_http, site))
                for port in ECHO_PORTS:
                    await self._serve_echo(address, port)
            case never:
                assert_never(never)

    async def _serve_datagrams(
        self, address: str, ports: tuple[int, ...], protocol: Callable[[], asyncio.DatagramProtocol]
    ) -> None:
        loop = asyncio.get_running_loop()
        for port in ports:
            await loop.create_datagram_endpoint(protocol, local_addr=(address, port))

    async def _serve_echo(self, address: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_server(
            lambda: ByteEcho(self.events, port), address, port, backlog=_BACKLOG
        )

    def _listen(self, address: str, port: int, take: Any) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, port), family=family, backlog=_BACKLOG)
        listener.setblocking(False)
        self._spawn(self._accept(listener, take), f"accept {address}:{port}")

    async def _accept(self, listener: socket.socket, take: Any) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, peer = await loop.sock_accept(listener)
            self._spawn(take(accepted), f"connection {peer}")

    async def _take_http(self, site: sites.Site, accepted: socket.socket) -> None:
        facts = _facts(site, accepted)
        if facts is None:
            return
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: Dispatcher(self, facts), accepted)

    async def _take_tls(self, site: sites.Site, accepted: socket.socket) -> None:
        facts = _facts(site, accepted)
        if facts is None:
            return
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                facts.hello = (await peek_hello(accepted)).hex()
            await loop.connect_accepted_socket(
                lambda: Dispatcher(self, facts),
                accepted,
                ssl=self.certificates.entry(site, facts),
            )
        except (OSError, TimeoutError) as error:
            self.events.write("tls_failed", error=repr(error), **facts.facts())
            accepted.close()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.tasks.create_task(work, name=name)


def _facts(site: sites.Site, accepted: socket.socket) -> Connection | None:
    """What a socket tells; ``None`` where the client has already gone."""
    try:
        local, peer = accepted.getsockname(), accepted.getpeername()
    except OSError:
        accepted.close()
        return None
    accepted.setblocking(False)
    return Connection(site.key, local[0], local[1], f"{peer[0]} {peer[1]}")


def _common_name(certificate: Any) -> str | None:
    for relative in (certificate or {}).get("subject", ()):
        for key, value in relative:
            if key == "commonName":
                return str(value)
    return None


async def _main(directory: Path) -> None:
    events = EventWriter(directory / FILE)
    async with ClientSession(auto_decompress=False) as session, asyncio.TaskGroup() as tasks:
        app = application(events, front(session))
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=7200)
        await runner.setup()
        assert runner.server is not None  # noqa: S101 - set by setup
        certificates = Certificates(load_authority(directory))
        await Internet(certificates, events, runner.server, app, tasks).serve()
        sys.stdout.write(READY + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        raise SystemExit(0)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
