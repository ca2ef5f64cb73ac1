"""``is_outside``: whether an address is beyond an organisation's own networks."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Final

from egressproxy.resolve.guard import is_never_dialled

_INSIDE: Final = tuple(
    map(
        ip_network,
        (
            "10.0.0.0/8",  # RFC 1918, as the next two
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",  # RFC 6598
            "fc00::/7",  # RFC 4193
        ),
    )
)


def is_outside(text: str | None) -> bool:
    """Whether a text is an address beyond an organisation's own networks; never raises.

    Ranges kept for documentation are outside: they stand for the internet in labs.
    """
    if text is None or is_never_dialled(text):
        return False
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return not any(address in network for network in _INSIDE)
