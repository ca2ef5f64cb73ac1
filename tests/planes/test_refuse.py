"""How a denied client is told, and for how long it is listened to."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.rules import Refusal
from egressproxy.policy.verdict import Reason
from egressproxy.wire.alert import ACCESS_DENIED
from tests.planes.world import (
    DENY,
    World,
    client_hello,
    tls_world,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planes.world import World

    Worlds = Callable[..., World]


class TestRefusal:
    def test_reset(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.obey(refusal=Refusal.RESET)
        client = world.connect(port)
        client.send(client_hello("bad.example"))
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.DEFAULT_DENY, "refused")]

    def test_drop_is_silence_until_the_hello_timeout(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.obey(refusal=Refusal.DROP)
        client = world.connect(port)
        client.send(client_hello("bad.example"))
        world.pass_time(4.9)
        assert client.is_silent()
        world.pass_time(0.2)
        with pytest.raises(ConnectionResetError):
            client.recv()


def test_a_client_that_waits_for_an_answer_costs_no_second_event(worlds: Worlds) -> None:
    world, port, _ = tls_world(worlds)
    client = world.connect(port)
    client.send(client_hello("bad.example"))
    assert world.engine.active == 0
    assert client.recv_all() == ACCESS_DENIED
    assert world.outcomes() == [(DENY, Reason.DEFAULT_DENY, "refused")]


def test_an_alert_that_came_before_a_reset_is_read(worlds: Worlds) -> None:
    """What a client sends into the closed socket is answered by a RST, which destroys nothing."""
    world, port, _ = tls_world(worlds)
    client = world.connect(port)
    client.send(client_hello("bad.example"))
    client.send(b"early data")
    with contextlib.suppress(OSError):
        client.send(b"and more")
    assert client.recv() == ACCESS_DENIED


def test_a_hello_in_pieces_is_refused_at_once_too(worlds: Worlds) -> None:
    world, port, _ = tls_world(worlds)
    client = world.connect(port)
    hello = client_hello("bad.example")
    client.send(hello[:100])
    client.send(hello[100:])
    assert world.engine.active == 0
    assert client.recv_all() == ACCESS_DENIED


def test_a_refused_client_that_goes_on_sending_is_drained_for_a_second(worlds: Worlds) -> None:
    world, port, _ = tls_world(worlds)
    client = world.connect(port)
    client.send(client_hello("bad.example") + b"early data")
    for _ in range(10):
        client.send(b"more")
    assert client.recv_all() == ACCESS_DENIED
    assert world.engine.active == 1
    world.pass_time(1.1)
    assert world.engine.active == 0


def test_a_refused_client_that_floods_is_drained_of_a_megabyte(worlds: Worlds) -> None:
    world, port, _ = tls_world(worlds)
    client = world.connect(port)
    client.send(client_hello("bad.example") + b"early data")
    client.sock.setblocking(True)

    def flood() -> None:
        with contextlib.suppress(OSError):
            client.sock.sendall(bytes(8 << 20))

    flooder = threading.Thread(target=flood)
    flooder.start()
    world.until(lambda: world.engine.active == 0)
    flooder.join()
