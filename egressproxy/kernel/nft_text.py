"""The words of the table: chains, marks, counts, logs and address matches as nft(8) writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.kernel.kernel_policy import Ranges
from egressproxy.kernel.nft_names import comment_of
from egressproxy.kernel.nft_sets import FAMILIES, ranges_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.kernel.firewall_options import FirewallOptions
    from egressproxy.kernel.nft_names import LogWord, Outcome
    from egressproxy.kernel.nft_sets import Sets
    from egressproxy.policy.networks import Network

SNAPLEN: Final = 160
"""Octets of a packet that are logged: its headers, IPv6 extension headers with them."""
ICMP_ERRORS: Final = (
    "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
    "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
)
"""What a sender must hear: path MTU and why it fails. Not redirects."""
_QUEUE: Final = 32
_WHOLE: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain; ``hook`` is empty where others jump to it."""

    name: str
    comment: str
    rules: tuple[str, ...]
    hook: str = ""

    def text(self) -> Iterator[str]:
        """Its lines, not indented."""
        yield f"chain {self.name} {{"
        yield f"\tcomment {comment_of(self.comment)}"
        if self.hook:
            yield f"\t{self.hook}"
        yield from (f"\t{rule}" for rule in self.rules)
        yield "}"


def has(field: str, bit: int) -> str:
    """Whether a mark (``ct`` or ``meta``) has a bit."""
    return f"{field} mark & {bit:#010x} != 0"


def lacks(field: str, bit: int) -> str:
    """Whether a mark has not got a bit."""
    return f"{field} mark & {bit:#010x} == 0"


def put(field: str, bit: int, *, instead_of: int = 0) -> str:
    """Set a bit of a mark, and take another away."""
    kept = f"{field} mark & {_WHOLE & ~instead_of:#010x}" if instead_of else f"{field} mark"
    return f"{field} mark set {kept} | {bit:#010x}"


def count(outcome: Outcome) -> str:
    """Count one judged packet."""
    return f'counter name "{outcome}"'


def log(word: LogWord, options: FirewallOptions) -> str:
    """Show packets to the group's reader, up to the rate; counters count the others, too."""
    rate = f"limit rate {options.log_rate}/second burst {options.log_rate} packets"
    group = f"group {options.nflog_group} snaplen {SNAPLEN} queue-threshold {_QUEUE}"
    return f'{rate} log prefix "{word}" {group}'


def inside(field: str, networks: Iterable[Network], sets: Sets) -> Iterator[str]:
    """Matches of every packet whose address is in the networks."""
    ranges = Ranges.of(networks)
    for version in FAMILIES:
        if ranges_of(ranges, version):
            yield sets.match(field, version, ranges)


def outside(field: str, networks: Iterable[Network], sets: Sets) -> Iterator[str]:
    """Matches of every packet whose address is not in the networks."""
    ranges = Ranges.of(networks)
    for version in FAMILIES:
        found = ranges_of(ranges, version)
        if not found:
            yield f"meta nfproto ipv{version}"
        elif all(network.prefixlen for network in found):
            yield sets.match(field, version, ranges, negated=True)
