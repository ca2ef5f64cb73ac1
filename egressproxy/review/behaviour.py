"""What a client does over time that one deny does not show: many names, a tunnel, a second try.

A subject alone says what was wanted once. Here the denies of a span are looked at by their source.
The thresholds are judgement: clusters ask for a few dozen names that are refused, day by day the
same; what walks a list, or hides data in names, asks for more. All is bounded by the sources that
stand out, not by what they asked for.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from egressproxy.patterns import is_public_suffix
from egressproxy.policy.verdict import Reason
from egressproxy.review.shapes import Shape, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from egressproxy.review.model import SubjectCount

MANY_NAMES: Final = 100
"""Different denied names of one source, unknown to the catalog, that stand out."""
MANY_ADDRESSES: Final = 50
"""Different denied addresses of one source, without a name, that stand out: a scan."""
TUNNEL_NAMES: Final = 25
"""Different denied names of one source below one suffix that have the shape of a tunnel."""
SECOND_TRY_S: Final = 600.0
"""How soon after a refused name a try by address belongs to it, seconds."""
MAX_SOURCES: Final = 10_000
"""Sources looked at; later ones are not."""
MAX_NAMES: Final = 5_000
"""Names, and addresses, looked at for each source."""

_CARRIES: Final = 12  # characters below which a label hardly hides anything
_LONG: Final = 40  # no name that somebody chose is so long
_OF_DATA: Final = (Shape.HASH, Shape.RANDOM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What sources did in a span; ``Behaviour()`` is what is known of nobody.

    ``names`` and ``addresses`` are how many different ones a source was refused, where that is
    many. ``tunnels`` has, for a source and a suffix, how many names below it. ``second_tries`` has,
    for a source and an address that it tried without a name, the name refused to it before.
    """

    names: Mapping[str, int] = field(default_factory=dict)
    addresses: Mapping[str, int] = field(default_factory=dict)
    tunnels: Mapping[tuple[str, str], int] = field(default_factory=dict)
    second_tries: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def tunnel_of(self, source: str, name: str) -> tuple[str, int] | None:
        """The suffix below which a source asked for many names, this one among them; how many."""
        if not self.tunnels:
            return None
        for suffix in _suffixes(name):
            count = self.tunnels.get((source, suffix))
            if count:
                return suffix, count
        return None


def is_public(address: str | None) -> bool:
    """Whether a text is an address of the public internet; never raises."""
    try:
        return address is not None and ip_address(address).is_global
    except ValueError:
        return False


def behaviour_of(counts: Iterable[SubjectCount]) -> Behaviour:
    """What the denied subjects of a span tell about their sources; allowed ones are passed over.

    Subjects are read once, in any order, and not kept.
    """
    sources: dict[str, _Source] = {}
    for one in counts:
        subject = one.subject
        if not subject.is_denied or subject.is_overflow:
            continue
        source = sources.get(subject.src_ip)
        if source is None:
            if len(sources) >= MAX_SOURCES:
                continue
            source = sources[subject.src_ip] = _Source()
        source.add(one)
    return _sum_up(sources)


@dataclass(slots=True)
class _Source:
    """What one source was refused.

    ``names`` are those the catalog has no word on. ``refused`` has the name and the time of the
    first refusal for each address that came with a name, and under ``None`` for the resolver's.
    """

    names: set[str] = field(default_factory=set)
    nameless: dict[str, float] = field(default_factory=dict)
    refused: dict[str | None, tuple[float, str]] = field(default_factory=dict)

    def add(self, one: SubjectCount) -> None:
        subject = one.subject
        if subject.name is None:
            if subject.dst_ip is not None and len(self.nameless) < MAX_NAMES:
                last = self.nameless.get(subject.dst_ip, 0.0)
                self.nameless[subject.dst_ip] = max(last, one.last_at)
            return
        if len(self.names) < MAX_NAMES and not subject.note:
            self.names.add(subject.name)
        address = None if subject.reason is Reason.DNS_REFUSED else subject.dst_ip
        if address is None and subject.reason is not Reason.DNS_REFUSED:
            return
        known = self.refused.get(address)
        if (known is None or one.first_at < known[0]) and len(self.refused) < MAX_NAMES:
            self.refused[address] = one.first_at, subject.name

    def second_tries(self) -> Iterable[tuple[str, str]]:
        """Addresses tried without a name after a name was refused, with that name."""
        asked = self.refused.get(None)
        for address, last in self.nameless.items():
            first = self.refused.get(address)
            if first is not None and first[0] <= last:
                yield address, first[1]
            elif asked is not None and 0 <= last - asked[0] <= SECOND_TRY_S and is_public(address):
                yield address, asked[1]


def _sum_up(sources: Mapping[str, _Source]) -> Behaviour:
    names, addresses = {}, {}
    tunnels: dict[tuple[str, str], int] = {}
    tries: dict[tuple[str, str], str] = {}
    for source, did in sources.items():
        if len(did.names) >= MANY_NAMES:
            names[source] = len(did.names)
        if len(did.nameless) >= MANY_ADDRESSES:
            addresses[source] = len(did.nameless)
        if len(did.names) >= TUNNEL_NAMES:
            tunnels.update({(source, suffix): n for suffix, n in _tunnels(did.names)})
        tries.update({(source, address): name for address, name in did.second_tries()})
    return Behaviour(names=names, addresses=addresses, tunnels=tunnels, second_tries=tries)


def _tunnels(names: Iterable[str]) -> Iterable[tuple[str, int]]:
    """Suffixes below which there are many names that may carry data."""
    below: defaultdict[str, int] = defaultdict(int)
    for name in names:
        for suffix in _suffixes(name):
            below[suffix] += _may_carry(name[: -len(suffix) - 1])
    many = [(suffix, count) for suffix, count in below.items() if count >= TUNNEL_NAMES]
    return [(suffix, count) for suffix, count in many if not is_public_suffix(suffix)]


def _may_carry(text: str) -> bool:
    """Whether what stands before a suffix is long, and no words that somebody chose."""
    if len(text) < _CARRIES:
        return False
    return len(text) >= _LONG or any(shape_of(label) in _OF_DATA for label in text.split("."))


def _suffixes(name: str) -> Iterable[str]:
    """What is above a name, the longest first and no top-level domain; at most eight."""
    labels = name.split(".")
    return [".".join(labels[n:]) for n in range(1, len(labels) - 1)][-8:]
