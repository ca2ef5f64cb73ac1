"""Whether some networks are all of the internet, however they are cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.policy.spans import AddressSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.policy.networks import Network

_SHORT: Final = 8
_EVERY_IPV4: Final = AddressSet.of(["0.0.0.0/0"])
_NOT_PUBLIC: Final = AddressSet.of(
    (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
    )
)
"""Where no server of the internet is (IANA's special-purpose registry)."""


def is_everywhere(networks: Sequence[Network]) -> bool:
    """Whether these are all of the IPv4 internet, with or without what is not public."""
    if not any(network.prefixlen <= _SHORT for network in networks):
        return False  # a service tag's thousands are asked of in every rule that has it
    return AddressSet.of_networks(networks) | _NOT_PUBLIC >= _EVERY_IPV4
