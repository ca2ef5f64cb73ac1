"""The relay: half-close, resets, backpressure, bulk."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.verdict import Reason
from tests.planes.world import (
    ALLOW,
    NAME,
    World,
    client_hello,
    tls_world,
    tunnel,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planes.world import World

    Worlds = Callable[..., World]


def test_half_close_passes_through_and_the_other_direction_goes_on(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    client.send(b"question")
    client.finish()
    assert upstream.recv_exactly(8) == b"question"
    assert upstream.recv() == b""
    for _ in range(3):
        upstream.send(b"answer")
        assert client.recv_exactly(6) == b"answer"
    upstream.finish()
    assert client.recv() == b""
    assert world.engine.active == 0
    assert world.outcomes() == [(ALLOW, Reason.RULE, "client_closed")]


def test_half_close_by_the_server_first(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    upstream.send(b"all I say")
    upstream.finish()
    assert client.recv_exactly(9) == b"all I say"
    assert client.recv() == b""
    client.send(b"thanks")
    assert upstream.recv_exactly(6) == b"thanks"
    client.finish()
    assert upstream.recv() == b""
    assert world.outcomes() == [(ALLOW, Reason.RULE, "upstream_closed")]


def test_a_client_that_half_closes_with_its_hello_still_gets_the_answer(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    hello = client_hello(NAME)
    client = world.connect(port)
    client.sock.send(hello)
    client.finish()
    upstream = world.upstream(server)
    assert upstream.recv_exactly(len(hello)) == hello
    assert upstream.recv() == b""
    upstream.send(b"answer")
    assert client.recv_exactly(6) == b"answer"
    upstream.close()
    assert client.recv() == b""


def test_a_reset_is_passed_on_as_a_reset_to_the_server(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    client.reset()
    with pytest.raises(ConnectionResetError):
        upstream.recv()
    assert world.outcomes() == [(ALLOW, Reason.RULE, "client_reset")]


def test_a_reset_is_passed_on_as_a_reset_to_the_client(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    upstream.reset()
    with pytest.raises(ConnectionResetError):
        client.recv()
    assert world.outcomes() == [(ALLOW, Reason.RULE, "upstream_reset")]


def test_what_came_before_a_reset_is_delivered(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    upstream.sock.send(b"last words")
    upstream.reset()
    assert client.recv_exactly(10) == b"last words"
    with pytest.raises(ConnectionResetError):
        client.recv()


def test_an_answer_survives_a_server_that_reads_no_more(worlds: Worlds) -> None:
    """A server that answers early and closes with unread bytes resets (HTTP 413): its answer is
    still the client's, although our next send to the server fails."""
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    client.sock.send(b"x" * 1000)
    world.turn()
    upstream.sock.send(b"too large")
    upstream.sock.close()  # with 1000 bytes unread: RST
    client.sock.send(b"y" * 1000)
    assert client.recv_exactly(9) == b"too large"
    with pytest.raises(ConnectionResetError):
        client.recv()


@pytest.mark.parametrize("upwards", [True, False], ids=["up", "down"])
def test_fifty_megabytes_to_a_slow_reader_arrive_exactly(worlds: Worlds, upwards: bool) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    source, sink = (client, upstream) if upwards else (upstream, client)
    data = os.urandom(1 << 20) * 50
    source.sock.setblocking(True)

    def feed() -> None:
        source.sock.sendall(data)
        source.sock.shutdown(socket.SHUT_WR)

    feeder = threading.Thread(target=feed)
    feeder.start()
    received = bytearray()
    steps = 0
    while piece := sink.recv(1 << 20 if steps % 7 else 100):
        received += piece
        steps += 1
    feeder.join()
    assert bytes(received) == data
    sink.finish()
    world.until(lambda: world.engine.active == 0)
    record = world.records[-1]
    moved = record.bytes_up - len(client_hello(NAME)) if upwards else record.bytes_down
    assert moved == len(data)


def test_a_reader_that_never_reads_stops_the_sender_and_costs_a_bounded_amount(
    worlds: Worlds,
) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    sent = 0
    for _ in range(10_000):
        try:
            sent += upstream.sock.send(b"z" * 65536)
        except BlockingIOError:
            world.turn()
            try:
                sent += upstream.sock.send(b"z" * 65536)
            except BlockingIOError:
                break
    else:
        pytest.fail("the sender is never stopped")
    client.send(b"the other way is open")
    assert upstream.recv() == b"the other way is open"
    got = 0
    upstream.sock.shutdown(socket.SHUT_WR)
    while piece := client.recv(1 << 20):
        got += len(piece)
    assert got == sent


def test_bulk_without_pipes_is_copied(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    world.engine._reactor.pipes._limit = 0
    client, upstream = tunnel(world, port, server)
    data = os.urandom(3_000_000)
    upstream.sock.setblocking(True)
    feeder = threading.Thread(target=lambda: upstream.sock.sendall(data))
    feeder.start()
    assert client.recv_exactly(len(data)) == data
    feeder.join()


def test_pipes_are_given_back(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    upstream.sock.setblocking(True)
    feeder = threading.Thread(target=lambda: upstream.sock.sendall(bytes(2_000_000)))
    feeder.start()
    client.recv_exactly(2_000_000)
    feeder.join()
    world.pass_time(20)
    assert world.engine._reactor.pipes.lent == 0
