"""Bulk is fetched by the clock: nothing is lost, late or left running by it."""

from __future__ import annotations

import os
import random
import select
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from egressproxy.kernel.timer import Beat
from egressproxy.planes.flow import Watched
from egressproxy.planes.pace import LOW_WATER
from egressproxy.planes.reactor import nothing
from tests.planes.world import World, tls_world, tunnel

if TYPE_CHECKING:
    from collections.abc import Callable

    from egressproxy.planes.pace import Pace
    from tests.planes.world import Peer

    Worlds = Callable[..., World]


def pace_of(world: World) -> Pace:
    return world.engine._relay._pace


def is_beating(pace: Pace) -> bool:
    return bool(select.select([pace._beat.fd], [], [], 0.02)[0])


def pour(peer: Peer, data: bytes) -> threading.Thread:
    """Send in the background without an end."""
    peer.sock.setblocking(True)
    feeder = threading.Thread(target=peer.sock.sendall, args=(data,))
    feeder.start()
    return feeder


def paced(world: World, sender: Peer, reader: Peer) -> Pace:
    """A tunnel in which ``sender``'s direction is fetched by the clock."""
    pace = pace_of(world)
    for _ in range(200):
        feeder = pour(sender, bytes(4_000_000))
        reader.recv_exactly(3_900_000)
        is_paced = bool(pace._legs)
        reader.recv_exactly(100_000)
        feeder.join()
        if is_paced:
            return pace
    pytest.fail("bulk was never paced")


def test_a_stream_that_pauses_without_an_end_arrives_whole(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    for size in (3_000_000, 70_000, 1, 3_000_001, 65_536):
        data = os.urandom(size)
        feeder = pour(upstream, data)
        assert client.recv_exactly(size) == data
        feeder.join()


@pytest.mark.parametrize("window", [32_768, 262_144], ids="a window of {}".format)
def test_a_stream_does_not_need_the_clock_while_it_flows(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """A sender that has filled the receive window is heard: else each window takes a beat.

    Now and then what is left of a window is less than one of loopback's 64 KiB segments and more
    than nothing; then the clock has to do it, and this test is the clock.
    """
    monkeypatch.setattr(Beat, "start", lambda _: None)
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    (flow,) = world.engine._flows.open()
    assert flow.upstream is not None
    flow.upstream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    feeder = pour(upstream, bytes(40_000_000))
    left, beats = 40_000_000, 0
    while left:
        world.turn()
        if select.select([client.sock.fileno(), world.engine.fileno()], [], [], 0.2)[0]:
            with suppress(BlockingIOError):
                left -= len(client.sock.recv(1 << 20))
        else:
            beats += 1
            pace_of(world)._on_beat(Watched(-1, nothing), 0)
    feeder.join()
    assert beats < 40_000_000 / max(window, LOW_WATER) / 4


def test_small_moves_do_not_wait_for_a_beat(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    bulk = tunnel(world, port, server)
    pace = paced(world, bulk[1], bulk[0])
    client, upstream = tunnel(world, port, server)
    for number in range(50):
        client.sock.sendall(b"%05d" % number)
        assert upstream.recv_exactly(5) == b"%05d" % number
    world.until(lambda: not pace._legs)


def test_the_clock_stops_when_bulk_does(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    pace = paced(world, upstream, client)
    world.until(lambda: not pace._legs)
    assert not is_beating(pace)
    upstream.sock.sendall(b"small again")
    assert client.recv_exactly(11) == b"small again"
    assert not pace._legs


@pytest.mark.parametrize("ends", ["client", "upstream"])
def test_a_flow_that_ends_is_not_looked_at_again(worlds: Worlds, ends: str) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    pace = paced(world, upstream, client)
    (client if ends == "client" else upstream).reset()
    world.until(lambda: not world.engine.active and not pace._legs)
    assert not is_beating(pace)


def test_a_reader_that_stops_reading_does_not_keep_the_clock_running(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    sent = 0
    while sent < 200_000_000:
        try:
            sent += upstream.sock.send(bytes(1 << 20))
        except BlockingIOError:
            world.turn()
            if not select.select([], [upstream.sock], [], 0.05)[1]:
                break
    pace = pace_of(world)
    world.until(lambda: not pace._legs)
    assert not is_beating(pace)
    upstream.sock.shutdown(socket.SHUT_WR)
    got = 0
    while piece := client.recv(1 << 20):
        got += len(piece)
    assert got == sent


def feed(peer: Peer, pieces: list[bytes]) -> None:
    left = memoryview(b"".join(pieces))
    while left:
        select.select([], [peer.sock], [])
        left = left[peer.sock.send(left[: 1 << 20]) :]
    peer.sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("seed", range(6))
def test_both_ways_in_pieces_of_any_size(worlds: Worlds, seed: int) -> None:
    """Small moves, full buffers and bulk follow one another in both directions at once."""
    chance = random.Random(seed)
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    sizes = (1, 100, 16_384, 65_535, 65_536, 65_537, 1 << 20, 3 << 20)
    ways = []
    for source, sink in ((client, upstream), (upstream, client)):
        pieces = [chance.randbytes(chance.choice(sizes)) for _ in range(20)]
        ways.append((source, sink, pieces, bytearray()))
        source.sock.setblocking(False)

    feeders = [threading.Thread(target=feed, args=way[::2]) for way in ways]
    for feeder in feeders:
        feeder.start()
    pending = list(ways)
    while pending:
        world.turn(1)
        for way in list(pending):
            _, sink, _, got = way
            try:
                piece = sink.sock.recv(chance.choice(sizes))
            except BlockingIOError:
                continue
            got += piece
            if not piece:
                pending.remove(way)
    for feeder in feeders:
        feeder.join()
    for _, _, pieces, got in ways:
        assert bytes(got) == b"".join(pieces)
    world.until(lambda: world.engine.active == 0)
    world.until(lambda: not pace_of(world)._legs)
