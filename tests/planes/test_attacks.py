"""Hostile ends against the engine: what they cost in one turn, and that nothing of them stays."""

from __future__ import annotations

import resource
import select
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from egressproxy.observe.record import Plane
from egressproxy.planes.flow import Flow, Leg
from egressproxy.planes.limits import Source
from egressproxy.planes.reactor import Reactor, nothing
from egressproxy.policy.rules import Destination
from tests.planes.world import GATEWAY, SERVER, World, client_hello, rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planes.world import Peer

    Worlds = Callable[..., World]

NAME = "good.example"
MOST_CHUNKS = 3 * 16384 // 6
"""A chunk of one byte is six on the wire; a batch may hold an owed turn and an event a socket."""


def http_world(worlds: Worlds) -> tuple[World, int, socket.socket]:
    """A transparent port on which ``NAME`` is allowed as HTTP, and its server."""
    world = worlds()
    port = world.intercept()
    world.obey(rule("web", NAME, ports=(f"http:{port}",)))
    world.resolver.names[NAME] = (SERVER,)
    return world, port, world.serve(port)


def take_all(peer: Peer) -> bytes:
    """What is here now, without a turn of the engine."""
    data = b""
    while True:
        try:
            piece = peer.sock.recv(1 << 20)
        except BlockingIOError:
            return data
        if not piece:
            return data
        data += piece


def one_turn(world: World) -> bool:
    """One batch of the engine; whether there was one to take."""
    if not select.select([world.engine.fileno()], [], [], 0.01)[0]:
        return False
    world.engine.ready()
    return True


def test_tiny_chunks_of_a_request_are_read_a_little_a_turn(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    client.send(f"POST / HTTP/1.1\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    upstream = world.upstream(server)
    world.turn()
    assert take_all(upstream).startswith(b"POST / HTTP/1.1\r\n")
    count = 30_000
    client.sock.send(b"1\r\nx\r\n" * count)  # all in the kernel, before a turn
    body, most = b"", 0
    while one_turn(world):
        piece = take_all(upstream)
        most = max(most, piece.count(b"x"))
        body += piece
    assert body.count(b"x") == count
    assert most <= MOST_CHUNKS
    client.close()


def test_tiny_chunks_of_an_answer_are_read_a_little_a_turn(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    client.send(f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
    upstream = world.upstream(server)
    world.turn()
    upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert take_all(client).startswith(b"HTTP/1.1 200 ")
    count = 30_000
    upstream.sock.send(b"1\r\nx\r\n" * count)
    body, most = b"", 0
    while one_turn(world):
        piece = take_all(client)
        most = max(most, piece.count(b"x"))
        body += piece
    assert body.count(b"x") == count
    assert most <= MOST_CHUNKS
    client.close()


def test_a_websocket_client_that_sent_much_and_its_end_before_the_switch(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    client.send(
        f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    upstream = world.upstream(server)
    early = bytes(range(256)) * 390  # more than the session buffers, by less than a relay reads
    client.send(early)
    client.finish()
    upstream.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    received = upstream.recv_all()  # ends, because the client's end is passed on
    assert received.partition(b"\r\n\r\n")[2] == early
    upstream.close()
    client.close()
    world.until(lambda: world.engine.active == 0)


@pytest.mark.parametrize(
    ("destination", "whole"),
    [
        (Destination.RESOLVE, False),
        (Destination.PREFER_ORIGINAL, True),
        (Destination.STRICT, True),
    ],
)
def test_a_missing_family_cannot_make_a_mismatch(
    worlds: Worlds, destination: Destination, whole: bool
) -> None:
    """Where the client's own address counts, the dialler waits for both families."""
    world = worlds()
    port = world.intercept()
    world.obey(replace(rule("web", NAME, ports=(f"tls:{port}",)), destination=destination))
    world.resolver.slow.add(NAME)
    world.connect(port).send(client_hello(NAME))
    assert world.resolver.asked == [(NAME, whole)]


@pytest.mark.parametrize("moment", ["sniff", "relay", "http"])
def test_a_ledger_that_fails_keeps_no_flow_open(
    worlds: Worlds, moment: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect while a flow is closed because of a defect: it still ends, and others go on."""
    world = worlds()
    port = world.intercept()
    world.obey(rule("web", NAME, ports=(f"tls:{port}", f"http:{port}")))
    world.resolver.names[NAME] = (SERVER,)
    server = world.serve(port)
    client = world.connect(port)
    if moment != "sniff":
        request = f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
        client.send(client_hello(NAME) if moment == "relay" else request)
        world.upstream(server)
        world.turn()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(world.log, "write", broken)
        if moment == "sniff":
            client.send(client_hello("denied.example"))
        else:
            client.reset()
        world.turn()
        assert world.engine.active == 0
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()
    assert world.limits.total() == 0
    other = world.connect(port)
    other.send(client_hello(NAME))
    world.upstream(server)
    world.turn()
    assert world.engine.active == 1


def test_owed_turns_leave_room_for_events() -> None:
    """Flows that always have more to do are served in rounds, a few milliseconds a batch."""
    now = 0.0
    taken: list[Leg] = []
    reactor = Reactor(lambda: now)
    pairs = [socket.socketpair() for _ in range(5)]
    flow = Flow(1, Plane.EXPLICIT, Source("192.0.2.1"), 1, 0.0)
    legs = [Leg(pair[0], flow, nothing, waits=False) for pair in pairs]

    def turn(leg: Leg) -> None:
        nonlocal now
        now += 0.003
        taken.append(leg)
        reactor.again(leg, turn)

    for leg in legs:
        reactor.again(leg, turn)
    for _ in range(5):
        reactor.ready()
    assert taken == legs * 2  # two a batch, each in its order
    for leg in legs:
        reactor.drop(leg)
    reactor.close()
    for pair in pairs:
        pair[1].close()


def test_descriptors_that_stay_exhausted_do_not_fill_the_journal(
    worlds: Worlds, caplog: pytest.LogCaptureFixture
) -> None:
    world = worlds()
    waiting = socket.create_connection((GATEWAY, world.intercept()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for _ in range(100):
            world.now += 1
            world.engine.tick()
            world.engine.ready()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [r.getMessage()[:16] for r in caplog.records] == ["accepting pauses"] * 2
    caplog.clear()
    world.pass_time(0.1)
    assert world.engine.active == 1
    waiting.close()
