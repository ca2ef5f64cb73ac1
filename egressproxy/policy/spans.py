"""``AddressSet``: sets of addresses as integer spans, for address ranges by the ten thousand.

``ipaddress`` takes half a second to read and collapse the largest service tag and has no
difference of sets; here an address is an integer, a set its spans in order, neither overlapping nor
adjacent. Equal sets are equal objects, however their ranges were cut.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from operator import itemgetter
from socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.policy.networks import Network

Span = tuple[int, int]
"""First and last address, both in."""

_BITS: Final = {4: 32, 6: 128}


@dataclass(frozen=True, slots=True)
class AddressSet:
    """IPv4 and IPv6 addresses; build it with ``of`` or ``of_networks``."""

    ipv4: tuple[Span, ...] = ()
    ipv6: tuple[Span, ...] = ()

    @classmethod
    def of(cls, texts: Iterable[str]) -> AddressSet:
        """The addresses of ranges in CIDR form, such as ``20.9.0.0/16``, in any order.

        Raises:
            ValueError: a text is no range, or has host bits set.
        """
        spans: dict[int, list[Span]] = {4: [], 6: []}
        for text in texts:
            version = 6 if ":" in text else 4
            spans[version].append(_span(text, version))
        return cls(joined(spans[4]), joined(spans[6]))

    @classmethod
    def of_networks(cls, networks: Iterable[Network]) -> AddressSet:
        """The addresses of ranges that are read already."""
        spans: dict[int, list[Span]] = {4: [], 6: []}
        for network in networks:
            first, last = network.network_address, network.broadcast_address
            spans[network.version].append((int(first), int(last)))
        return cls(joined(spans[4]), joined(spans[6]))

    def __bool__(self) -> bool:
        return bool(self.ipv4 or self.ipv6)

    def __or__(self, other: AddressSet) -> AddressSet:
        return AddressSet(joined([*self.ipv4, *other.ipv4]), joined([*self.ipv6, *other.ipv6]))

    def __sub__(self, other: AddressSet) -> AddressSet:
        return AddressSet(
            tuple(_without(self.ipv4, other.ipv4)), tuple(_without(self.ipv6, other.ipv6))
        )

    def __and__(self, other: AddressSet) -> AddressSet:
        return self - (self - other)

    def __le__(self, other: AddressSet) -> bool:
        """Whether each of these addresses is in the other set, too."""
        return _is_within(self.ipv4, other.ipv4) and _is_within(self.ipv6, other.ipv6)

    @property
    def ipv4_addresses(self) -> int:
        """How many."""
        return sum(last - first + 1 for first, last in self.ipv4)

    @property
    def ipv6_addresses(self) -> int:
        """How many."""
        return sum(last - first + 1 for first, last in self.ipv6)

    def networks(self) -> tuple[Network, ...]:
        """The fewest ranges that hold exactly these addresses, IPv4 first, by address."""
        return (
            *(IPv4Network(prefix) for prefix in _prefixes(self.ipv4, _BITS[4])),
            *(IPv6Network(prefix) for prefix in _prefixes(self.ipv6, _BITS[6])),
        )


def _span(text: str, version: int) -> Span:
    address, slash, length = text.partition("/")
    bits = _BITS[version]
    try:
        packed = inet_pton(AF_INET6 if version == 6 else AF_INET, address)
    except (OSError, ValueError):
        raise _wrong(text) from None
    if slash and not (length.isascii() and length.isdigit() and int(length[:4]) <= bits):
        raise _wrong(text)
    first = int.from_bytes(packed)
    rest = (1 << (bits - int(length))) - 1 if slash else 0
    if first & rest:
        raise _wrong(text)
    return first, first | rest


def _wrong(text: str) -> ValueError:
    """Why a text is no range, in the words of ``ipaddress`` where it has any."""
    try:
        ip_network(text)
    except ValueError as error:
        return error
    return ValueError(f"{text!r} is not in CIDR form")


def joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """In order, what overlaps or touches made one."""
    found: list[Span] = []
    end = -2
    for first, last in sorted(spans):
        if first > end + 1:
            found.append((first, last))
            end = last
        elif last > end:
            found[-1] = (found[-1][0], last)
            end = last
    return tuple(found)


def _without(ours: tuple[Span, ...], theirs: tuple[Span, ...]) -> Iterator[Span]:
    """Ours with theirs cut out; both in order."""
    place = 0
    for first, last in ours:
        while place < len(theirs) and theirs[place][1] < first:
            place += 1
        begin, cut = first, place
        while cut < len(theirs) and theirs[cut][0] <= last:
            if theirs[cut][0] > begin:
                yield begin, theirs[cut][0] - 1
            begin = theirs[cut][1] + 1
            cut += 1
        if begin <= last:
            yield begin, last


def _is_within(ours: tuple[Span, ...], theirs: tuple[Span, ...]) -> bool:
    """Whether each of our spans lies in one of theirs."""
    for first, last in ours:
        place = bisect_right(theirs, first, key=itemgetter(0)) - 1
        if place < 0 or theirs[place][1] < last:
            return False
    return True


def _prefixes(spans: Iterable[Span], bits: int) -> Iterator[tuple[int, int]]:
    """Address and length of the largest aligned blocks, from the first address on."""
    for first, last in spans:
        here = first
        while here <= last:
            aligned = (here & -here).bit_length() - 1 if here else bits
            size = min(aligned, (last - here + 1).bit_length() - 1)
            yield here, bits - size
            here += 1 << size
