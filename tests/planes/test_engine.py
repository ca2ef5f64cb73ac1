"""The engine as a whole: clients that vanish in every state, drain, defects."""

from __future__ import annotations

import gc
import os
import socket
from typing import TYPE_CHECKING

import pytest

from egressproxy.observe.record import FlowRecord
from egressproxy.planes.context import AllowRecords, EngineOptions, ListenerKind
from egressproxy.planes.dial import Dial
from egressproxy.planes.flow import Flow, Leg
from egressproxy.planes.http_work import HttpWork
from egressproxy.policy.rules import Refusal
from egressproxy.policy.verdict import Reason
from tests.planes.world import (
    ALLOW,
    DENY,
    ERROR,
    ESTABLISHED,
    GATEWAY,
    NAME,
    SERVER,
    World,
    client_hello,
    connect_request,
    past_tunnel,
    rule,
    ruleset,
    silent_server,
    tls_world,
    tunnel,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planes.world import World

    Worlds = Callable[..., World]


def test_a_record_has_every_field(worlds: Worlds) -> None:
    """It is built as a plain tuple, of which no class counts the fields."""
    (record,) = past_tunnel(worlds).records
    assert FlowRecord(**record._asdict()) == record
    assert [type(value) for value in record[-7:]] == [str, str, int, int, int, float, int]


class TestClientVanishes:
    """In each state; every way out leaves nothing behind (the ``worlds`` fixture counts)."""

    def test_before_a_word(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.connect(port).close()
        assert world.engine.active == 0
        assert world.counted(DENY, Reason.CLOSED_BEFORE_HELLO) == 1

    def test_before_a_word_is_no_news(self, worlds: Worlds) -> None:
        world = worlds(None, EngineOptions(allow_records=AllowRecords.NONE))
        port = world.intercept()
        world.connect(port).close()
        world.connect(port).reset()
        assert world.records == []
        assert world.counted(DENY, Reason.CLOSED_BEFORE_HELLO) == 2

    def test_in_the_middle_of_its_hello(self, worlds: Worlds) -> None:
        world = worlds(None, EngineOptions(allow_records=AllowRecords.NONE))
        port = world.intercept()
        client = world.connect(port)
        client.send(client_hello(NAME)[:50])
        client.close()
        assert [r.reason for r in world.records] == [Reason.CLOSED_BEFORE_HELLO]

    def test_while_its_name_is_resolved(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.resolver.slow.add(NAME)
        client = world.connect(port)
        client.send(client_hello(NAME))
        assert [facts.stage for facts in world.flows()] == ["resolve"]
        client.reset()
        assert world.engine.active == 0
        world.resolver.deliver()
        world.turn()
        assert world.outcomes() == [(ALLOW, Reason.RULE, "client_reset")]

    def test_while_its_server_is_dialled(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        server.close()
        _, stuck = silent_server(world, SERVER, port)
        client = world.connect(port)
        client.send(client_hello(NAME))
        assert [facts.stage for facts in world.flows()] == ["dial"]
        client.reset()
        assert world.engine.active == 0
        assert stuck

    def test_while_it_is_refused(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        client = world.connect(port)
        client.send(client_hello("bad.example") + b"more")
        assert [facts.stage for facts in world.flows()] == ["refuse"]
        client.reset()
        assert world.engine.active == 0

    def test_while_it_is_refused_in_silence(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.obey(refusal=Refusal.DROP)
        client = world.connect(port)
        client.send(client_hello("bad.example"))
        assert client.is_silent()
        client.reset()
        assert world.engine.active == 0


class TestDrain:
    def test_open_flows_go_on_until_the_deadline(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        client, upstream = tunnel(world, port, server)
        world.engine.drain()
        late = socket.create_connection((GATEWAY, port))
        world.turn()
        assert world.engine.active == 1
        upstream.send(b"on")
        assert client.recv() == b"on"
        world.pass_time(29)
        assert world.engine.active == 1
        world.pass_time(2)
        for peer in (client, upstream):
            with pytest.raises(ConnectionResetError):
                peer.recv()
        assert world.outcomes() == [(ALLOW, Reason.RULE, "drained")]
        late.close()


@pytest.mark.interpreted
def test_a_defect_costs_one_flow(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("egressproxy.planes.sniff.parse_client_hello", broken)
        victim = world.connect(port)
        victim.send(client_hello(NAME))
        with pytest.raises(ConnectionResetError):
            victim.recv()
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()  # the traceback keeps the engine alive
    assert world.outcomes() == [(ERROR, Reason.INTERNAL_ERROR, "error")]
    upstream.send(b"on")
    assert client.recv() == b"on"


@pytest.mark.parametrize("kind", [ListenerKind.EXPLICIT, ListenerKind.TPROXY])
def test_ipv6(worlds: Worlds, kind: ListenerKind) -> None:
    world = worlds()
    server = world.serve(0, "::1")
    target = server.getsockname()[1]
    world.resolver.names[NAME] = ("::1",)
    hello = client_hello(NAME)
    if kind is ListenerKind.EXPLICIT:
        world.obey(rule("good", NAME, ports=(f"tls:{target}",)))
        client = world.connect(world.listen(kind, "::1"), "::1", "::1")
        client.send(connect_request(f"{NAME}:{target}"))
        upstream = world.upstream(server)
        assert client.recv() == ESTABLISHED
        client.send(hello)
    else:  # the original destination is on the listener's own port, where IPv4 has the server
        port = world.listen(kind, "::1")
        world.obey(rule("good", NAME, ports=(f"tls:{port}",)))
        world.resolver.names[NAME] = (SERVER,)
        server = world.serve(port)
        client = world.connect(port, "::1", "::1")
        client.send(hello)
        upstream = world.upstream(server)
    assert upstream.recv_exactly(len(hello)) == hello
    assert [facts.src for facts in world.flows()] == ["::1"]


def test_tunnels_lose_no_byte_over_many_reloads(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    pairs = [tunnel(world, port, server) for _ in range(40)]
    policies = [
        ruleset(
            rule("good", NAME, ports=(f"tls:{port}",)), rule("x", "x.example", ports=("https",))
        ),
        ruleset(rule("again", NAME, ports=(f"tls:{port}",))),
    ]
    sent = dict.fromkeys(range(len(pairs)), b"")
    got = dict(sent)
    for turn in range(30):
        report = world.engine.swap(policies[turn % 2])
        for n, (client, upstream) in enumerate(pairs):
            piece = os.urandom(turn * 37 + n + 1)
            client.sock.send(piece)
            sent[n] += piece
            got[n] += upstream.recv()
        world.until(lambda report=report: report.done)  # type: ignore[misc]
        assert (report.open, report.judged, report.closed) == (40, 40, 0)
    for n, (_, upstream) in enumerate(pairs):
        while len(got[n]) < len(sent[n]):
            got[n] += upstream.recv()
    assert got == sent


def test_one_allow_in_so_many_is_written(worlds: Worlds) -> None:
    options = EngineOptions(allow_records=AllowRecords.SAMPLE, sample_every=3)
    world = worlds(None, options)
    port = world.intercept()
    world.obey(rule("good", NAME, ports=(f"tls:{port}",)))
    world.resolver.names[NAME] = (SERVER,)
    server = world.serve(port)
    for _ in range(7):
        client, upstream = tunnel(world, port, server)
        client.close()
        upstream.close()
    world.until(lambda: world.engine.active == 0)
    assert len(world.records) == 2
    assert world.counted(ALLOW, Reason.RULE) == 7
    assert len({record.flow_id for record in world.records}) == 2


def test_an_upstream_gets_its_keepalive_when_it_stays(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    tunnel(world, port, server)
    world.pass_time(16)
    flow = next(world.engine._flows.open())
    assert flow.upstream is not None
    sock = flow.upstream.sock
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


def test_the_garbage_collector_finds_nothing_of_a_flow(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            client, upstream = tunnel(world, port, server)
            client.close()
            upstream.close()
            denied = world.connect(port)
            denied.send(client_hello("bad.example"))
            denied.close()
            web = world.connect(port)
            web.send(f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
            world.upstream(server).close()
            web.close()
            connect = world.connect(world.explicit)
            connect.send(connect_request(f"{NAME}:{port}"))
            world.upstream(server)
            connect.close()
        world.until(lambda: world.engine.active == 0)
        alive = [o for o in gc.get_objects() if isinstance(o, Flow | Leg | Dial | HttpWork)]
    finally:
        gc.enable()
    assert alive == []
