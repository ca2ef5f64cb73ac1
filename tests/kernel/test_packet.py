"""Packets with everything before the ports that IP allows, cut anywhere, and nonsense."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from egressproxy.errors import KernelError
from egressproxy.kernel.packet import ICMP, ICMPV6, TCP, UDP, Packet, read_packet

A4, B4 = "10.240.0.4", "20.1.2.3"
A6, B6 = "fd00:1::4", "2603:1030::5"
PORTS = struct.pack("!HH", 50123, 443)


def ipv4(protocol: int, rest: bytes, *, options: bytes = b"", fragment: int = 0) -> bytes:
    first = 0x40 | (5 + len(options) // 4)
    size = 20 + len(options) + len(rest)
    head = struct.pack("!BBHHHBBH", first, 0, size, 7, fragment, 63, protocol, 0)
    return head + socket.inet_aton(A4) + socket.inet_aton(B4) + options + rest


def ipv6(protocol: int, rest: bytes) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, A6) + socket.inet_pton(socket.AF_INET6, B6)
    return struct.pack("!IHBB", 6 << 28, len(rest), protocol, 63) + ends + rest


def extension(following: int, octets: int = 8) -> bytes:
    return bytes([following, octets // 8 - 1]).ljust(octets, b"\xee")


def fragment(following: int, offset: int = 0) -> bytes:
    return struct.pack("!BBHI", following, 0, offset << 3 | 1, 9)


def authentication(following: int, octets: int = 16) -> bytes:
    return bytes([following, octets // 4 - 2]).ljust(octets, b"\xee")


def four(protocol: int, *more: int) -> Packet:
    return Packet(A4, B4, protocol, *more)


def six(protocol: int, *more: int) -> Packet:
    return Packet(A6, B6, protocol, *more)


READ = {
    "tcp": (ipv4(TCP, PORTS + bytes(16)), four(TCP, 50123, 443)),
    "udp": (ipv4(UDP, PORTS), four(UDP, 50123, 443)),
    "sctp": (ipv4(132, PORTS), four(132, 50123, 443)),
    "with options": (ipv4(TCP, PORTS, options=bytes(40)), four(TCP, 50123, 443)),
    "icmp echo": (ipv4(ICMP, b"\x08\x00"), four(ICMP, 0, 0, 8, 0)),
    "icmp unreachable": (ipv4(ICMP, b"\x03\x04"), four(ICMP, 0, 0, 3, 4)),
    "no ports in gre": (ipv4(47, PORTS), four(47)),
    "ports cut off": (ipv4(TCP, PORTS[:3]), four(TCP)),
    "options cut off": (ipv4(TCP, b"", options=bytes(40))[:30], four(TCP)),
    "first fragment": (ipv4(UDP, PORTS, fragment=0x2000), four(UDP, 50123, 443)),
    "later fragment": (ipv4(UDP, PORTS, fragment=1), four(UDP)),
    "last fragment": (ipv4(UDP, PORTS, fragment=0x1FFF), four(UDP)),
    "tcp, v6": (ipv6(TCP, PORTS), six(TCP, 50123, 443)),
    "icmpv6": (ipv6(ICMPV6, b"\x80\x00"), six(ICMPV6, 0, 0, 128, 0)),
    "no next header": (ipv6(59, PORTS), six(59)),
    "esp": (ipv6(50, PORTS), six(50)),
    "hop by hop": (ipv6(0, extension(UDP, 24) + PORTS), six(UDP, 50123, 443)),
    "a chain": (
        ipv6(0, extension(43) + extension(60, 40) + extension(TCP) + PORTS),
        six(TCP, 50123, 443),
    ),
    "authenticated": (ipv6(51, authentication(TCP, 24) + PORTS), six(TCP, 50123, 443)),
    "first fragment, v6": (ipv6(44, fragment(UDP) + PORTS), six(UDP, 50123, 443)),
    "later fragment, v6": (ipv6(44, fragment(UDP, 185) + PORTS), six(UDP)),
    "extension cut off": (ipv6(0, extension(TCP)[:7]), six(0)),
    "extension longer than the packet": (ipv6(60, b"\x06\xff" + bytes(30)), six(TCP)),
    "extensions without end": (ipv6(60, extension(60) * 40), six(60)),
}


@pytest.mark.parametrize(("data", "expected"), READ.values(), ids=READ)
def test_read(data: bytes, expected: Packet) -> None:
    assert read_packet(data) == expected


NO_PACKETS = {
    "nothing": b"",
    "a short header": ipv4(TCP, b"")[:19],
    "a short header, v6": ipv6(TCP, b"")[:39],
    "a header that says it is shorter": b"\x44" + ipv4(TCP, PORTS)[1:],
    "no version": bytes(60),
    "version 5": b"\x55" * 60,
}


@pytest.mark.parametrize("data", NO_PACKETS.values(), ids=NO_PACKETS)
def test_no_packet(data: bytes) -> None:
    with pytest.raises(KernelError) as caught:
        read_packet(data)
    assert caught.value.code == "malformed"


def test_a_mapped_address_is_the_ipv4_address_it_means() -> None:
    mapped = socket.inet_pton(socket.AF_INET6, "::ffff:10.0.0.1")
    data = ipv6(TCP, PORTS)
    assert read_packet(data[:8] + mapped + data[24:]).src == "10.0.0.1"


@given(st.sampled_from(sorted(READ)), st.integers(0, 120), st.binary(max_size=80))
def test_cut_and_followed_by_garbage(case: str, length: int, garbage: bytes) -> None:
    data = READ[case][0][:length] + garbage
    try:
        packet = read_packet(data)
    except KernelError:
        return
    assert 0 <= packet.src_port <= 65535
    assert 0 <= packet.dst_port <= 65535
    assert 0 <= packet.protocol <= 255


@given(st.binary(max_size=200))
@example(b"\x60" + b"\0" * 59)
def test_garbage(data: bytes) -> None:
    with suppress(KernelError):
        read_packet(data)
