"""What a client does over time that one deny does not show: many names, a tunnel, a second try.

A subject alone says what was wanted once. Here the denies of a span are looked at by their source.
The thresholds are judgement: clusters ask for a few dozen names that are refused, day by day the
same; what walks a list, or hides data in names, asks for more. All is bounded by the sources that
stand out, not by what they asked for: from a store, only the subjects of sources are read that are
so many, or such a mixture, that a threshold may apply.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, case, distinct, func, not_, or_, select

from egressproxy.policy.lint_names import is_shared
from egressproxy.policy.verdict import Reason
from egressproxy.review.filters import conditions
from egressproxy.review.model import Filter
from egressproxy.review.outside import is_outside
from egressproxy.review.schema import subject
from egressproxy.review.shapes import Shape, shape_of
from egressproxy.review.spans import flows_of, times_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import ColumnElement, Select

    from egressproxy.review.model import SubjectCount
    from egressproxy.review.store import Store

MANY_NAMES: Final = 100
"""Different denied names of one source, unknown to the catalog and its own, that stand out."""
MANY_ADDRESSES: Final = 50
"""Different denied addresses of one source, without a name, that stand out: a scan."""
TUNNEL_NAMES: Final = 25
"""Different denied names of one source below one suffix that have the shape of a tunnel."""
MAX_WANTED_BY: Final = 3
"""Sources that may want a name which still counts as each one's own: what more want is a service
that they all use, and carries nobody's data."""
SECOND_TRY_S: Final = 600.0
"""How soon after a refused name a try by address belongs to it, seconds."""
MAX_SOURCES: Final = 1_000
"""Sources looked at."""
MAX_NAMES: Final = 5_000
"""Names, and addresses, looked at for each source."""
MAX_SUBJECTS: Final = 200_000
"""Subjects read from a store for one answer."""

_CARRIES: Final = 12  # characters below which a label hardly hides anything
_LONG: Final = 40  # no name that somebody chose is so long
_OF_DATA: Final = (Shape.HASH, Shape.RANDOM)
_of: Final = subject.c


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


def observe_behaviour(store: Store, since: float | None, until: float | None) -> Behaviour:
    """What sources did between two moments, POSIX seconds; ``None`` is no bound.

    Raises:
        StoreError: the store cannot be read.
    """
    where = Filter(since=since, until=until, is_denied=True)
    meant = (*conditions(where), not_(_of.is_overflow))
    restless = _restless(meant).subquery("restless")
    among = (
        select(_of.id).where(*meant, _of.src_ip.in_(select(restless.c.src_ip))).subquery("among")
    )
    with store.connect() as connection:
        flows = flows_of(times_of(connection, where), among)
        spans = (
            select(
                flows.c.subject_id,
                func.min(flows.c.first_at).label("first_at"),
                func.max(flows.c.last_at).label("last_at"),
            )
            .group_by(flows.c.subject_id)
            .subquery("spans")
        )
        found = (
            select(
                _of.src_ip,
                _of.name,
                _of.dst_ip,
                (_of.reason == Reason.DNS_REFUSED.value).label("is_by_dns"),
                (_of.note != "").label("is_known"),
                spans.c.first_at,
                spans.c.last_at,
            )
            .join(spans, spans.c.subject_id == _of.id)
            .order_by(_of.id)
            .limit(MAX_SUBJECTS)
        )
        return sum_up(Deed(*row) for row in connection.execute(found))


class Deed(NamedTuple):
    """What a source was refused in a span; times are POSIX seconds of the first and last flow.

    ``name`` or ``address`` may be missing. ``is_by_dns`` is a name refused by the resolver, whose
    address nobody was told. ``is_known`` says that the catalog has a word on the name.
    """

    source: str
    name: str | None
    address: str | None
    is_by_dns: bool
    is_known: bool
    first_at: float
    last_at: float


def behaviour_of(counts: Iterable[SubjectCount]) -> Behaviour:
    """What the denied subjects of a span tell about their sources; allowed ones are passed over.

    Subjects are read once, in any order, and not kept.
    """
    return sum_up(
        Deed(
            one.subject.src_ip,
            one.subject.name,
            one.subject.dst_ip,
            one.subject.reason is Reason.DNS_REFUSED,
            bool(one.subject.note),
            one.first_at,
            one.last_at,
        )
        for one in counts
        if one.subject.is_denied and not one.subject.is_overflow
    )


def sum_up(deeds: Iterable[Deed]) -> Behaviour:
    """What deeds, in any order, tell about their sources."""
    sources: dict[str, _Source] = {}
    for deed in deeds:
        source = sources.get(deed.source)
        if source is None:
            if len(sources) >= MAX_SOURCES:
                continue
            source = sources[deed.source] = _Source()
        source.add(deed)
    return _behaviour(sources)


@dataclass(slots=True)
class _Source:
    """What one source was refused.

    ``names`` are those the catalog has no word on. ``nameless`` are addresses with the time of the
    last try. ``refused`` has, for an address, the name it was wanted by and the first time; under
    ``None`` the first name that the resolver refused.
    """

    names: set[str] = field(default_factory=set)
    nameless: dict[str, float] = field(default_factory=dict)
    refused: dict[str | None, tuple[float, str]] = field(default_factory=dict)

    def add(self, deed: Deed) -> None:
        if deed.name is None:
            if deed.address is not None and len(self.nameless) < MAX_NAMES:
                last = self.nameless.get(deed.address, 0.0)
                self.nameless[deed.address] = max(last, deed.last_at)
            return
        if len(self.names) < MAX_NAMES and not deed.is_known:
            self.names.add(deed.name)
        address = None if deed.is_by_dns else deed.address
        if (address is None and not deed.is_by_dns) or len(self.refused) >= MAX_NAMES:
            return
        self.refused[address] = min(
            self.refused.get(address, (deed.first_at, deed.name)), (deed.first_at, deed.name)
        )

    def second_tries(self) -> Iterable[tuple[str, str]]:
        """Addresses tried without a name after a name was refused, with that name."""
        asked = self.refused.get(None)
        for address, last in self.nameless.items():
            first = self.refused.get(address)
            if first is not None and first[0] <= last:
                yield address, first[1]
            elif asked is not None and 0 <= last - asked[0] <= SECOND_TRY_S and is_outside(address):
                yield address, asked[1]


def _behaviour(sources: Mapping[str, _Source]) -> Behaviour:
    wanted_by = Counter(name for did in sources.values() for name in did.names)
    names, addresses = {}, {}
    tunnels: dict[tuple[str, str], int] = {}
    tries: dict[tuple[str, str], str] = {}
    for source, did in sources.items():
        own = [name for name in did.names if wanted_by[name] <= MAX_WANTED_BY]
        if len(own) >= MANY_NAMES:
            names[source] = len(own)
        if len(did.nameless) >= MANY_ADDRESSES:
            addresses[source] = len(did.nameless)
        if len(own) >= TUNNEL_NAMES:
            tunnels.update({(source, suffix): n for suffix, n in _tunnels(own)})
        tries.update({(source, address): name for address, name in did.second_tries()})
    return Behaviour(names=names, addresses=addresses, tunnels=tunnels, second_tries=tries)


def _tunnels(names: Iterable[str]) -> Iterable[tuple[str, int]]:
    """Suffixes of one owner below which there are many names that may carry data."""
    below: defaultdict[str, int] = defaultdict(int)
    for name in names:
        for suffix in _suffixes(name):
            below[suffix] += _may_carry(name[: -len(suffix) - 1])
    many = [(suffix, count) for suffix, count in below.items() if count >= TUNNEL_NAMES]
    return [(suffix, count) for suffix, count in many if not is_shared(suffix)]


def _may_carry(text: str) -> bool:
    """Whether what stands before a suffix is long, and no words that somebody chose."""
    if len(text) < _CARRIES:
        return False
    return len(text) >= _LONG or any(shape_of(label) in _OF_DATA for label in text.split("."))


def _suffixes(name: str) -> Iterable[str]:
    """What is above a name, the longest first and no top-level domain; at most eight."""
    labels = name.split(".")
    return [".".join(labels[n:]) for n in range(1, len(labels) - 1)][-8:]


def _restless(meant: tuple[ColumnElement[bool], ...]) -> Select[Any]:
    """Sources that any threshold may apply to, those with most subjects first."""
    names = func.count(distinct(_of.name))
    addresses = func.count(distinct(case((_of.name.is_(None), _of.dst_ip))))
    stands_out = or_(
        names >= min(MANY_NAMES, TUNNEL_NAMES),
        addresses >= MANY_ADDRESSES,
        and_(names > 0, addresses > 0),
    )
    return (
        select(_of.src_ip)
        .where(*meant)
        .group_by(_of.src_ip)
        .having(stands_out)
        .order_by(func.count().desc(), _of.src_ip)
        .limit(MAX_SOURCES)
    )
