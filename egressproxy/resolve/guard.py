"""Which addresses may be dialled: the address guard, and what a destination mode makes of it.

The table is our own, because what a library calls global changes between its versions, and because
some addresses stay shut whatever a policy lists. Sources: IANA IPv4 and IPv6 Special-Purpose
Address Registries (RFC 6890, RFC 8190; as of October 2025), IPv6 address space registry (only
2000::/3 is global unicast), Microsoft Learn "What is IP address 168.63.129.16?".

An IPv6 address that carries an IPv4 address is judged by both: mapped (RFC 4291 section 2.5.5.2),
compatible and translated (RFC 2765), NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo
(RFC 4380), ISATAP (RFC 5214). What cannot be read as an address is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING, Final, TypeAlias

from egressproxy.policy.rules import Destination
from egressproxy.policy.verdict import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_MEMO_ENTRIES: Final = 8192

_NEVER_TEXT: Final = (
    "0.0.0.0/8",  # "this network"; Linux takes 0.0.0.0 for loopback (RFC 791)
    "127.0.0.0/8",  # loopback (RFC 1122)
    "168.63.129.16/32",  # Azure wireserver and platform DNS
    "169.254.0.0/16",  # link-local (RFC 3927), with the instance metadata service
    "224.0.0.0/4",  # multicast (RFC 5771)
    "255.255.255.255/32",  # limited broadcast (RFC 919)
    "::/128",  # unspecified (RFC 4291)
    "::1/128",  # loopback (RFC 4291)
    "fe80::/10",  # link-local (RFC 4291)
    "ff00::/8",  # multicast (RFC 4291)
)
_NON_PUBLIC_TEXT: Final = (
    "10.0.0.0/8",  # private use (RFC 1918)
    "100.64.0.0/10",  # shared address space, carrier-grade NAT (RFC 6598)
    "172.16.0.0/12",  # private use (RFC 1918)
    "192.0.0.0/24",  # IETF protocol assignments (RFC 6890)
    "192.0.2.0/24",  # documentation, TEST-NET-1 (RFC 5737)
    "192.88.99.0/24",  # 6to4 relay anycast, deprecated (RFC 7526)
    "192.168.0.0/16",  # private use (RFC 1918)
    "198.18.0.0/15",  # benchmarking (RFC 2544)
    "198.51.100.0/24",  # documentation, TEST-NET-2 (RFC 5737)
    "203.0.113.0/24",  # documentation, TEST-NET-3 (RFC 5737)
    "240.0.0.0/4",  # reserved (RFC 1112)
    "2001::/23",  # IETF protocol assignments (RFC 2928): Teredo, benchmarking, ORCHID, …
    "2001:db8::/32",  # documentation (RFC 3849)
    "3fff::/20",  # documentation (RFC 9637)
)
ANYWHERE: Final[tuple[Network, ...]] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
"""What a rule lists that is for any address."""
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = IPv6Network("64:ff9b:1::/48")
_TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")
_COMPATIBLE: Final = IPv6Network("::/96")
_THIS_NETWORK: Final = IPv4Network("0.0.0.0/8")
_ISATAP_IDS: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
_LOW_32: Final = 0xFFFF_FFFF


class DestinationMatch(StrEnum):
    """Whether the client's own destination is an address of the name it gave."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """The client chose none (explicit plane), or the name has no addresses."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The addresses to dial, in order, or why there are none (``reason`` is then set)."""

    candidates: tuple[str, ...]
    destination_match: DestinationMatch
    reason: Reason | None = None


class Guard:
    """Refuses addresses that are not public, unless a rule lists them.

    Args:
        own_addresses: the gateway's own; never dialled, never listable. A changed set of addresses
            is a new guard.
        exempt: networks that are dialled in spite of everything above, for labs and tests whose
            "internet" is loopback; empty in service.
    """

    def __init__(
        self, own_addresses: Collection[str] = (), *, exempt: Sequence[Network] = ()
    ) -> None:
        self._own = frozenset(own for text in own_addresses for own in _readings(text))
        self._exempt = tuple(exempt)
        self._memo: dict[tuple[str, tuple[Network, ...]], bool] = {}

    def is_own(self, address: str) -> bool:
        """Whether an address is the gateway's own, in any of its spellings."""
        return not self._own.isdisjoint(_readings(address))

    def refuses(self, address: str, allowed: tuple[Network, ...] = ()) -> bool:
        """Whether an address must not be dialled.

        Args:
            address: text of an IPv4 or IPv6 address.
            allowed: non-public networks that the deciding rule lists (``addresses``).
        """
        key = (address, allowed)
        refused = self._memo.get(key)
        if refused is None:
            if len(self._memo) >= _MEMO_ENTRIES:
                self._memo.clear()
            refused = self._memo[key] = self._judge(address, allowed)
        return refused

    def never_dials(self, address: str) -> bool:
        """Whether an address is shut whatever a rule lists: our own, and those of everybody."""
        return self.refuses(address, ANYWHERE)

    def permitted(
        self, addresses: Iterable[str], allowed: tuple[Network, ...] = ()
    ) -> tuple[str, ...]:
        """The addresses that may be dialled, in the order given."""
        return tuple([a for a in addresses if not self.refuses(a, allowed)])

    def _judge(self, text: str, allowed: tuple[Network, ...]) -> bool:
        readings = _readings(text)
        if not readings:
            return True
        if any(readings[0] in network for network in self._exempt):
            return False
        return any(
            address in self._own
            or _within(address, _NEVER)
            or (not _is_public(address) and not any(address in network for network in allowed))
            for address in readings
        )


def is_never_dialled(address: str) -> bool:
    """Whether an address is shut in every gateway, whatever a policy lists.

    A gateway's own addresses are shut too; only its ``Guard`` knows them.
    """
    return any(_within(reading, _NEVER) for reading in _readings(address))


def choose(
    addresses: tuple[str, ...],
    original: str | None,
    mode: Destination,
    *,
    guard: Guard,
    allowed: tuple[Network, ...] = (),
) -> Choice:
    """What to dial for a name that resolved to ``addresses``.

    Args:
        addresses: the answer's, in dialling order; empty gives ``resolve_failed``.
        original: the client's own destination, ``None`` where it chose none; then every mode is
            ``resolve``, because there is nothing to prefer or to hold the client to.
        mode: of the deciding rule.
        guard: the address guard.
        allowed: the deciding rule's ``addresses``.
    """
    if not addresses:
        return Choice((), DestinationMatch.UNKNOWN, Reason.RESOLVE_FAILED)
    match = _match(addresses, original)
    if mode is Destination.STRICT:
        if match is DestinationMatch.NO:
            return Choice((), match, Reason.DESTINATION_MISMATCH)
        if match is DestinationMatch.YES and original is not None:
            addresses = (original,)
    elif mode is Destination.PREFER_ORIGINAL and match is DestinationMatch.YES and original:
        addresses = (original, *[a for a in addresses if a != original])
    candidates = guard.permitted(addresses, allowed)
    return Choice(candidates, match, None if candidates else Reason.FORBIDDEN_ADDRESS)


def choose_original(original: str, *, guard: Guard, allowed: tuple[Network, ...] = ()) -> Choice:
    """What to dial for a flow that has no name to resolve: its own destination, or nothing.

    ``allowed`` are the networks by which pass 1 let the flow in, so that a rule for a private
    network needs no second list.
    """
    if guard.refuses(original, allowed):
        return Choice((), DestinationMatch.UNKNOWN, Reason.FORBIDDEN_ADDRESS)
    return Choice((original,), DestinationMatch.UNKNOWN)


def _match(addresses: tuple[str, ...], original: str | None) -> DestinationMatch:
    if original is None:
        return DestinationMatch.UNKNOWN
    return DestinationMatch.YES if original in addresses else DestinationMatch.NO


def _readings(text: str) -> tuple[Address, ...]:
    """The address and every IPv4 address inside it; nothing where it cannot be read.

    A mapped address is only its IPv4 address: that is what the kernel dials.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return ()
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    return (address, *_embedded(address))


def _embedded(address: IPv6Address) -> tuple[IPv4Address, ...]:
    bits = int(address)
    low = IPv4Address(bits & _LOW_32)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    if address in _NAT64 or address in _TRANSLATED or address in _COMPATIBLE:
        return (low,)
    if address in _NAT64_LOCAL:
        # The operator's prefix may be /48 (RFC 6052 section 2.2: bits 64-71 are skipped), /56, /64
        # or /96; every reading has to be harmless. Readings in 0.0.0.0/8 are the zeros that fill
        # a longer prefix.
        others = (_rfc6052(bits, length) for length in (48, 56, 64))
        return (low, *(other for other in others if other not in _THIS_NETWORK))
    if bits >> 32 & _LOW_32 in _ISATAP_IDS:
        return (low,)
    return ()


def _rfc6052(bits: int, prefix_length: int) -> IPv4Address:
    """The IPv4 address after a NAT64 prefix; bits 64 to 71 are not part of it."""
    without_u = (bits >> 64 << 56) | (bits & ((1 << 56) - 1))  # 120 bits
    return IPv4Address(without_u >> (120 - prefix_length - 32) & _LOW_32)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return address in _NAT64  # judged by what it carries
    return not _within(address, _NON_PUBLIC)


def _within(address: Address, table: tuple[Network, ...]) -> bool:
    return any(address in network for network in table)


_NEVER: Final[tuple[Network, ...]] = tuple(ip_network(text) for text in _NEVER_TEXT)
_NON_PUBLIC: Final[tuple[Network, ...]] = tuple(ip_network(text) for text in _NON_PUBLIC_TEXT)
