"""Packets that no honest client sends, made octet by octet, with a tag to know them again.

Sources: RFC 791 (options, fragments), RFC 8200 (extension headers), RFC 5095 and RFC 8754 (routing
headers), RFC 792 and RFC 4443 (ICMP).
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Final

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION = 0, 43, 44, 51, 60
SPORT: Final = 40_000
_TTL: Final = 64


def ip(
    src: str,
    dst: str,
    protocol: int,
    body: bytes,
    *,
    options: bytes = b"",
    fragment: int = 0,
    more: bool = False,
    ident: int = 0,
) -> bytes:
    """An IP packet; ``fragment`` is its offset in octets, ``options`` are IPv4's."""
    ends = ip_address(src).packed + ip_address(dst).packed
    if ":" in dst:
        if fragment or more:
            place = fragment | more
            body = struct.pack("!BBHI", protocol, 0, place, ident) + body
            protocol = FRAGMENT
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, _TTL) + ends + body
    options += bytes(-len(options) % 4)
    words = 5 + len(options) // 4
    place = more << 13 | fragment // 8
    size = 4 * words + len(body)
    head = struct.pack("!BBHHHBBH", 4 << 4 | words, 0, size, ident, place, _TTL, protocol, 0)
    head += ends + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def udp(src: str, dst: str, port: int, data: bytes, *, sport: int = SPORT) -> bytes:
    """A UDP datagram without its IP header."""
    return _summed(src, dst, UDP, struct.pack("!HHHH", sport, port, 8 + len(data), 0) + data, 6)


def tcp(src: str, dst: str, port: int, data: bytes, *, flags: int, sport: int = SPORT) -> bytes:
    """A TCP segment without its IP header."""
    head = struct.pack("!HHIIBBHHH", sport, port, 7, 7, 5 << 4, flags, 4096, 0, 0)
    return _summed(src, dst, TCP, head + data, 16)


def icmp(src: str, dst: str, kind: int, code: int, rest: bytes) -> bytes:
    """An ICMP message of either version; ``rest`` begins at its fifth octet."""
    protocol = ICMPV6 if ":" in dst else ICMP
    return _summed(src, dst, protocol, struct.pack("!BBH", kind, code, 0) + rest, 2)


def options(following: int, kind: int = 1) -> bytes:
    """A hop-by-hop or destination options header with one option (PadN)."""
    return struct.pack("!BBBB4x", following, 0, kind, 4)


def routing(following: int, kind: int, *segments: str) -> bytes:
    """A routing header that has all its segments before it."""
    count = len(segments)
    last = count - 1 if kind == 4 else 0  # segment routing says its last entry
    head = struct.pack("!BBBBBBH", following, 2 * count, kind, count, last, 0, 0)
    return head + b"".join(ip_address(each).packed for each in segments)


def authentication(following: int) -> bytes:
    """An AH header; nobody has its key."""
    return struct.pack("!BBHII", following, 2, 0, 0x100, 1) + bytes(4)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _summed(src: str, dst: str, protocol: int, body: bytes, place: int) -> bytes:
    pseudo = b""
    if protocol != ICMP:
        ends = ip_address(src).packed + ip_address(dst).packed
        pseudo = ends + struct.pack("!II", len(body), protocol)
    return body[:place] + struct.pack("!H", checksum(pseudo + body)) + body[place + 2 :]
