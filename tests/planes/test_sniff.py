"""First bytes: hellos in any split, bytes that are none, and silence."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.verdict import Reason
from egressproxy.wire.alert import ACCESS_DENIED
from tests.planes.world import (
    ALLOW,
    DENY,
    NAME,
    SERVER,
    World,
    client_hello,
    tls_world,
    tunnel,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planes.world import World

    Worlds = Callable[..., World]


def test_an_allowed_hello_is_replayed_exactly_and_relayed_both_ways(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    upstream.send(b"server says")
    assert client.recv() == b"server says"
    client.send(b"client says")
    assert upstream.recv() == b"client says"
    client.close()
    assert upstream.recv() == b""
    upstream.close()
    world.until(lambda: world.engine.active == 0)
    (record,) = world.records
    assert (record.action, record.reason, record.close_reason) == (
        ALLOW,
        Reason.RULE,
        "client_closed",
    )
    assert (record.name, record.rule, record.dialled_ip) == (NAME, "good", SERVER)
    assert record.bytes_up == len(client_hello(NAME)) + len(b"client says")
    assert record.bytes_down == len(b"server says")
    assert record.alpn == ("h2", "http/1.1")
    assert record.destination_match == "no"  # 127.0.0.1 is not the name's 127.0.0.2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("bad.example", Reason.DEFAULT_DENY, id="another name"),
        pytest.param("sub.good.example", Reason.DEFAULT_DENY, id="a name below"),
        pytest.param(None, Reason.NO_SNI, id="no name"),
        pytest.param("10.1.2.3", Reason.NO_SNI, id="OpenSSL sends no address as SNI"),
    ],
)
def test_a_denied_hello_gets_an_alert(worlds: Worlds, name: str | None, reason: Reason) -> None:
    world, port, _ = tls_world(worlds)
    client = world.connect(port)
    client.send(client_hello(name))
    assert client.recv_all() == ACCESS_DENIED
    assert world.outcomes() == [(DENY, reason, "refused")]
    client.close()
    world.until(lambda: world.engine.active == 0)


def test_a_hello_in_segments_of_one_byte_with_more_behind_it(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    sent = client_hello(NAME) + b"early data"
    client = world.connect(port)
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in sent:
        client.send(bytes([byte]))
    upstream = world.upstream(server)
    assert upstream.recv_exactly(len(sent)) == sent


def in_records(hello: bytes, first: int) -> bytes:
    """The same hello in two TLS records."""
    head, body = hello[:3], hello[5:]
    parts = (body[:first], body[first:])
    return b"".join(head + len(part).to_bytes(2, "big") + part for part in parts)


SMALL = client_hello("bad.example")
LARGE = client_hello("bad.example", tuple(f"protocol-{i:>04}" for i in range(90)))
SPLITS = {
    "whole": ([SMALL], False),
    "whole with early data behind it": ([SMALL + b"early"], False),
    "two segments": ([SMALL[:60], SMALL[60:]], True),
    "the last octet by itself": ([SMALL[:-1], SMALL[-1:]], True),
    "two records in one segment": ([in_records(SMALL, 50)], True),
    "a record of one octet": ([in_records(SMALL, 1)], True),
    "two records in two segments": ([in_records(SMALL, 50)[:55], in_records(SMALL, 50)[55:]], True),
    "large, in two segments as it must be": ([LARGE[:1400], LARGE[1400:]], False),
    "large, in two records": ([in_records(LARGE, 700)], False),
}


@pytest.mark.parametrize("case", SPLITS)
def test_a_small_hello_in_more_pieces_than_it_needs_is_noted(worlds: Worlds, case: str) -> None:
    parts, is_split = SPLITS[case]
    world, port, _ = tls_world(worlds)
    client = world.connect(port)
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for part in parts:
        client.send(part)
        world.turn()
    assert client.recv_all() == ACCESS_DENIED
    (record,) = world.records
    assert (record.name, record.reason) == ("bad.example", Reason.DEFAULT_DENY)
    assert record.hello_split is is_split


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(
            b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", Reason.MALFORMED_HELLO, id="no hello"
        ),
        pytest.param(b"\x16\x02\x01", Reason.MALFORMED_HELLO, id="version"),
        pytest.param(
            b"\x16\x03\x01\x40\x00\x01\x7f\xff\xff" + bytes(100), Reason.HELLO_TOO_LARGE, id="size"
        ),
    ],
)
def test_bytes_that_never_become_a_hello(worlds: Worlds, data: bytes, reason: Reason) -> None:
    world, port, _ = tls_world(worlds)
    client = world.connect(port)
    client.send(data)
    assert client.recv_all() == ACCESS_DENIED
    assert world.outcomes() == [(DENY, reason, "refused")]
    assert world.records[0].protocol == "tls"


def test_a_hello_that_is_too_slow(worlds: Worlds) -> None:
    world, port, _ = tls_world(worlds)
    client = world.connect(port)
    client.send(client_hello(NAME)[:100])
    world.pass_time(4.9)
    assert client.is_silent()
    client.send(client_hello(NAME)[100:101])
    world.pass_time(0.2)
    assert client.recv_all() == ACCESS_DENIED
    assert world.outcomes() == [(DENY, Reason.HELLO_TIMEOUT, "refused")]


def test_a_client_that_says_nothing(worlds: Worlds) -> None:
    world, port, _ = tls_world(worlds)
    client = world.connect(port)
    world.pass_time(5.1)
    with pytest.raises(ConnectionResetError):
        client.recv()
    assert world.outcomes() == [(DENY, Reason.HELLO_TIMEOUT, "refused")]
