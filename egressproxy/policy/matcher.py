"""From a name or an address to the groups of rules that mention it.

One ``Table`` holds everything a policy mentions: exact names, suffixes, prefixes under a suffix,
destination and source networks. A name is looked up whole, then its suffixes from the right, one
probe a label and no deeper than the deepest suffix of the policy; prefixes under a suffix
(``md-*.suffix``) cost a probe for each distinct prefix length there. An address costs a probe for
each distinct prefix length of the policy. So no lookup depends on how many rules there are, and
``*`` means here what ``patterns.Pattern`` says.

A value is a *group*: the ascending numbers of the rules (or source sets) that mention the key. A
group of one is the number itself, a longer one a place in ``words``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from egressproxy.patterns import Pattern
    from egressproxy.policy.table import Table

LONG_GROUP: Final = 1 << 31
"""Set in a value that is a place in ``words``, where the group's size and members are."""

_EXACT: Final = b"="
_SUFFIX: Final = b"."  # followed by the suffix: the key is the name's own tail, dot included
_LENGTHS: Final = b","  # the prefix lengths under a suffix
_PREFIX: Final = b"*"  # prefix, "*", dot, suffix; neither part can contain a "*"


class AddressUse(IntEnum):
    """Which of a rule's networks a key is about."""

    DESTINATION = 0
    SOURCE = 1


_ADDRESS_KINDS: Final = {
    (AddressUse.DESTINATION, 4): b"4",
    (AddressUse.DESTINATION, 16): b"6",
    (AddressUse.SOURCE, 4): b"s",
    (AddressUse.SOURCE, 16): b"S",
}


def pattern_key(pattern: Pattern) -> bytes:
    """The key of a pattern."""
    if pattern.prefix is None:
        return _EXACT + pattern.suffix.encode()
    if not pattern.prefix:
        return _SUFFIX + pattern.suffix.encode()
    return f"*{pattern.prefix}*.{pattern.suffix}".encode()


def text_key(text: str) -> bytes:
    """The key of a pattern in normal form, given as text."""
    if "*" not in text:
        return _EXACT + text.encode()
    return text[1:].encode() if text.startswith("*") else b"*" + text.encode()


def lengths_key(suffix: bytes) -> bytes:
    """The key of the prefix lengths under ``.suffix`` (with its dot)."""
    return _LENGTHS + suffix


def network_key(use: AddressUse, network: IPv4Network | IPv6Network) -> bytes:
    """The key of a network."""
    packed = network.network_address.packed
    kind = _ADDRESS_KINDS[use, len(packed)]
    return kind + bytes((network.prefixlen,)) + packed


class Depths(NamedTuple):
    """What lookups can leave out; all found in the policy when it is compiled.

    ``suffixes`` and ``prefixed`` have bit n set where some suffix of n labels has a ``*.suffix``, a
    ``p*.suffix``. ``networks`` has the prefix lengths in use for each (use, octets).
    """

    suffixes: int = 0
    prefixed: int = 0
    networks: tuple[tuple[tuple[AddressUse, int], tuple[int, ...]], ...] = ()


class Matcher:
    """Looks names and addresses up; pure and read-only."""

    __slots__ = ("_all", "_find", "_networks", "_prefixed", "_suffixes", "table", "words")

    def __init__(self, table: Table, words: Sequence[int], depths: Depths) -> None:
        self.table = table
        self._find = table.find
        self.words = words
        self._suffixes = depths.suffixes
        self._prefixed = depths.prefixed
        self._all = depths.suffixes | depths.prefixed
        self._networks = {
            key: tuple((_ADDRESS_KINDS[key] + bytes((n,)), 8 * key[1] - n) for n in lengths)
            for key, lengths in depths.networks
        }

    def group(self, value: int) -> Sequence[int]:
        """The members of a value, ascending."""
        if value < LONG_GROUP:
            return (value,)
        at = value - LONG_GROUP
        return self.words[at + 1 : at + 1 + self.words[at]]

    def names(self, name: str) -> list[int]:
        """The groups of the patterns that mean a name; ``Pattern.matches`` is the reference."""
        raw = name.encode("ascii", "replace")  # "?" is in no key
        exact = self._find(_EXACT + raw)
        found = [] if exact is None else [exact]
        remaining = self._all >> 1
        depth = 1
        dot = raw.rfind(b".")
        while remaining and dot > 0:
            if remaining & 1:
                self._below(raw, dot, depth, found)
            remaining >>= 1
            depth += 1
            dot = raw.rfind(b".", 0, dot)
        return found

    def _below(self, raw: bytes, dot: int, depth: int, found: list[int]) -> None:
        """The patterns under the suffix that starts at a dot."""
        suffix = raw[dot:]
        if self._suffixes >> depth & 1:
            value = self._find(suffix)
            if value is not None:
                found.append(value)
        if self._prefixed >> depth & 1:
            for length in self._prefix_lengths(suffix):
                if length >= dot:
                    break
                value = self._find(b"%b%b*%b" % (_PREFIX, raw[:length], suffix))
                if value is not None:
                    found.append(value)

    def _prefix_lengths(self, suffix: bytes) -> Iterator[int]:
        at = self._find(_LENGTHS + suffix)
        if at is not None:
            lengths = self.words[at] | self.words[at + 1] << 32
            while lengths:
                lowest = lengths & -lengths
                yield lowest.bit_length() - 1
                lengths ^= lowest

    def covering(self, pattern: str) -> list[int]:
        """The groups of the patterns that mean every name that a pattern in normal form means."""
        return self.names(pattern.replace("*", "\0"))  # a name below it that no key is about

    def holding(self, network: IPv4Network | IPv6Network) -> list[int]:
        """The groups of the destination networks that a whole network is in."""
        packed = network.network_address.packed
        number, size = int.from_bytes(packed), len(packed)
        found = []
        for kind, host_bits in self._networks.get((AddressUse.DESTINATION, size), ()):
            if host_bits >= 8 * size - network.prefixlen:
                masked = number >> host_bits << host_bits
                value = self._find(kind + masked.to_bytes(size))
                if value is not None:
                    found.append(value)
        return found

    def addresses(self, use: AddressUse, packed: bytes) -> list[int]:
        """The groups of the networks that an address is in."""
        number = int.from_bytes(packed)
        size = len(packed)
        found = []
        for kind, host_bits in self._networks.get((use, size), ()):
            masked = number >> host_bits << host_bits
            value = self._find(kind + masked.to_bytes(size))
            if value is not None:
                found.append(value)
        return found
