"""A gateway with one network card, as an Azure NVA has it: clients and the internet on one wire.

::

    client  10.97.0.1   ─┐
    server  20.97.0.1   ─┼─ wire (a bridge)
    hub     10.97.0.2   ─┘
            20.97.0.2
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.namespaces import Namespace, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT: Final = {4: "10.97.0.1", 6: "fd97::1"}
HUB: Final = {4: "10.97.0.2", 6: "fd97::2"}
SERVER: Final = {4: "20.97.0.1", 6: "2001:db8:97::1"}
HUB_OUTSIDE: Final = {4: "20.97.0.2", 6: "2001:db8:97::2"}
_LENGTH: Final = {4: 24, 6: 64}
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_TIMEOUT_S: Final = 5.0
# Type, code, checksum (which the kernel puts in for IPv6), identifier 0x4711, sequence number.
_ECHO: Final = {4: bytes.fromhex("0800b0ed47110001"), 6: bytes.fromhex("8000000047110001")}
_ANSWER: Final = {4: b"\x00", 6: b"\x81"}
_HEADER: Final = {4: 20, 6: 0}


@dataclass(frozen=True, slots=True)
class OneNic:
    """The three namespaces of interest."""

    client: Namespace
    hub: Namespace
    server: Namespace

    def sysctl(self, name: str, value: str | None = None) -> str:
        """Read, or first set, one of the hub's."""
        with self.hub.entered():
            path = Path("/proc/sys", name)
            if value is not None:
                path.write_text(value)
            return path.read_text().strip()

    def forwards(self, version: int) -> bool:
        """Whether the hub forwards a datagram of the client to the server.

        No time is measured: the client then pings the hub itself, and the hub tells the server.
        What is not there before the hub's word will not come. So this also proves, or fails, that
        the hub's input, its own traffic and the answers to it work.
        """
        with ExitStack() as stack:
            client = stack.enter_context(udp(self.client, CLIENT[version]))
            own = stack.enter_context(udp(self.hub, HUB_OUTSIDE[version]))
            server = stack.enter_context(udp(self.server, SERVER[version]))
            client.sendto(b"forwarded", server.getsockname()[:2])
            ping(self.client, HUB[version])
            own.sendto(b"told", server.getsockname()[:2])
            first, sender = server.recvfrom(100)
            told = (first, sender) if first == b"told" else server.recvfrom(100)
            assert told == (b"told", own.getsockname())
            server.sendto(b"heard", own.getsockname()[:2])
            assert own.recv(100) == b"heard"
            return first == b"forwarded"


@contextmanager
def one_nic(directory: Path) -> Iterator[OneNic]:
    """Build it; gone at the end. Nothing is forwarded yet."""
    with namespaces(("client", "hub", "server", "wire"), directory / "etc") as made:
        wire = made["wire"]
        wire.run("ip", "link", "add", "wire", "type", "bridge")
        wire.run("ip", "link", "set", "wire", "up")
        for role in ("client", "hub", "server"):
            to = ("type", "veth", "peer", "name", "eth0", "netns", made[role].name)
            wire.run("ip", "link", "add", role, *to)
            wire.run("ip", "link", "set", role, "master", "wire", "up")
            made[role].run("ip", "link", "set", "eth0", "up")
        for role, address in (
            ("client", CLIENT),
            ("hub", HUB),
            ("hub", HUB_OUTSIDE),
            ("server", SERVER),
        ):
            for version, text in address.items():
                add = ("ip", "address", "add", f"{text}/{_LENGTH[version]}", "dev", "eth0")
                made[role].run(*add, *(["nodad"] if version == 6 else []))
        for version in (4, 6):
            made["client"].run("ip", "route", "add", "default", "via", HUB[version])
            made["server"].run("ip", "route", "add", "default", "via", HUB_OUTSIDE[version])
        yield OneNic(made["client"], made["hub"], made["server"])


@contextmanager
def udp(namespace: Namespace, address: str, port: int = 0) -> Iterator[socket.socket]:
    """A bound datagram socket inside."""
    with namespace.entered():
        sock = socket.socket(_FAMILY[6 if ":" in address else 4], socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(_TIMEOUT_S)
        sock.bind((address, port))
        yield sock


@contextmanager
def tcp(namespace: Namespace, address: str, port: int = 0) -> Iterator[socket.socket]:
    """A TCP listener inside."""
    with namespace.entered():
        sock = socket.socket(_FAMILY[6 if ":" in address else 4], socket.SOCK_STREAM)
    with sock:
        sock.settimeout(_TIMEOUT_S)
        sock.bind((address, port))
        sock.listen()
        yield sock


def ping(namespace: Namespace, address: str) -> None:
    """Send one echo request from inside, and wait for its answer."""
    version = 6 if ":" in address else 4
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    with namespace.entered():
        sock = socket.socket(_FAMILY[version], socket.SOCK_RAW, protocol)
    with sock:
        sock.settimeout(_TIMEOUT_S)
        sock.sendto(_ECHO[version], (address, 0))
        while sock.recv(200)[_HEADER[version] :][:1] != _ANSWER[version]:
            continue  # IPv6: also what neighbours say
