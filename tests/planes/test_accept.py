"""At the door: pass 1, loops, limits, descriptors that run out."""

from __future__ import annotations

import errno
import resource
import socket
from typing import TYPE_CHECKING

import pytest

from egressproxy.planes.context import ListenerKind
from egressproxy.policy.verdict import Reason
from egressproxy.resolve.guard import Guard
from egressproxy.settings import Settings
from tests.planes.world import (
    DENY,
    ERROR,
    GATEWAY,
    NAME,
    World,
    client_hello,
    open_descriptors,
    rule,
    tls_world,
    tunnel,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planes.world import World

    Worlds = Callable[..., World]


class TestNetworkPass:
    def test_an_allowed_address_is_dialled_unsniffed_before_a_byte(self, worlds: Worlds) -> None:
        world = worlds()
        port = world.intercept()
        world.obey(rule("api", "127.0.0.0/8", ports=(f"tcp:{port}",)))
        # The original destination is the gateway's own listener; dialling it would be a loop, so
        # the guard is told that the address is ours.
        world.context.guard = Guard(("127.0.0.1",))
        client = world.connect(port)
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.FORBIDDEN_ADDRESS, "refused")]

    def test_a_denied_address_is_refused_before_a_byte(self, worlds: Worlds) -> None:
        world = worlds()
        port = world.intercept()
        world.obey(rule("no", "127.0.0.0/8", ports=(f"tcp:{port}",), action=DENY))
        client = world.connect(port)
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.RULE, "refused")]

    def test_our_own_address_and_port_is_a_loop(self, worlds: Worlds) -> None:
        world = worlds()
        world.context.own_addresses = frozenset((GATEWAY,))
        client = world.connect(world.intercept())
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.LOOP, "refused")]

    def test_a_redirect_port_that_is_dialled_directly_is_a_loop(self, worlds: Worlds) -> None:
        world = worlds()
        client = world.connect(world.listen(ListenerKind.REDIRECT))
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.LOOP, "refused")]


class TestLimits:
    def test_source(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds, Settings(max_flows_per_source=2))
        tunnel(world, port, server)
        client, _ = tunnel(world, port, server)
        third = world.connect(port)
        with pytest.raises(ConnectionResetError):
            third.recv()
        assert world.outcomes() == [(DENY, Reason.LIMIT_SOURCE, "refused")]
        other = world.connect(port, source="127.0.0.77")
        assert other.is_silent()
        client.reset()
        tunnel(world, port, server)

    def test_global(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds, Settings(max_flows=2))
        tunnel(world, port, server)
        tunnel(world, port, server)
        third = world.connect(port, source="127.0.0.77")
        with pytest.raises(ConnectionResetError):
            third.recv()
        assert world.outcomes() == [(DENY, Reason.LIMIT_GLOBAL, "refused")]

    def test_out_of_descriptors_accepting_pauses_and_comes_back(
        self, worlds: Worlds, caplog: pytest.LogCaptureFixture
    ) -> None:
        world, port, server = tls_world(worlds)
        waiting = [socket.create_connection((GATEWAY, port)) for _ in range(2)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() - 1, hard))
        try:
            for _ in range(5):
                world.engine.ready()
            assert "accepting pauses" in caplog.text
            assert len(caplog.records) == 1  # it does not spin
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        world.pass_time(0.1)
        assert world.engine.active == 2
        for sock in waiting:
            sock.close()
        tunnel(world, port, server)

    @pytest.mark.interpreted
    def test_out_of_descriptors_for_the_upstream(
        self, worlds: Worlds, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_socket(*_: object, **__: object) -> socket.SocketType:
            raise OSError(errno.EMFILE, "Too many open files")

        world, port, _ = tls_world(worlds)
        monkeypatch.setattr("egressproxy.planes.dial.connecting", no_socket)
        client = world.connect(port)
        client.send(client_hello(NAME))
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(ERROR, Reason.DIAL_FAILED, "error")]
