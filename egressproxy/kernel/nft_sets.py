"""Addresses in the table's text: a few stand in the rule, many in a set named after its content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.kernel.nft_names import comment_of, name_sets, range_set
from egressproxy.kernel.nft_spans import spans_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from ipaddress import IPv4Network, IPv6Network
    from typing import TypeAlias

    from egressproxy.kernel.kernel_policy import Ranges
    from egressproxy.kernel.nft_apply import SetState
    from egressproxy.names import DnsName

    Networks: TypeAlias = tuple[IPv4Network | IPv6Network, ...]

FAMILIES: Final = (4, 6)
_MOST_IN_A_RULE: Final = 8
_A_LINE: Final = 5
_WORD: Final = {4: "ip", 6: "ip6"}
_TYPE: Final = {4: "ipv4_addr", 6: "ipv6_addr"}


def ranges_of(ranges: Ranges, version: int) -> tuple[IPv4Network | IPv6Network, ...]:
    """The ranges of one family."""
    return ranges.v4 if version == 4 else ranges.v6


def element(network: IPv4Network | IPv6Network) -> str:
    """``10.0.0.0/8``, or ``10.0.0.1`` where it is one address."""
    return str(network.network_address if network.num_addresses == 1 else network)


class Sets:
    """Writes address matches and collects the sets that they need."""

    def __init__(self) -> None:
        self._ranges: dict[str, tuple[Networks, tuple[str, ...]]] = {}
        self._names: dict[DnsName, None] = {}

    def match(self, field: str, version: int, ranges: Ranges, *, negated: bool = False) -> str:
        """``ip daddr …`` of the ranges of a family, of which there is at least one.

        Args:
            field: ``saddr`` or ``daddr``.
            version: 4 or 6.
            ranges: where the address is.
            negated: where it is not; not for ranges that are all addresses of the family.
        """
        networks = ranges_of(ranges, version)
        if networks[0].prefixlen == 0:
            return f"meta nfproto ipv{version}"
        operator = "!= " if negated else ""
        return f"{_WORD[version]} {field} {operator}{self._right_side(version, networks)}"

    def match_name(self, version: int, name: DnsName) -> str:
        """``ip daddr @…`` of the addresses of a name."""
        self._names[name] = None
        return f"{_WORD[version]} daddr @{name_sets(name)[FAMILIES.index(version)]}"

    def _right_side(self, version: int, networks: Networks) -> str:
        texts = tuple(map(element, networks))
        if len(texts) == 1:
            return texts[0]
        listed = ", ".join(texts)
        if len(texts) <= _MOST_IN_A_RULE:
            return f"{{ {listed} }}"
        name = range_set(version, listed)
        self._ranges[name] = (networks, texts)
        return f"@{name}"

    def used(self) -> frozenset[str]:
        """The names of all sets."""
        names = (name for each in self._names for name in name_sets(each))
        return frozenset((*self._ranges, *names))

    def changed(self, existing: Mapping[str, SetState]) -> Iterator[str]:
        """The sets of ranges that somebody changed by hand: to be emptied and filled again."""
        for name, (networks, _) in self._ranges.items():
            if name in existing and _is_changed(existing[name], networks):
                yield name

    def declarations(self, known: Collection[str]) -> Iterator[str]:
        """The lines of the sets, without those of ``known``."""
        for name, (networks, texts) in self._ranges.items():
            if name not in known:
                yield from _range_set(name, networks[0].version, texts)
        for each in self._names:
            for version, name in zip(FAMILIES, name_sets(each), strict=True):
                if name not in known:
                    yield from _name_set(name, version, each)


def _is_changed(state: SetState, networks: Networks) -> bool:
    """By its addresses; by how many it has where they cannot be read, as of an nft to come."""
    if state.elements == -1:
        return False
    if state.spans is None:
        return state.elements != len(networks)
    return state.spans != spans_of(networks)


def _range_set(name: str, version: int, texts: tuple[str, ...]) -> Iterator[str]:
    yield f"set {name} {{"
    yield f"\ttype {_TYPE[version]}; flags interval"
    yield f'\tcomment "{len(texts)} ranges"'
    yield "\telements = {"
    for start in range(0, len(texts), _A_LINE):
        yield f"\t\t{', '.join(texts[start : start + _A_LINE])},"
    yield "\t}"
    yield "}"


def _name_set(name: str, version: int, dns_name: DnsName) -> Iterator[str]:
    """Empty: whoever resolves the name fills it, with a timeout for each address."""
    yield f"set {name} {{"
    yield f"\ttype {_TYPE[version]}; flags timeout"
    yield f"\tcomment {comment_of(dns_name)}"
    yield "}"
