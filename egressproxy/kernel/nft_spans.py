"""What is in a set of ranges, as numbers: the same addresses are equal, however nft writes them."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network, IPv6Network
    from typing import TypeAlias

Spans: TypeAlias = "tuple[tuple[int, int], ...]"
"""First and last addresses, in order; two never touch."""

_FAMILY: Final = {"ipv4_addr": (AF_INET, 32), "ipv6_addr": (AF_INET6, 128)}


def spans_of(networks: Iterable[IPv4Network | IPv6Network]) -> Spans:
    """Those of networks of one family."""
    return _joined(_of(int(n.network_address), n.max_prefixlen, n.prefixlen) for n in networks)


def listed_spans(type_: str, elements: Iterable[Any]) -> Spans | None:
    """Those of a set as ``nft --json`` lists it (libnftables-json(5)).

    Args:
        type_: the set's.
        elements: its ``elem``.

    Returns:
        ``None`` where it is no set of addresses, or has an element of another form.
    """
    if type_ not in _FAMILY:
        return None
    family, bits = _FAMILY[type_]
    try:
        return _joined([_listed(each, family, bits) for each in elements])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _listed(element: Any, family: int, bits: int) -> tuple[int, int]:
    if isinstance(element, dict) and "elem" in element:  # it has a comment, or a counter
        element = element["elem"]["val"]
    if isinstance(element, str):
        first = _number(element, family)
        return first, first
    if "prefix" in element:
        prefix = element["prefix"]
        return _of(_number(prefix["addr"], family), bits, prefix["len"])
    first_text, last_text = element["range"]
    return _number(first_text, family), _number(last_text, family)


def _number(text: str, family: int) -> int:
    return int.from_bytes(inet_pton(family, text), "big")


def _of(first: int, bits: int, length: int) -> tuple[int, int]:
    return first, first + (1 << (bits - length)) - 1


def _joined(spans: Iterable[tuple[int, int]]) -> Spans:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    return tuple(joined)
