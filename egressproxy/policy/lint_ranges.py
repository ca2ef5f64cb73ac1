"""Address ranges as spans of integers: whether some networks hold all that others do.

IPv4 addresses are 0 to 2^32-1; IPv6 addresses follow above ``_IPV6``, so that one sorted tuple
holds both and no span crosses from one to the other.
"""

from __future__ import annotations

from bisect import bisect_right
from ipaddress import IPv6Network, ip_network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from egressproxy.policy.networks import Network

Spans = tuple[tuple[int, int], ...]
"""(first, last), both included; ascending, apart from each other."""

_IPV6: Final = 1 << 33
_EVERY_IPV4: Final = (0, (1 << 32) - 1)
_SHORT: Final = 8
_NOT_PUBLIC: Final = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
            *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
        ),
    )
)
"""Where no server of the internet is (IANA's special-purpose registry)."""


def spans(networks: Iterable[Network]) -> Spans:
    """Networks as spans, merged where they touch."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(map(_span, networks)):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def _span(network: Network) -> tuple[int, int]:
    base = _IPV6 if isinstance(network, IPv6Network) else 0
    first = base + int(network.network_address)
    return first, first + network.num_addresses - 1


def holds(outer: Spans, inner: Spans) -> bool:
    """Whether every address of ``inner`` is in ``outer``."""
    for first, last in inner:
        place = bisect_right(outer, (first, 1 << 129)) - 1
        if place < 0 or outer[place][1] < last:
            return False
    return True


def is_everywhere(networks: Sequence[Network]) -> bool:
    """Whether these are all of the IPv4 internet, with or without what is not public."""
    if not any(network.prefixlen <= _SHORT for network in networks):
        return False  # a service tag's thousands are asked of in every rule that has it
    return holds(spans((*networks, *_NOT_PUBLIC)), (_EVERY_IPV4,))
