"""Packets made by hand, put on a wire, and looked for on its far side."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from itertools import count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.namespaces import Namespace

SYN: Final = 0x02
ACK: Final = 0x10
_ETHERTYPE: Final = {4: 0x0800, 6: 0x86DD}
_ALL: Final = 0x0003  # ETH_P_ALL
_HOST: Final = 0  # PACKET_HOST: a bridge floods others, and a tap sees what its host sends
_TAG: Final = b"egressproxy-tap-"
_FIRST: Final = 16
_TIMEOUT_S: Final = 10.0
_SERIAL: Final = count(1)
_PORTS: Final = count()


class Kind(StrEnum):
    """What a packet is; all but the last carry one whole transport header."""

    TCP_SYN = "tcp-syn"
    TCP_ACK = "tcp-ack"
    UDP = "udp"
    UDP_BEHIND_OPTIONS = "udp-behind-options"
    """IPv6: a destination options header comes first. IPv4: an option in the header."""
    ECHO = "echo"
    SCTP = "sctp"
    GRE = "gre"
    UDP_IN_FRAGMENTS = "udp-in-fragments"
    """Two: the first ends 8 octets after the UDP header."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One packet; ``tag`` is in its payload, so that a tap knows it again behind any NAT."""

    kind: Kind
    src: str
    dst: str
    port: int

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.src else 4

    @property
    def is_tcp(self) -> bool:
        """With a TCP header."""
        return self.kind in (Kind.TCP_SYN, Kind.TCP_ACK)

    @property
    def is_udp(self) -> bool:
        """With a UDP header."""
        return self.kind in (Kind.UDP, Kind.UDP_BEHIND_OPTIONS, Kind.UDP_IN_FRAGMENTS)

    def packets(self, tag: bytes) -> list[bytes]:
        """The IP packets (more than one for fragments) with ``tag`` as payload."""
        sport = 20_000 + next(_PORTS) % 40_000
        make = {4: _ipv4, 6: _ipv6}[self.version]
        if self.is_tcp:
            flags = SYN if self.kind is Kind.TCP_SYN else ACK
            head = struct.pack("!HHIIBBHHH", sport, self.port, 7, 0, 5 << 4, flags, 4096, 0, 0)
            return [make(self, 6, _summed(self, 6, head + tag, 16))]
        if self.is_udp:
            text = bytes(_FIRST - 8) + tag  # whole in the second fragment, where there are two
            head = struct.pack("!HHHH", sport, self.port, 8 + len(text), 0)
            body = _summed(self, 17, head + text, 6)
            if self.kind is Kind.UDP_IN_FRAGMENTS:
                return _fragments(self, body)
            return [make(self, 17, body, options=self.kind is Kind.UDP_BEHIND_OPTIONS)]
        if self.kind is Kind.ECHO:
            kind, protocol = {4: (8, 1), 6: (128, 58)}[self.version]
            body = struct.pack("!BBHHH", kind, 0, 0, sport, 1) + tag
            return [make(self, protocol, _summed(self, protocol, body, 2))]
        if (
            self.kind is Kind.SCTP
        ):  # an INIT without a right checksum, which conntrack calls invalid
            return [make(self, 132, struct.pack("!HHII", sport, self.port, 0, 0) + tag)]
        return [make(self, 47, struct.pack("!HH", 0, 0x0800) + tag)]


def _summed(sent: Sent, protocol: int, body: bytes, place: int) -> bytes:
    """The body with its checksum in place (ICMP for IPv4 has no pseudo header)."""
    pseudo = b""
    if protocol != 1:
        ends = ip_address(sent.src).packed + ip_address(sent.dst).packed
        pseudo = ends + struct.pack("!II", len(body), protocol)
    value = _checksum(pseudo + body)
    return body[:place] + struct.pack("!H", value) + body[place + 2 :]


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ipv4(
    sent: Sent,
    protocol: int,
    body: bytes,
    *,
    options: bool = False,
    fragment: int = 0,
    ident: int = 0,
) -> bytes:
    words = b"\x94\x04\0\0" if options else b""  # router alert, RFC 2113
    length = 20 + len(words)
    head = struct.pack(
        "!BBHHHBBH",
        4 << 4 | length // 4,
        0,
        length + len(body),
        ident,
        fragment,
        64,
        protocol,
        0,
    )
    head += ip_address(sent.src).packed + ip_address(sent.dst).packed + words
    value = _checksum(head)
    return head[:10] + struct.pack("!H", value) + head[12:] + body


def _ipv6(sent: Sent, protocol: int, body: bytes, *, options: bool = False) -> bytes:
    if options:
        body = struct.pack("!BBBB4x", protocol, 0, 1, 4) + body  # PadN
        protocol = 60
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
    return head + ip_address(sent.src).packed + ip_address(sent.dst).packed + body


def _fragments(sent: Sent, body: bytes) -> list[bytes]:
    """Two of them: the UDP header with a little behind it, and the rest."""
    ident = next(_SERIAL)
    parts = ((0, body[:_FIRST], 1), (_FIRST // 8, body[_FIRST:], 0))
    if sent.version == 4:
        return [
            _ipv4(sent, 17, part, fragment=more << 13 | offset, ident=ident & 0xFFFF)
            for offset, part, more in parts
        ]
    return [
        _ipv6(sent, 44, struct.pack("!BBHI", 17, 0, offset << 3 | more, ident) + part)
        for offset, part, more in parts
    ]


class Wire:
    """Puts packets on the client's card, for a gateway, and sees what the server's card gets."""

    def __init__(self, client: Namespace, gateway_mac: str, server: Namespace) -> None:
        self._near = packet_socket(client)
        self._far = packet_socket(server)
        self._far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._to = bytes.fromhex(gateway_mac.replace(":", ""))

    def close(self) -> None:
        """Close both sockets."""
        self._near.close()
        self._far.close()

    def arrivals(self, packets: list[Sent], last: Sent) -> list[bool]:
        """Which of them arrive; ``last`` is sent after them and must arrive.

        The packets of one wire keep their order while they are sent and forwarded by one CPU, so
        what is not there before ``last`` will not come.
        """
        tags = [_TAG + b"%016d" % next(_SERIAL) for _ in range(len(packets) + 1)]
        with _one_cpu():
            for sent, tag in zip([*packets, last], tags, strict=True):
                for packet in sent.packets(tag):
                    kind = struct.pack("!H", _ETHERTYPE[sent.version])
                    self._near.send(self._to + b"\x02\0\0\0\0\1" + kind + packet)
        seen = self._seen_until(tags[-1])
        return [tag in seen for tag in tags[:-1]]

    def _seen_until(self, tag: bytes) -> set[bytes]:
        seen: set[bytes] = set()
        while tag not in seen:
            frame, address = self._far.recvfrom(4096)
            if address[2] == _HOST and (place := frame.find(_TAG)) >= 0:
                seen.add(frame[place : place + len(tag)])
        return seen


def packet_socket(namespace: Namespace) -> socket.socket:
    """Sends and sees frames of a namespace's card."""
    with namespace.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        sock.bind(("eth0", _ALL))
    sock.settimeout(_TIMEOUT_S)
    return sock


@contextmanager
def _one_cpu() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
