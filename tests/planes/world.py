"""A small world for the engine: real sockets on loopback, a clock that stands still, one thread."""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from egressproxy.names import DnsName
from egressproxy.observe.counters import Counters
from egressproxy.patterns import parse_pattern
from egressproxy.planes.context import AllowRecords, EngineContext, EngineOptions, ListenerKind
from egressproxy.planes.engine import Engine
from egressproxy.planes.limits import FlowLimits
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.rules import Mode, OnReload, Origin, Policy, Refusal, Rule, SniCheck
from egressproxy.policy.verdict import Action, Reason
from egressproxy.ports import parse_ports
from egressproxy.resolve.guard import Guard
from egressproxy.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from egressproxy.observe.record import FlowRecord
    from egressproxy.planes.survey import FlowFacts
    from egressproxy.policy.ruleset import Ruleset

GATEWAY = "127.0.0.1"
SERVER = "127.0.0.2"
"""Upstreams listen here, on the port of their choice: names resolve to it."""

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def rule(
    name: str,
    *to: str,
    ports: tuple[str, ...],
    action: Action = Action.ALLOW,
    sni: SniCheck = SniCheck.SAME,
) -> Rule:
    """A rule as the loader would give it; ``to`` are patterns and networks."""
    networks = tuple(ip_network(item) for item in to if item[0].isdigit())
    return Rule(
        id=name,
        action=action,
        ports=tuple(parse_ports(item) for item in ports),
        origin=Origin("test.yaml", 1),
        patterns=tuple(parse_pattern(item) for item in to if not item[0].isdigit()),
        networks=networks,
        sni=sni,
    )


def ruleset(
    *rules: Rule,
    mode: Mode = Mode.ENFORCE,
    refusal: Refusal = Refusal.ALERT,
    on_reload: OnReload = OnReload.CLOSE,
) -> Ruleset:
    """A compiled policy."""
    return compile_policy(
        Policy(
            cloud="AzureCloud",
            rules=rules,
            sources=(),
            requirements=(),
            files=(Path("test.yaml"),),
            digest=f"{len(rules):064x}",
            mode=mode,
            refusal=refusal,
            on_reload=on_reload,
        )
    )


def client_hello(name: str | None, alpn: tuple[str, ...] = ("h2", "http/1.1")) -> bytes:
    """What OpenSSL sends to begin a TLS connection."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


class FakeAnswer:
    def __init__(self, addresses: tuple[str, ...], error: str = "") -> None:
        self.addresses = addresses
        self.error = error


class FakeResolver:
    """Answers from ``names``; a name in ``slow`` is answered when ``deliver`` is called."""

    def __init__(self) -> None:
        self.names: dict[str, tuple[str, ...]] = {}
        self.slow: set[str] = set()
        self.waiting: list[tuple[str, Callable[[FakeAnswer], None]]] = []
        self.asked: list[tuple[str, bool]] = []

    def cached(self, name: DnsName) -> FakeAnswer | None:
        return None if name in self.slow else self._answer(name)

    def resolve(
        self, name: DnsName, callback: Callable[[FakeAnswer], None], *, whole: bool = False
    ) -> None:
        self.asked.append((name, whole))
        self.waiting.append((name, callback))

    def deliver(self) -> None:
        waiting, self.waiting = self.waiting, []
        for name, callback in waiting:
            callback(self._answer(name))

    def _answer(self, name: str) -> FakeAnswer:
        addresses = self.names.get(name, ())
        return FakeAnswer(addresses, "" if addresses else "nxdomain")


class Log:
    def __init__(self) -> None:
        self.records: list[FlowRecord] = []

    def write(self, record: FlowRecord) -> None:
        self.records.append(record)


class Peer:
    """A blocking socket at one end, with the engine turned while it waits."""

    def __init__(self, world: World, sock: socket.socket) -> None:
        self.world = world
        self.sock = sock
        sock.setblocking(False)
        self.port: int = sock.getsockname()[1]

    def send(self, data: bytes) -> None:
        self.sock.send(data)
        self.world.turn()

    def recv(self, count: int = 65536) -> bytes:
        """Some bytes, or nothing at the end; an error as the kernel tells it."""
        found: list[bytes] = []

        def read() -> bool:
            try:
                found.append(self.sock.recv(count))
            except BlockingIOError:
                return False
            return True

        self.world.until(read)
        return found[0]

    def recv_exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.recv(count - len(data))
            assert piece, f"the peer closed after {data!r}"
            data += piece
        return data

    def recv_all(self) -> bytes:
        data = b""
        while piece := self.recv():
            data += piece
        return data

    def is_silent(self) -> bool:
        """Whether nothing comes, not even an end, while the engine settles."""
        self.world.turn()
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    def finish(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)
        self.world.turn()

    def reset(self) -> None:
        self.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + bytes(4)
        )
        self.sock.close()
        self.world.turn()

    def close(self) -> None:
        self.sock.close()
        self.world.turn()


class World:
    """An engine with everything around it. ``now`` moves by ``pass_time`` only."""

    def __init__(self, settings: Settings | None = None, options: EngineOptions | None = None):
        self.now = 1000.0
        self.wall = 1_767_225_600.0
        self.settings = settings or Settings()
        self.resolver = FakeResolver()
        self.log = Log()
        self.counters = Counters.create(1)
        self.limits = FlowLimits.create(1)
        self.sockets: list[socket.socket] = []
        self.context = EngineContext(
            settings=self.settings,
            ruleset=ruleset(),
            resolver=self.resolver,
            guard=Guard((), exempt=LOOPBACK),
            log=self.log,
            counters=self.counters.worker(0),
            limits=self.limits.worker(0, self.settings),
            options=options or EngineOptions(allow_records=AllowRecords.ALL),
            clock=lambda: self.now,
            wall_clock=lambda: self.wall,
        )
        self.engine = Engine(self.context)
        self.gateways: dict[ListenerKind, socket.socket] = {}

    # The gateway.

    def listen(self, kind: ListenerKind, address: str = GATEWAY, port: int = 0) -> int:
        sock = socket.create_server(
            (address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET
        )
        self.sockets.append(sock)
        self.gateways[kind] = sock
        self.engine.add_listener(sock, kind)
        return int(sock.getsockname()[1])

    @property
    def explicit(self) -> int:
        """The proxy port."""
        sock = self.gateways.get(ListenerKind.EXPLICIT)
        return sock.getsockname()[1] if sock else self.listen(ListenerKind.EXPLICIT)

    def intercept(self) -> int:
        """A transparent port: a client that connects to it at GATEWAY wanted to go there, and a
        name's server is at SERVER on the same port (see ``serve``)."""
        sock = self.gateways.get(ListenerKind.TPROXY)
        return sock.getsockname()[1] if sock else self.listen(ListenerKind.TPROXY)

    def obey(self, *rules: Rule, **options: object) -> None:
        """Replace the policy before there are flows."""
        self.context.ruleset = ruleset(*rules, **options)  # type: ignore[arg-type]

    # Time and turns.

    def turn(self, rounds: int = 3) -> None:
        """Let the engine do what it can now."""
        for _ in range(rounds):
            while select.select([self.engine.fileno()], [], [], 0)[0]:
                self.engine.ready()
            time.sleep(0)

    def until(self, done: Callable[[], bool], timeout_s: float = 10) -> None:
        """Turn the engine until something has happened."""
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, "it does not happen"
            if select.select([self.engine.fileno()], [], [], 0.002)[0]:
                self.engine.ready()

    def pass_time(self, seconds: float) -> None:
        self.turn()
        self.now += seconds
        self.wall += seconds
        self.engine.tick(self.now)
        self.turn()

    # The ends.

    def connect(self, port: int, address: str = GATEWAY, source: str = GATEWAY) -> Peer:
        sock = socket.create_connection((address, port), source_address=(source, 0))
        self.sockets.append(sock)
        peer = Peer(self, sock)
        self.turn()
        return peer

    def serve(self, port: int = 0, address: str = SERVER, backlog: int = 50) -> socket.socket:
        """A server's listener; ``upstream`` gives what the engine connects."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.create_server((address, port), family=family, backlog=backlog)
        sock.setblocking(False)
        self.sockets.append(sock)
        return sock

    def upstream(self, server: socket.socket) -> Peer:
        found: list[socket.socket] = []

        def accept() -> bool:
            try:
                found.append(server.accept()[0])
            except BlockingIOError:
                return False
            return True

        self.until(accept)
        self.sockets.append(found[0])
        return Peer(self, found[0])

    # What was written.

    @property
    def records(self) -> list[FlowRecord]:
        return self.log.records

    def flows(self, most: int = 100) -> list[FlowFacts]:
        """The open flows."""
        survey = self.engine.survey(most)
        while not survey.turn():
            pass
        return survey.facts()

    def outcomes(self) -> list[tuple[Action, Reason, str]]:
        return [(r.action, r.reason, r.close_reason) for r in self.records]

    def counted(self, action: Action, reason: Reason) -> int:
        flows = self.counters.totals().flows
        return sum(n for (_, a, r), n in flows.items() if (a, r) == (action, reason))

    def close(self) -> None:
        self.engine.close()
        for sock in self.sockets:
            sock.close()
        os.close(self.counters.fd)
        self.limits.close()
        self.__dict__.clear()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


NAME = "good.example"
ALLOW, DENY, ERROR = Action.ALLOW, Action.DENY, Action.ERROR
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def tls_world(
    worlds: Callable[..., World], settings: Settings | None = None
) -> tuple[World, int, socket.socket]:
    """A transparent port that allows ``NAME``, and its server."""
    world = worlds(settings)
    port = world.intercept()
    world.obey(rule("good", NAME, ports=(f"tls:{port}", f"http:{port}")))
    world.resolver.names[NAME] = (SERVER,)
    return world, port, world.serve(port)


def tunnel(world: World, port: int, server: socket.socket) -> tuple[Peer, Peer]:
    """A client and its upstream, relayed, the hello already taken."""
    hello = client_hello(NAME)
    client = world.connect(port)
    client.send(hello)
    upstream = world.upstream(server)
    assert upstream.recv_exactly(len(hello)) == hello
    return client, upstream


def past_tunnel(worlds: Callable[..., World]) -> World:
    """A world in which one allowed tunnel has come and gone."""
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    client.close()
    upstream.close()
    world.until(lambda: world.engine.active == 0)
    return world


def connect_request(host: str) -> bytes:
    return f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def silent_server(
    world: World, address: str, port: int
) -> tuple[socket.socket, list[socket.socket]]:
    """A listener whose queue is full: the kernel answers no further SYN."""
    server = world.serve(port, address, backlog=0)
    stuck = []
    for _ in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex((address, port))
        world.sockets.append(sock)
        stuck.append(sock)
    return server, stuck
