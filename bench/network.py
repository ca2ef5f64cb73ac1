"""Client, hub and server on one machine: the hub's packet work on CPU 0, the rest on CPU 1.

Receive packet steering of the hub's two interfaces points at CPU 0, that of the other two at CPU 1,
so that what CPU 0 does a connection is the hub's work, softirq included.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.cores import steer
from lab.namespaces import Namespace, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HUB_CPU: Final = 0
LOAD_CPU: Final = 1
SERVER: Final = "20.150.1.1"
"""A public address by its looks; it lives in the server's namespace only."""
PORT: Final = 443
_LINKS: Final = (
    ("inside", "client", "10.240.0.1", "10.240.0.4"),
    ("outside", "server", "20.50.0.4", "20.50.0.1"),
)

_SEGMENTS: Final = {"client": 1, "server": 65_535}
"""In one packet of the link's, at most: the server streams as a real one does, through offload."""


@dataclass(frozen=True, slots=True)
class Network:
    """The three namespaces."""

    client: Namespace
    hub: Namespace
    server: Namespace


@contextmanager
def network(directory: Path) -> Iterator[Network]:
    """Build it; gone at the end."""
    with namespaces(("client", "hub", "server"), directory / "etc") as made:
        hub = made["hub"]
        for link, role, hub_address, address in _LINKS:
            other = made[role]
            hub.run("ip", "link", "add", link, "type", "veth", "peer", "eth0", "netns", other.name)
            hub.run("ip", "address", "add", f"{hub_address}/16", "dev", link)
            other.run("ip", "address", "add", f"{address}/16", "dev", "eth0")
            hub.run("ip", "link", "set", link, "up")
            other.run("ip", "link", "set", "eth0", "up")
            # Segments as on a wire: what a client says in one send, and is longer, are several.
            other.run("ip", "link", "set", "eth0", "gso_max_segs", str(_SEGMENTS[role]))
            other.run("ip", "route", "add", "default", "via", hub_address)
        made["server"].run("ip", "address", "add", f"{SERVER}/32", "dev", "lo")
        hub.run("ip", "route", "add", f"{SERVER}/32", "via", "20.50.0.1")
        for role, setting in (
            ("hub", "net.ipv4.ip_forward=1"),
            ("hub", "net.ipv4.ip_local_port_range=1024 65000"),
            ("hub", "net.core.somaxconn=65535"),
            ("hub", "net.netfilter.nf_conntrack_max=1000000"),
            # Else two minutes' finished flows slow the table down from measurement to measurement.
            ("hub", "net.netfilter.nf_conntrack_tcp_timeout_time_wait=5"),
            ("client", "net.ipv4.ip_local_port_range=1024 65000"),
            # Else the ports of finished flows wait a minute, and whoever is measured later pays for
            # the search for a free one.
            ("hub", "net.ipv4.tcp_max_tw_buckets=500"),
            ("client", "net.ipv4.tcp_max_tw_buckets=500"),
            ("server", "net.core.somaxconn=65535"),
        ):
            _sysctl(made[role], setting)
        built = Network(made["client"], hub, made["server"])
        steer(built, (HUB_CPU,), (LOAD_CPU,))
        yield built


def _sysctl(namespace: Namespace, setting: str) -> None:
    # -e: the conntrack maximum is the machine's alone on some kernels.
    namespace.run("sysctl", "-q", "-e", "-w", setting)
