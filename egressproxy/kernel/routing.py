"""Policy routing: the guard that forwards nothing unjudged, and local delivery for TPROXY.

Five rules a family, in front of every table but ``local``::

    100: from all iif lo goto 104           what this machine sends itself
    101: from all fwmark TPROXY lookup T    local default: the packet is delivered here
    102: from all fwmark JUDGED goto 104    went through our table
    103: from all blackhole                 everything else that would be forwarded
    104: from all nop

Packets to our own addresses are routed by ``local`` (preference 0) and never come here. Without our
table nothing carries JUDGED, so nothing is forwarded, IPv4 or IPv6: ``nft flush ruleset`` closes
the gateway. ``iif lo`` is first because it is also how rp_filter asks for a local packet's way
back, with the packet's mark (ip-rule(8), net/ipv4/fib_frontend.c).

Rules and routes carry our own protocol number; what is ours is found and removed by it alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PROTOCOL: Final = 101
"""Of our rules and routes (``proto`` in ip-rule(8)); nobody else's in rtnetlink(7) lists."""
ROUTE_TABLE: Final = 10101
PREFERENCE: Final = 100
"""Of the first of our five rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingState:
    """What is in place; ``guard`` and ``tproxy`` only where it is so for IPv4 and IPv6.

    ``ahead`` are rules of others, as text, that route packets before the guard sees them.
    """

    guard: bool = False
    tproxy: bool = False
    ahead: tuple[str, ...] = ()


def ensure_guard() -> None:
    """Put the guard in place; nothing happens where it is.

    Forwarding stops here until the table marks packets.

    Raises:
        KernelError: the kernel refuses; with what is missing.
    """
    raise NotImplementedError


def ensure_tproxy() -> None:
    """Put the rule and the local route of TPROXY in place; nothing happens where they are.

    Raises:
        KernelError: the kernel refuses; with what is missing.
    """
    raise NotImplementedError


def remove_tproxy() -> bool:
    """Remove TPROXY's rule and route; whether there were any."""
    raise NotImplementedError


def remove_routing() -> bool:
    """Remove every rule and route of ours, whatever state they are in; whether there were any.

    Raises:
        KernelError: the kernel refuses.
    """
    raise NotImplementedError


def routing_state() -> RoutingState:
    """What is in place now.

    Raises:
        KernelError: netlink does not answer.
    """
    raise NotImplementedError
