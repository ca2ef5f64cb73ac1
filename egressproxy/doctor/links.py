"""Interfaces: MTU, and whether IPv6 is whole or absent. /sys/class/net, if_inet6 and ipv6_route.

Azure's network carries 1500 octets; what the spokes send in one packet has to fit into every
interface here, or path MTU discovery has to work, for which this machine's ICMP must come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.doctor.finding import fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.doctor.finding import Finding
    from egressproxy.doctor.machine import Machine

USUAL_MTU: Final = 1500
LEAST_MTU: Final = 1280  # RFC 8200 section 5
_UP: Final = 0x1  # IFF_UP, linux/if.h
_LOOPBACK: Final = 0x8
_GLOBAL_SCOPE: Final = "00"
_ANY: Final = "0" * 32
_REJECT: Final = 0x0200  # RTF_REJECT, linux/route.h


def check_mtu(machine: Machine) -> Iterator[Finding]:
    """Of every interface that is up, but loopback."""
    found = {}
    for name in machine.entries("sys/class/net"):
        flags = _hexadecimal(machine.text(f"sys/class/net/{name}/flags"))
        mtu = machine.number(f"sys/class/net/{name}/mtu")
        if flags & _UP and not flags & _LOOPBACK and mtu is not None:
            found[name] = mtu
    seen = ", ".join(f"{name} {mtu}" for name, mtu in found.items()) or "no interface is up"
    small = {name: mtu for name, mtu in found.items() if mtu < USUAL_MTU}
    if not found:
        yield fail("MTU", seen, "nothing can come or go", "ip link")
    elif any(mtu < LEAST_MTU for mtu in small.values()):
        name = min(small, key=lambda name: small[name])
        why = "IPv6 needs 1280, and many clients never send less than that"
        yield fail("MTU", seen, why, f"ip link set {name} mtu {USUAL_MTU}")
    elif small or len(set(found.values())) > 1:
        why = "larger packets of the spokes depend on path MTU discovery; TCP is clamped"
        name = next(iter(small), next(iter(found)))
        yield warn("MTU", seen, why, f"ip link set {name} mtu {USUAL_MTU}   # the same everywhere")
    else:
        yield ok("MTU", seen)


def check_ipv6(machine: Machine) -> Iterator[Finding]:
    """An address and a route, or neither."""
    if not machine.text("proc/net/if_inet6") or machine.sysctl("net.ipv6.conf.all.disable_ipv6"):
        yield ok("IPv6", "not in use: spokes must have none either")
        return
    addresses = _global_addresses(machine)
    routes = _default_routes(machine)
    if addresses and routes:
        yield ok("IPv6", f"{len(addresses)} global, default route by {routes[0]}")
        yield from _advertised(machine, routes[0])
    elif addresses:
        yield warn(
            "IPv6",
            "a global address and no default route",
            "names are tried by IPv6 first, and each try has to fail",
            "ip -6 route; sysctl -w net.ipv6.conf.all.accept_ra=2   # Azure advertises the route",
        )
    else:
        yield ok("IPv6", "no global address: clients' IPv6 ends here, IPv4 is unaffected")


def _advertised(machine: Machine, interface: str) -> Iterator[Finding]:
    """A machine that forwards hears router advertisements only with accept_ra 2 (ip-sysctl.rst)."""
    accept = machine.number(f"proc/sys/net/ipv6/conf/{interface}/accept_ra")
    if machine.sysctl("net.ipv6.conf.all.forwarding") and accept == 1:
        yield fail(
            "IPv6 route",
            f"{interface}: accept_ra=1 while forwarding",
            "the default route is advertised, and will not be renewed",
            f"sysctl -w net.ipv6.conf.{interface}.accept_ra=2",
        )


def _global_addresses(machine: Machine) -> list[str]:
    """Of if_inet6: address, index, prefix length, scope (ULA has the global one), flags, name."""
    rows = [line.split() for line in machine.text("proc/net/if_inet6").splitlines()]
    return [
        row[0]
        for row in rows
        if len(row) == 6 and row[3] == _GLOBAL_SCOPE and not row[0].startswith(("fc", "fd"))
    ]


def _default_routes(machine: Machine) -> list[str]:
    """Of ipv6_route: destination, its length, …, flags and name are the last two."""
    rows = [line.split() for line in machine.text("proc/net/ipv6_route").splitlines()]
    return [
        row[9]
        for row in rows
        if len(row) == 10
        and row[:2] == [_ANY, "00"]
        and row[9] != "lo"
        and not _hexadecimal(row[8]) & _REJECT
    ]


def _hexadecimal(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0
