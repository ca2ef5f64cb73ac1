"""Address ranges of a policy: reading them strictly, and intersecting them.

Strict means: host bits set, ranges with a dash, IPv4 in IPv6 clothes and leading zeros are refused
with what to write instead, because each is read differently by some other tool.
"""

from __future__ import annotations

import re
from ipaddress import (
    IPv4Network,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
    summarize_address_range,
)
from itertools import islice
from typing import TYPE_CHECKING, Final

from egressproxy.errors import AddressError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Network = IPv4Network | IPv6Network

_IPV4_LIKE = re.compile(r"[0-9]+(?:\.[0-9]+){3}(?:[/-].*)?", re.ASCII)
_IPV6_LIKE = re.compile(r"\[?[0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*\]?(?:[/%-].*)?", re.ASCII)
_MAPPED: Final = ip_network("::ffff:0:0/96")
_MAX_SUMMARY: Final = 4

NEVER_DIALLED: Final[tuple[tuple[Network, str], ...]] = (
    (ip_network("127.0.0.0/8"), "loopback"),
    (ip_network("::1/128"), "loopback"),
    (ip_network("169.254.0.0/16"), "link-local (the instance metadata service)"),
    (ip_network("fe80::/10"), "link-local"),
    (ip_network("168.63.129.16/32"), "the Azure host (wire server)"),
    (ip_network("0.0.0.0/8"), "this host"),
    (ip_network("::/128"), "this host"),
    (ip_network("224.0.0.0/4"), "multicast"),
    (ip_network("ff00::/8"), "multicast"),
)
"""Ranges that ``addresses:`` cannot list: no name may lead there, whoever allows it."""


def looks_like_address(text: str) -> bool:
    """Whether a person meant an address or range, right or wrong, and not a name."""
    return bool(_IPV4_LIKE.fullmatch(text) or _IPV6_LIKE.fullmatch(text))


def parse_network(text: str) -> Network:
    """Read ``20.9.0.0/16``, ``20.1.2.3`` or an IPv6 one.

    Raises:
        AddressError: with what to write instead.
    """
    try:
        network = ip_network(text)
    except ValueError as error:
        raise AddressError(f"{text!r} is not an address range", hint=_repair(text)) from error
    if "%" in text:
        raise AddressError(f"{text!r} has a zone", hint=f"write {text.partition('%')[0]}")
    if isinstance(network, IPv6Network) and network.overlaps(_MAPPED) and network.prefixlen >= 96:
        raise AddressError(f"{text!r} is IPv4 written as IPv6", hint="write the IPv4 range")
    return network


def parse_dialled_network(text: str) -> Network:
    """Read an item of ``addresses:``, the private ranges that a name may resolve to.

    Raises:
        AddressError: also for ranges that touch ``NEVER_DIALLED``.
    """
    network = parse_network(text)
    for refused, what in NEVER_DIALLED:
        if network.version == refused.version and network.overlaps(refused):
            raise AddressError(
                f"{text!r} cannot be listed: it has {refused}, {what}",
                hint="list the subnets of your private endpoints, such as 10.50.0.0/24",
            )
    return network


def intersect(left: Iterable[Network], right: Iterable[Network]) -> tuple[Network, ...]:
    """The addresses in both, as ranges in order, each once."""
    ours, theirs = tuple(left), tuple(right)
    return in_order((*_within(ours, theirs), *_within(theirs, ours)))


def _within(networks: Iterable[Network], outer: Iterable[Network]) -> Iterator[Network]:
    """The ranges that lie in one of the outer ones; one look-up a prefix length, not a range."""
    prefixes = {_prefix(network, network.prefixlen) for network in outer}
    lengths = {prefix[:2] for prefix in prefixes}
    for network in networks:
        if any(
            version == network.version
            and length <= network.prefixlen
            and _prefix(network, length) in prefixes
            for version, length in lengths
        ):
            yield network


def _prefix(network: Network, length: int) -> tuple[int, int, int]:
    bits = int(network.network_address) >> (network.max_prefixlen - length)
    return network.version, length, bits


def in_order(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Each range once, IPv4 first, by address."""
    return tuple(sorted(set(networks), key=_order))


def _order(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen


def _repair(text: str) -> str:
    """What to write instead, where that can be told."""
    first, dash, last = text.partition("-")
    if dash:
        return _summary(first, last)
    try:
        return f"host bits are set: write {ip_interface(text).network}"
    except ValueError:
        return "write 20.9.0.0/16, 20.1.2.3 or 2001:db8::/32"


def _summary(first: str, last: str) -> str:
    try:
        low, high = ip_address(first.strip()), ip_address(last.strip())
        # mypy cannot tell that both are of one version; a mix raises TypeError.
        ranges = [
            str(network) for network in islice(summarize_address_range(low, high), _MAX_SUMMARY + 1)
        ]
    except (ValueError, TypeError):
        ranges = []
    if 0 < len(ranges) <= _MAX_SUMMARY:
        return f"write {', '.join(ranges)}"
    return "a range is written as CIDR: 20.9.0.0/16"
