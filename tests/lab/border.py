"""The internet's side of the hub: every packet that comes there, and the law it is held against.

A packet is judged by its addresses and ports, by the policy that was in force when it came. What
the proxy dials is known by the addresses of the names that clients ask for.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from egressproxy.errors import KernelError
from egressproxy.kernel.kernel_policy import kernel_policy
from egressproxy.kernel.packet import ICMP, ICMPV6, TCP, UDP, Packet, read_packet
from egressproxy.names import DnsName
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.verdict import Flow
from egressproxy.ports import Protocol
from lab import sites

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.policy.rules import Policy
    from lab.namespaces import Namespace

SYN: Final = 0x02
ACK: Final = 0x10
_ALL: Final = 0x0003  # ETH_P_ALL
_IP: Final = frozenset({0x0800, 0x86DD})
_ARP: Final = 0x0806
_ETHERNET_BYTES: Final = 14
_SNAPLEN: Final = 256
_BUFFER_BYTES: Final = 64 << 20
_TIMESTAMP: Final = 35  # SO_TIMESTAMPNS, asm-generic/socket.h
_BUFFER_FORCE: Final = 33  # SO_RCVBUFFORCE
_PACKET: Final = 263  # SOL_PACKET
_STATISTICS, _IGNORE_OUTGOING = 6, 23  # linux/if_packet.h
_POLL_S: Final = 0.05
_PATIENCE_S: Final = 5.0
_NEIGHBOURS: Final = range(133, 138)
_MLD: Final = frozenset({130, 131, 132, 143})
_ERRORS: Final = {ICMP: frozenset({3, 11, 12}), ICMPV6: frozenset({1, 2, 3, 4})}
_ICMP_HEADER: Final = 8
_PROTOCOLS: Final = {TCP: Protocol.TCP, UDP: Protocol.UDP}


class Seen(NamedTuple):
    """A packet that reached the internet at ``time`` (POSIX seconds, the kernel's)."""

    time: float
    packet: Packet
    flags: int = 0
    """Of TCP."""
    payload: int = 0
    """Octets that TCP or UDP carries."""
    quoted: Packet | None = None
    """What an ICMP error is about."""

    @property
    def opens(self) -> bool:
        """Whether it could start something: all but the later packets of TCP."""
        return self.packet.protocol != TCP or self.flags & (SYN | ACK) == SYN

    def __str__(self) -> str:
        one = self.packet
        return (
            f"{self.time:.6f} protocol {one.protocol} {one.src} {one.src_port} > {one.dst}"
            f" {one.dst_port} flags {self.flags:#04x} icmp {one.icmp_type}/{one.icmp_code}"
            f" payload {self.payload} quoting {self.quoted}"
        )


@dataclass(slots=True)
class Capture:
    """What was seen so far; ``strange`` are frames that are neither IP nor ARP."""

    seen: list[Seen] = field(default_factory=list)
    strange: list[bytes] = field(default_factory=list)
    lost: int = 0

    def wait(self, what: str, wanted: Iterable[tuple[str, int]], *, skip: int = 0) -> None:
        """Wait until a packet to each address and port has come, after ``skip`` others.

        Raises:
            TimeoutError: one did not; ``what`` says what it would have been.
        """
        missing, done = set(wanted), skip
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            new = self.seen[done:]
            done += len(new)
            missing -= {(each.packet.dst, each.packet.dst_port) for each in new}
            if not missing:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: nothing to {sorted(missing)}")
            time.sleep(_POLL_S / 10)


@contextmanager
def capture(namespace: Namespace, link: str = "eth0") -> Iterator[Capture]:
    """See everything that comes in at a link until the block ends, and all that came until then."""
    with namespace.entered():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with tap:
        tap.setsockopt(_PACKET, _IGNORE_OUTGOING, 1)
        tap.setsockopt(socket.SOL_SOCKET, _BUFFER_FORCE, _BUFFER_BYTES)
        tap.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
        tap.settimeout(_POLL_S)
        tap.bind((link, _ALL))
        taken, ending = Capture(), threading.Event()
        reader = threading.Thread(target=_take, args=(tap, taken, ending), name="capture")
        reader.start()
        try:
            yield taken
        finally:
            ending.set()
            reader.join()
            taken.lost = struct.unpack("II", tap.getsockopt(_PACKET, _STATISTICS, 8))[1]


def _take(tap: socket.socket, taken: Capture, ending: threading.Event) -> None:
    while True:
        try:
            frame, ancillary, _, _ = tap.recvmsg(_SNAPLEN, 64)
        except TimeoutError:
            if ending.is_set():
                return
            continue
        ether_type = int.from_bytes(frame[12:14])
        if ether_type in _IP:
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            try:
                taken.seen.append(read(frame[_ETHERNET_BYTES:], seconds + nanoseconds / 1e9))
            except KernelError:
                taken.strange.append(frame)
        elif ether_type != _ARP:
            taken.strange.append(frame)


def read(data: bytes, at: float) -> Seen:
    """A packet from its IP header on.

    Raises:
        KernelError: it has no whole IP header.
    """
    packet = read_packet(data)
    is_ipv4 = data[0] >> 4 == 4
    start = (data[0] & 15) * 4 if is_ipv4 else 40
    length = int.from_bytes(data[2:4]) if is_ipv4 else 40 + int.from_bytes(data[4:6])
    if packet.protocol == TCP and len(data) >= start + 14:
        header = (data[start + 12] >> 4) * 4
        return Seen(at, packet, data[start + 13], length - start - header)
    if packet.icmp_type in _ERRORS.get(packet.protocol, ()):
        return Seen(at, packet, quoted=read_packet(data[start + _ICMP_HEADER :]))
    return Seen(at, packet, payload=length - start - 8)


class Law:
    """What a policy lets the internet see of a spoke.

    Args:
        policy: the policy.
        names: every name that a client asks for.
    """

    def __init__(self, policy: Policy, names: Iterable[str]) -> None:
        now = time.time()
        self._now = now
        self._ruleset = compile_policy(policy)
        self._ports = kernel_policy(policy, now).application_ports
        self._dialled = frozenset(
            (address, port)
            for port in self._ports
            for name in names
            if self._opens(name, port)
            for address in sites.addresses_of(name)
        )

    def _opens(self, name: str, port: int) -> bool:
        flow = Flow(Protocol.TLS, sites.SPOKE_NODE[0], port, DnsName(name))
        return self._ruleset.decide_application(flow, self._now).is_allow

    def allows(self, packet: Packet) -> bool:
        """Whether the kernel may have forwarded it, or the proxy have sent it."""
        return self.forwards(packet) or self.dials(packet)

    def dials(self, packet: Packet) -> bool:
        """Whether the proxy may have sent it."""
        return packet.protocol == TCP and (packet.dst, packet.dst_port) in self._dialled

    def answers(self, packet: Packet) -> bool:
        """Whether it is an answer to a client, of the proxy or of who is forwarded to."""
        is_proxys = packet.protocol == TCP and packet.src_port in self._ports
        return is_proxys or self.forwards(_back(packet))

    def forwards(self, packet: Packet) -> bool:
        """Whether the kernel may have forwarded it."""
        protocol = _PROTOCOLS.get(packet.protocol)
        if protocol is None:
            return False
        source = sites.SPOKE_NODE[":" in packet.dst]
        flow = Flow(protocol, source, packet.dst_port, None, packet.dst)
        verdict = self._ruleset.decide_network(flow, self._now)
        return verdict is not None and verdict.is_allow


@dataclass(slots=True)
class Border:
    """Which laws hold when: every moment has one, or both of the two between which it is."""

    times: list[float] = field(default_factory=list)
    laws: list[tuple[Law, ...]] = field(default_factory=list)

    def holds(self, *laws: Law, since: float = 0.0) -> None:
        """From then on, a POSIX time, each packet needs one of these laws; none allows nothing."""
        self.times.append(since)
        self.laws.append(laws)

    def violations(self, taken: Capture) -> list[str]:
        """Every packet, in words, that nothing allows."""
        ever = {law for laws in self.laws for law in laws}
        return [str(each) for each in taken.seen if not self._allows(each, ever)] + [
            f"no IP: {frame.hex()}" for frame in taken.strange
        ]

    def _allows(self, seen: Seen, ever: Iterable[Law]) -> bool:
        packet = seen.packet
        if _is_neighbourly(packet):
            return True
        # While a link is down its route is gone, and words to the spoke go the default one.
        is_lost = packet.dst in sites.SPOKE_NODE
        if seen.quoted is not None:
            about = _back(seen.quoted)
            is_due = is_lost or any(law.allows(about) for law in ever)
            return _is_ours(packet.src) and is_due
        if is_lost:
            return any(law.answers(packet) for law in ever)
        if not _is_masqueraded(packet):
            return False
        laws = next(
            laws
            for since, laws in zip(reversed(self.times), reversed(self.laws), strict=True)
            if seen.time >= since
        )
        if any(law.allows(packet) for law in laws):
            return True
        # The proxy takes leave of whom it may not dial any more, and says nothing doing so.
        is_farewell = not seen.opens and seen.payload == 0
        return is_farewell and any(law.dials(packet) for law in ever)


def _is_neighbourly(packet: Packet) -> bool:
    """Neighbour discovery and multicast listeners' reports, which no router forwards."""
    return packet.protocol == ICMPV6 and (
        packet.icmp_type in _NEIGHBOURS or packet.icmp_type in _MLD
    )


def _is_masqueraded(packet: Packet) -> bool:
    return _is_ours(packet.src) or (
        ip_address(packet.dst).is_private and packet.src in sites.SPOKE_NODE
    )


def _is_ours(address: str) -> bool:
    return address in sites.HUB_OUTSIDE


def _back(packet: Packet) -> Packet:
    """The other direction's tuple."""
    return packet._replace(
        src=packet.dst, dst=packet.src, src_port=packet.dst_port, dst_port=packet.src_port
    )
