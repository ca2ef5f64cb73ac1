"""Dialling: failures, races, timeouts, the guard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.verdict import Reason
from egressproxy.settings import Settings
from egressproxy.wire.alert import ACCESS_DENIED
from tests.planes.world import (
    ALLOW,
    DENY,
    ERROR,
    NAME,
    SERVER,
    World,
    client_hello,
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


class TestDialling:
    def test_an_unknown_name_is_an_error_and_no_deny(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.resolver.names.clear()
        client = world.connect(port)
        client.send(client_hello(NAME))
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(ERROR, Reason.RESOLVE_FAILED, "error")]
        assert world.counted(ALLOW, Reason.RULE) == 0

    def test_a_slow_answer_is_waited_for(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        world.resolver.slow.add(NAME)
        client = world.connect(port)
        client.send(client_hello(NAME))
        client.send(b"early")
        world.resolver.deliver()
        upstream = world.upstream(server)
        sent = client_hello(NAME) + b"early"
        assert len(upstream.recv_exactly(len(sent))) == len(sent)

    def test_nobody_listens(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        server.close()
        client = world.connect(port)
        client.send(client_hello(NAME))
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(ERROR, Reason.DIAL_FAILED, "error")]

    def test_the_next_address_when_one_refuses(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        world.resolver.names[NAME] = ("127.0.0.9", "127.0.0.10", SERVER)
        tunnel(world, port, server)
        assert [facts.dialled_ip for facts in world.flows()] == [SERVER]

    def test_the_next_address_while_one_is_silent(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        silent_server(world, "127.0.0.9", port)
        world.resolver.names[NAME] = ("127.0.0.9", SERVER)
        client = world.connect(port)
        client.send(client_hello(NAME))
        world.pass_time(0.2)
        with pytest.raises(BlockingIOError):
            server.accept()
        world.pass_time(0.1)
        world.upstream(server)
        world.turn()
        assert [facts.dialled_ip for facts in world.flows()] == [SERVER]
        world.pass_time(20)  # no timer of the race is left
        assert [facts.stage for facts in world.flows()] == ["relay"]

    def test_a_race_won_by_the_last_after_failures_leaves_no_timer(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        world.resolver.names[NAME] = ("127.0.0.9", SERVER)
        tunnel(world, port, server)
        world.pass_time(20)
        assert [facts.stage for facts in world.flows()] == ["relay"]

    def test_timeouts_of_an_address_and_of_all(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        silent_server(world, "127.0.0.9", port)
        silent_server(world, "127.0.0.10", port)
        world.resolver.names[NAME] = ("127.0.0.9", "127.0.0.10")
        client = world.connect(port)
        client.send(client_hello(NAME))
        world.pass_time(4.9)
        assert world.engine.active == 1
        world.pass_time(0.2)
        assert world.engine.active == 1  # the second address began later
        world.pass_time(5)
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(ERROR, Reason.DIAL_TIMEOUT, "error")]

    def test_the_total_bounds_many_silent_addresses(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds, Settings(dial_total_timeout_s=1.0))
        addresses = tuple(f"127.0.0.{n}" for n in range(10, 18))
        for address in addresses:
            silent_server(world, address, port)
        world.resolver.names[NAME] = addresses
        client = world.connect(port)
        client.send(client_hello(NAME))
        for _ in range(11):
            world.pass_time(0.1)
        assert world.outcomes() == [(ERROR, Reason.DIAL_TIMEOUT, "error")]
        client.close()

    def test_a_policy_that_was_replaced_is_not_kept_alive(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        tunnel(world, port, server)
        memo = world.engine._dialler._choices
        assert memo
        world.engine.swap(ruleset(rule("again", NAME, ports=(f"tls:{port}",))))
        assert not memo

    def test_a_forbidden_address_is_a_deny(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.resolver.names[NAME] = ("169.254.169.254", "10.0.0.1")
        client = world.connect(port)
        client.send(client_hello(NAME))
        assert client.recv_all() == ACCESS_DENIED
        assert world.outcomes() == [(DENY, Reason.FORBIDDEN_ADDRESS, "refused")]
        assert world.records[0].rule == "good"
