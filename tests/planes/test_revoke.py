"""Reloads with open flows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from egressproxy.observe.record import to_json_line
from egressproxy.policy.rules import Mode, OnReload
from egressproxy.policy.verdict import Reason
from egressproxy.wire.alert import ACCESS_DENIED
from tests.planes.world import (
    DENY,
    GATEWAY,
    NAME,
    SERVER,
    World,
    client_hello,
    past_tunnel,
    rule,
    ruleset,
    tls_world,
    tunnel,
)

if TYPE_CHECKING:
    import socket
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

    @pytest.mark.parametrize("mode", Mode)
    @pytest.mark.parametrize("is_audited", [True, False])
    def test_an_open_flow_ends_as_what_it_was_counted(
        self, worlds: Worlds, mode: Mode, *, is_audited: bool
    ) -> None:
        """Audited when it opened, allowed later, or the other way round: one flow all the same."""
        world, port, server = tls_world(worlds)
        allowed = (rule("good", NAME, ports=(f"tls:{port}",)),)
        before, after = ((), allowed) if is_audited else (allowed, ())
        world.obey(*before, mode=Mode.AUDIT)
        client, upstream = tunnel(world, port, server)
        new_mode = Mode.AUDIT if after == () else mode
        report = world.engine.swap(ruleset(*after, mode=new_mode))
        world.until(lambda: report.done)
        client.close()
        upstream.close()
        world.until(lambda: world.engine.active == 0)
        told = [each.would_deny for each in world.records]
        assert told == ([True, True] if is_audited else [False])
        assert sum(world.counters.totals().would_deny.values()) == is_audited

    def test_a_flow_on_its_way_dials_nobody_that_is_denied_now(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        world.resolver.slow.add(NAME)
        client = world.connect(port)
        client.send(client_hello(NAME))
        world.turn()
        report = world.engine.swap(ruleset())
        world.until(lambda: report.done)
        assert report.closed == 1
        world.resolver.deliver()
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.REVOKED, "refused")]
        _assert_undialled(world, server)

    def test_a_flow_on_its_way_goes_on_where_it_may(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        world.resolver.slow.add(NAME)
        client, hello = world.connect(port), client_hello(NAME)
        client.send(hello)
        world.turn()
        report = world.engine.swap(ruleset(rule("too", NAME, ports=(f"tls:{port}",))))
        world.until(lambda: report.done)
        world.resolver.deliver()
        assert world.upstream(server).recv_exactly(len(hello)) == hello

    def test_a_hello_that_ends_after_a_reload_dials_nobody_that_is_denied_now(
        self, worlds: Worlds
    ) -> None:
        world, port, server = tls_world(worlds)
        client = world.connect(port)
        hello = client_hello(NAME)
        client.send(hello[:10])
        world.turn()
        report = world.engine.swap(ruleset())
        world.until(lambda: report.done)
        client.send(hello[10:])
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.REVOKED, "refused")]
        _assert_undialled(world, server)

    def test_an_address_that_is_allowed_now_is_no_word_for_the_name(self, worlds: Worlds) -> None:
        """The client says which address it wanted; the tunnel leads to the name's."""
        world, port, server = tls_world(worlds)
        client, _ = tunnel(world, port, server)
        report = world.engine.swap(ruleset(rule("net", GATEWAY, ports=(f"tcp:{port}",))))
        world.until(lambda: report.done)
        assert report.closed == 1
        with pytest.raises(ConnectionResetError):
            client.recv()

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


def test_lines_that_name_the_old_policy_are_forgotten(worlds: Worlds) -> None:
    """Else each reload would leave some behind, until the memo is full of what nobody writes."""
    world = past_tunnel(worlds)
    digest = "".join(["digest-of-", "a-policy"])
    held = sys.getrefcount(digest)
    to_json_line(world.records[0]._replace(policy=digest))
    assert sys.getrefcount(digest) > held
    world.engine.swap(ruleset())
    assert sys.getrefcount(digest) == held


def _assert_undialled(world: World, server: socket.socket) -> None:
    world.turn()
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()
