"""Timeouts that every byte re-arms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.verdict import Reason
from tests.planes.world import (
    ALLOW,
    World,
    tls_world,
    tunnel,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planes.world import World

    Worlds = Callable[..., World]


def test_an_idle_tunnel_is_reset(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    world.pass_time(7000)
    client.send(b"still here")
    assert upstream.recv() == b"still here"
    world.pass_time(7000)
    assert world.engine.active == 1
    world.pass_time(300)
    for peer in (client, upstream):
        with pytest.raises(ConnectionResetError):
            peer.recv()
    assert world.outcomes() == [(ALLOW, Reason.RULE, "idle")]


def test_a_half_closed_tunnel_has_less_time(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    client.finish()
    assert upstream.recv() == b""
    world.pass_time(299)
    upstream.send(b"slow answer")
    assert client.recv() == b"slow answer"
    world.pass_time(299)
    assert world.engine.active == 1
    world.pass_time(16)
    assert world.outcomes() == [(ALLOW, Reason.RULE, "half_closed")]
