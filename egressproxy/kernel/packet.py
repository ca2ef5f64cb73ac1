"""What a packet is, by its first bytes: IPv4 or IPv6 header, extension headers, ports.

Sources: RFC 791, RFC 8200 section 4, RFC 4302 (AH), RFC 9293, RFC 768, RFC 792, RFC 4443. The bytes
are cut at some length and chosen by whoever sent them: what is not there, or not the first
fragment, has no ports, and only a packet without a whole IP header is an error.
"""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Final, NamedTuple

from egressproxy.errors import KernelError
from egressproxy.kernel.destination import plain_address

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58

_WITH_PORTS: Final = frozenset({TCP, UDP, 33, 132, 136})  # DCCP, SCTP, UDP-Lite
_PORTS: Final = struct.Struct("!HH")
_IPV4_BYTES: Final = 20
_IPV6_BYTES: Final = 40
_FRAGMENT: Final = 44
_AH: Final = 51
# Next header and length in units of eight octets, first not counted (RFC 8200, RFC 7401, RFC 5533).
_EXTENSIONS: Final = frozenset({0, 43, 60, 135, 139, 140})
_MAX_EXTENSIONS: Final = 16
_NON_FIRST_IPV4: Final = 0x1FFF
_NON_FIRST_IPV6: Final = 0xFFF8


class Packet(NamedTuple):
    """Who to whom by which protocol (its IANA number); 0 where there are no ports or no ICMP."""

    src: str
    dst: str
    protocol: int
    src_port: int = 0
    dst_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0


def read_packet(data: bytes) -> Packet:
    """Read the start of a packet, from its IP header on.

    Raises:
        KernelError: code ``malformed``; no whole IPv4 or IPv6 header.
    """
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= _IPV4_BYTES and data[0] & 15 >= 5:
        protocol, at = data[9], (data[0] & 15) * 4
        if int.from_bytes(data[6:8]) & _NON_FIRST_IPV4:
            at = len(data)
        return _with_transport(AF_INET, data[12:16], data[16:20], protocol, data[at:])
    if version == 6 and len(data) >= _IPV6_BYTES:
        protocol, at = _walk(data)
        return _with_transport(AF_INET6, data[8:24], data[24:40], protocol, data[at:])
    raise KernelError(f"{len(data)} bytes are no IP packet", code="malformed")


def _walk(data: bytes) -> tuple[int, int]:
    """The protocol behind IPv6 extension headers, and where it begins; the end if not here."""
    protocol, at = data[6], _IPV6_BYTES
    for _ in range(_MAX_EXTENSIONS):
        if at + 8 > len(data):  # every extension header has eight octets or more
            break
        if protocol in _EXTENSIONS:
            size = (data[at + 1] + 1) * 8
        elif protocol == _AH:
            size = (data[at + 1] + 2) * 4
        elif protocol == _FRAGMENT:
            if int.from_bytes(data[at + 2 : at + 4]) & _NON_FIRST_IPV6:
                return data[at], len(data)
            size = 8
        else:
            break
        protocol, at = data[at], at + size
    return protocol, at


def _with_transport(family: int, src: bytes, dst: bytes, protocol: int, rest: bytes) -> Packet:
    ends = plain_address(inet_ntop(family, src)), plain_address(inet_ntop(family, dst)), protocol
    if protocol in _WITH_PORTS and len(rest) >= _PORTS.size:
        return Packet(*ends, *_PORTS.unpack_from(rest))
    if protocol in (ICMP, ICMPV6) and len(rest) >= 2:
        return Packet(*ends, icmp_type=rest[0], icmp_code=rest[1])
    return Packet(*ends)
