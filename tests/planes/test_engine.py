"""The engine as a whole: clients that vanish in every state, drain, defects."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from egressproxy.planes.context import AllowRecords, EngineOptions
from egressproxy.policy.rules import Refusal
from egressproxy.policy.verdict import Reason
from tests.planes.world import (
    ALLOW,
    DENY,
    ERROR,
    GATEWAY,
    NAME,
    SERVER,
    World,
    client_hello,
    silent_server,
    tls_world,
    tunnel,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planes.world import World

    Worlds = Callable[..., World]


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
        assert [facts.stage for facts in world.engine.flows()] == ["resolve"]
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
        assert [facts.stage for facts in world.engine.flows()] == ["dial"]
        client.reset()
        assert world.engine.active == 0
        assert stuck

    def test_while_it_is_refused(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        client = world.connect(port)
        client.send(client_hello("bad.example"))
        assert [facts.stage for facts in world.engine.flows()] == ["refuse"]
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
