"""Reloads with open flows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.rules import OnReload
from egressproxy.policy.verdict import Reason
from egressproxy.wire.alert import ACCESS_DENIED
from tests.planes.world import (
    DENY,
    NAME,
    SERVER,
    World,
    client_hello,
    rule,
    ruleset,
    tls_world,
    tunnel,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planes.world import World

    Worlds = Callable[..., World]


class TestReload:
    def test_denied_tunnels_are_reset_and_allowed_ones_untouched(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        keep = rule("keep", "keep.example", ports=(f"tls:{port}",))
        world.resolver.names["keep.example"] = (SERVER,)
        world.context.ruleset = ruleset(keep, rule("good", NAME, ports=(f"tls:{port}",)))
        denied, _ = tunnel(world, port, server)
        kept = world.connect(port)
        kept.send(client_hello("keep.example"))
        upstream = world.upstream(server)
        upstream.recv()
        report = world.engine.swap(ruleset(keep))
        world.until(lambda: report.done)
        assert (report.open, report.judged, report.closed, report.kept) == (2, 2, 1, 0)
        with pytest.raises(ConnectionResetError):
            denied.recv()
        upstream.send(b"on")
        assert kept.recv() == b"on"
        assert world.outcomes() == [(DENY, Reason.REVOKED, "refused")]

    def test_keep(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        client, upstream = tunnel(world, port, server)
        report = world.engine.swap(ruleset(on_reload=OnReload.KEEP))
        world.until(lambda: report.done)
        assert (report.closed, report.kept) == (0, 1)
        upstream.send(b"on")
        assert client.recv() == b"on"

    def test_a_flow_on_its_way_is_judged_again_as_it_is_joined(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.resolver.slow.add(NAME)
        client = world.connect(port)
        client.send(client_hello(NAME))
        report = world.engine.swap(ruleset())
        world.until(lambda: report.done)
        world.resolver.deliver()
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.REVOKED, "refused")]

    def test_a_flow_that_is_being_sniffed_is_judged_by_one_ruleset(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        world.resolver.names["new.example"] = (SERVER,)
        client = world.connect(port)
        hello = client_hello("new.example")
        client.send(hello[:10])
        report = world.engine.swap(ruleset(rule("new", "new.example", ports=(f"tls:{port}",))))
        world.until(lambda: report.done)
        client.send(hello[10:])
        # The ruleset that asked pass 1 also answers pass 2.
        assert client.recv_all() == ACCESS_DENIED
        assert world.outcomes() == [(DENY, Reason.DEFAULT_DENY, "refused")]
        server.close()
