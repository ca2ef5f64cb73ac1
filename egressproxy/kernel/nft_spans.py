"""What is in a set of ranges, as numbers: the same addresses are equal, however nft writes them."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING, Any, Final

from egressproxy.policy.spans import AddressSet, joined

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    from egressproxy.policy.networks import Network
    from egressproxy.policy.spans import Span

Spans: TypeAlias = "tuple[Span, ...]"
"""First and last addresses, in order; two never touch."""

_FAMILY: Final = {"ipv4_addr": (AF_INET, 32), "ipv6_addr": (AF_INET6, 128)}


def spans_of(networks: Iterable[Network]) -> Spans:
    """Those of networks of one family."""
    found = AddressSet.of_networks(networks)
    return found.ipv4 or found.ipv6


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
        return joined([_listed(each, family, bits) for each in elements])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _listed(element: Any, family: int, bits: int) -> Span:
    if isinstance(element, dict) and "elem" in element:  # it has a comment, or a counter
        element = element["elem"]["val"]
    if isinstance(element, str):
        first = _number(element, family)
        return first, first
    if "prefix" in element:
        prefix = element["prefix"]
        first = _number(prefix["addr"], family)
        return first, first + (1 << (bits - prefix["len"])) - 1
    first_text, last_text = element["range"]
    return _number(first_text, family), _number(last_text, family)


def _number(text: str, family: int) -> int:
    return int.from_bytes(inet_pton(family, text), "big")
