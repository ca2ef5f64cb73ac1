"""What is done after a batch: in its order, all of it, before anything is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.planes.http_commands import CloseReason
from egressproxy.policy.verdict import Reason
from tests.planes.world import (
    NAME,
    SERVER,
    client_hello,
    tls_world,
    tunnel,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from egressproxy.planes.flow import Leg
    from tests.planes.world import World

    Worlds = Callable[..., World]


def open_leg(worlds: Worlds) -> tuple[World, Leg]:
    """The client's leg of an open flow, in its world."""
    world, port, server = tls_world(worlds)
    tunnel(world, port, server)
    (flow,) = world.engine._flows.open()
    return world, flow.client


def test_acts_are_done_in_their_order(worlds: Worlds) -> None:
    world, leg = open_leg(worlds)
    reactor = world.engine._reactor
    done: list[str] = []
    reactor.afterwards(leg, lambda _: done.append("first"))
    reactor.afterwards(leg, lambda _: done.append("second"))
    assert done == []
    reactor.settle()
    assert done == ["first", "second"]
    reactor.settle()
    assert done == ["first", "second"], "each is done once"


def test_an_act_that_asks_for_another_has_it_in_the_same_batch(worlds: Worlds) -> None:
    world, leg = open_leg(worlds)
    reactor = world.engine._reactor
    done: list[str] = []
    reactor.afterwards(leg, lambda one: reactor.afterwards(one, lambda _: done.append("asked")))
    reactor.settle()
    assert done == ["asked"]


def test_acts_are_done_before_sockets_are_closed(worlds: Worlds) -> None:
    world, leg = open_leg(worlds)
    reactor = world.engine._reactor
    seen: list[int] = []
    sock = leg.sock
    reactor.afterwards(leg, lambda _: seen.append(sock.fileno()))
    world.engine._flows.end(leg.flow, CloseReason.DRAINED)
    reactor.settle()
    assert len(seen) == 1
    assert seen[0] >= 0
    assert sock.fileno() == -1


def test_a_defect_costs_one_flow_and_not_the_acts_after_it(
    worlds: Worlds, caplog: pytest.LogCaptureFixture
) -> None:
    world, leg = open_leg(worlds)
    reactor = world.engine._reactor
    done: list[str] = []

    def defect(_: object) -> None:
        raise ZeroDivisionError

    reactor.afterwards(leg, defect)
    reactor.afterwards(leg, lambda _: done.append("the next"))
    reactor.settle()
    assert done == ["the next"]
    assert world.engine.active == 0
    assert [record.reason for record in world.records][-1] is Reason.INTERNAL_ERROR
    assert "a flow is closed because of a defect" in caplog.text
    caplog.clear()


def test_a_dial_that_is_given_up_within_the_batch_is_not_begun(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    world.resolver.names[NAME] = ("127.0.0.9", SERVER)  # nobody listens at the first
    world.resolver.slow.add(NAME)
    client = world.connect(port)
    client.send(client_hello(NAME))
    world.resolver.deliver()  # dials; the kernel refuses at once, and tells in the next batch
    client.reset()  # told in the same batch, after the refusal that makes the second address due
    world.until(lambda: world.engine.active == 0)
    assert [record.close_reason for record in world.records] == ["client_reset"]
    with pytest.raises(BlockingIOError):
        server.accept()
