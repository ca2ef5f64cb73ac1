"""Three namespaces as in Azure: a spoke whose default route is the hub, the hub, and an internet.

::

    spoke  10.240.0.4  ── inside ─ hub (the NVA) ─ outside ──  internet  20.50.0.1, sites on lo
           fd00:240::4                                                   2603:1040:50::1
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab import sites
from lab.namespaces import Namespace, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

INSIDE: Final = "inside"
"""The hub's interface that faces the spoke."""
OUTSIDE: Final = "outside"
"""The hub's interface that faces the internet."""
_SYSCTLS: Final = (
    ("ipv4/conf/all/rp_filter", "2"),
    ("ipv4/conf/default/rp_filter", "2"),
)
"""Of Ubuntu. The hub forwards nothing until the gateway says so."""


@dataclass(frozen=True, slots=True)
class Topology:
    """The three namespaces, wired, addressed and routed."""

    spoke: Namespace
    hub: Namespace
    internet: Namespace


@contextmanager
def topology(directory: Path) -> Iterator[Topology]:
    """Build the network below ``directory`` (for resolver files); gone at the end."""
    with namespaces(("spoke", "hub", "internet"), directory / "etc") as made:
        built = Topology(made["spoke"], made["hub"], made["internet"])
        for namespace in made.values():
            _write_resolver_files(namespace)
        with built.hub.entered():
            for name, value in _SYSCTLS:
                Path("/proc/sys/net", name).write_text(value)
        _link(built.hub, INSIDE, built.spoke)
        _link(built.hub, OUTSIDE, built.internet)
        _address(built.hub, INSIDE, sites.HUB_INSIDE)
        _address(built.hub, OUTSIDE, sites.HUB_OUTSIDE)
        _address(built.spoke, "eth0", sites.SPOKE_NODE)
        _address(built.spoke, "eth0", sites.SPOKE_SECOND, "preferred_lft", "0")
        _address(built.internet, "eth0", sites.INTERNET_GATEWAY)
        for site in sites.SITES:
            _address(built.internet, "lo", site.addresses, host=True)
        _address(built.internet, "lo", sites.DNS_SERVER, host=True)
        _default_route(built.spoke, sites.HUB_INSIDE)
        _default_route(built.hub, sites.INTERNET_GATEWAY)
        # The hub network's own machines (the DNS server) know the way back by peering.
        for network, gateway in zip(sites.SPOKE, sites.HUB_OUTSIDE, strict=True):
            built.internet.run("ip", "route", "add", network, "via", gateway)
        yield built


def _link(hub: Namespace, name: str, other: Namespace) -> None:
    ends = ("type", "veth", "peer", "name", "eth0", "netns", other.name)
    hub.run("ip", "link", "add", name, *ends)
    # One segment a packet, as on a real wire: a veth pair would else carry 64 KB at once and a
    # ClientHello would never be split.
    for namespace, link in ((hub, name), (other, "eth0")):
        namespace.run("ip", "link", "set", link, "gso_max_segs", "1", "up")


def _address(
    namespace: Namespace, link: str, addresses: tuple[str, str], *options: str, host: bool = False
) -> None:
    """Give a link both addresses; ``preferred_lft 0`` makes one that is used when asked for."""
    four, six = addresses
    add = ("ip", "address", "add")
    namespace.run(*add, f"{four}/{32 if host else 16}", "dev", link, *options)
    # nodad: a tentative address cannot be bound, and there is nobody to collide with.
    namespace.run(*add, f"{six}/{128 if host else 64}", "dev", link, "nodad", *options)


def _default_route(namespace: Namespace, gateway: tuple[str, str]) -> None:
    for address in gateway:
        namespace.run("ip", "route", "add", "default", "via", address)


def _write_resolver_files(namespace: Namespace) -> None:
    servers = "".join(f"nameserver {address}\n" for address in sites.DNS_SERVER[:1])
    (namespace.etc / "resolv.conf").write_text(f"{servers}options timeout:2 attempts:2\n")
    (namespace.etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (namespace.etc / "nsswitch.conf").write_text("hosts: files dns\npasswd: files\ngroup: files\n")
