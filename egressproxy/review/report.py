"""``report``: what ``denies``, ``flows`` and their pages show; the one place that makes lines.

Two ways lead to the same lines. Where no class is wanted (sorting by count or time), the database
finds the few groups that are shown and only their subjects are read. Otherwise all subjects are
read, up to ``queries.MAX_SUBJECTS``, the commonest first, and judged by the classifier.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from egressproxy.review import queries
from egressproxy.review.folding import fold
from egressproxy.review.model import Class, Group, ReviewLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from egressproxy.review.model import Filter, Finding, Subject, SubjectCount
    from egressproxy.review.queries import GroupCount
    from egressproxy.review.store import Store

Order = Literal["count", "last", "class"]
MAX_SHOWN: Final = 5
"""Targets, ports, reasons, rules and sources that a line names."""
NO_REQUIREMENT: Final = "(no requirement)"
NO_CLASS: Final = "(allowed)"

_URGENCY: Final = {kind: place for place, kind in enumerate(Class)}


class Findings(Protocol):
    """What a line needs of a ``Classifier``."""

    def finding(self, subject: Subject) -> Finding:
        """The class of a denied subject, and why."""
        ...


class ClassCount(NamedTuple):
    """How many lines are of a class, before any was folded, and their flows."""

    kind: Class
    lines: int
    flows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Lines with what they are a part of.

    ``more`` lines were left out by the limit. ``classes`` counts by class, the most urgent first;
    empty where nothing was classified. ``is_cut`` says that there were more subjects than
    are read, so that rare ones are missing.
    """

    lines: tuple[ReviewLine, ...]
    more: int
    totals: queries.Totals
    classes: tuple[ClassCount, ...] = ()
    is_cut: bool = False


def report(
    store: Store,
    where: Filter,
    by: Group,
    *,
    limit: int,
    classifier: Findings | None = None,
    order: Order = "count",
    is_folded: bool = False,
) -> Report:
    """What flows a filter means, a line for each group.

    ``limit`` is of lines, 0 is all. ``order`` is the commonest first, the latest first, or the most
    urgent class first and within it the commonest. Without a classifier no line has a finding, and
    every deny counts as ``unknown``. ``is_folded`` lines of names stand for all names alike
    below one suffix: their key is ``*.suffix``, which a filter understands.

    Raises:
        StoreError: as the queries do.
    """
    listing = _Listing(by, limit, order, is_folded=is_folded and by is Group.NAME)
    wants_classes = bool(where.classes) or by in (Group.CLASS, Group.REQUIREMENT)
    is_of_all = wants_classes or order == "class" or listing.is_folded
    return (_of_all if is_of_all else _of_top)(store, where, listing, classifier)


def group(
    counts: Iterable[SubjectCount], by: Group, classifier: Findings | None = None
) -> list[ReviewLine]:
    """Subjects as lines, in no order that means anything."""
    return [each.line() for each in _gathered(counts, by, classifier).values()]


def key_of(subject: Subject, by: Group, classifier: Findings | None = None) -> str:
    """What subjects of one line have in common; the database says the same (``queries.top``)."""
    match by:
        case Group.NAME:
            return target_of(subject)
        case Group.SOURCE:
            return subject.src_ip
        case Group.REASON:
            return str(subject.reason)
        case Group.RULE:
            return subject.rule or queries.NO_RULE
        case Group.PORT:
            return _port(subject)
        case Group.GATEWAY:
            return subject.gateway
        case Group.CLASS:
            return str(_class(subject, classifier) or NO_CLASS)
        case Group.REQUIREMENT:
            return _requirement(subject, classifier) or NO_REQUIREMENT


def target_of(subject: Subject) -> str:
    """What was wanted: the name, else the address, else a word in parentheses."""
    if subject.is_overflow:
        return queries.OVERFLOW
    return subject.target or queries.NO_TARGET


# The two ways


class _Listing(NamedTuple):
    by: Group
    limit: int
    order: Order
    is_folded: bool


def _of_top(store: Store, where: Filter, listing: _Listing, classifier: Findings | None) -> Report:
    """The groups as the database counts them, with what their subjects say besides."""
    by = listing.by
    top = queries.top(store, where, by, limit=listing.limit, by_time=listing.order == "last")
    keys = [each.key for each in top]
    counts = []
    if keys:
        counts = queries.subjects(store, where, limit=queries.MAX_SUBJECTS, by=by, keys=keys)
    gathered = _gathered(counts, by, classifier)
    return Report(
        lines=tuple(
            _counted(gathered[each.key].line(), each) for each in top if each.key in gathered
        ),
        more=top[0].groups - len(top) if top else 0,
        totals=queries.totals(store, where),
        is_cut=len(counts) >= queries.MAX_SUBJECTS,
    )


def _counted(line: ReviewLine, count: GroupCount) -> ReviewLine:
    """A line with the database's counts, which are whole where not all subjects were read."""
    return replace(
        line,
        count=count.count,
        first_at=count.first_at,
        last_at=count.last_at,
        sources=count.sources,
        target_count=count.targets,
        bytes_up=count.bytes_up,
        bytes_down=count.bytes_down,
    )


def _of_all(store: Store, where: Filter, listing: _Listing, classifier: Findings | None) -> Report:
    counts = queries.subjects(store, where, limit=queries.MAX_SUBJECTS)
    is_cut = len(counts) >= queries.MAX_SUBJECTS
    if where.classes:
        counts = [each for each in counts if _class(each.subject, classifier) in where.classes]
    gathered = list(_gathered(counts, listing.by, classifier).values())
    classes = tuple(_classes(gathered))
    if listing.is_folded:
        gathered = list(_folded(gathered))
    gathered.sort(key=_ORDERS[listing.order])
    shown = gathered[: listing.limit or None]
    return Report(
        lines=tuple(each.line() for each in shown),
        more=len(gathered) - len(shown),
        totals=queries.totals(store, where) if is_cut and not where.classes else _totals(counts),
        classes=classes,
        is_cut=is_cut,
    )


def _folded(gathered: Iterable[_Gathering]) -> Iterator[_Gathering]:
    for key, family in fold(gathered, lambda each: each.key, lambda each: each.finding):
        if len(family) == 1:
            yield family[0]
            continue
        whole = _Gathering(key)
        for each in family:
            for subject in each.subjects:
                whole.take(subject, each.finding)
        yield whole


_ORDERS: Final[dict[Order, Callable[[_Gathering], tuple[float | str, ...]]]] = {
    "count": lambda line: (-line.count, line.key),
    "last": lambda line: (-line.last_at, line.key),
    "class": lambda line: (line.urgency, -line.count, line.key),
}


def _classes(gathered: Iterable[_Gathering]) -> Iterator[ClassCount]:
    lines_of: Counter[Class] = Counter()
    flows_of: Counter[Class] = Counter()
    for each in gathered:
        if each.finding is not None:
            lines_of[each.finding.kind] += 1
            flows_of[each.finding.kind] += each.count
    for kind in Class:
        if lines_of[kind]:
            yield ClassCount(kind, lines_of[kind], flows_of[kind])


def _totals(counts: list[SubjectCount]) -> queries.Totals:
    return queries.Totals(
        flows=sum(each.count for each in counts),
        subjects=len(counts),
        targets=len({target_of(each.subject) for each in counts}),
        sources=len({each.subject.src_ip for each in counts}),
        gateways=len({each.subject.gateway for each in counts}),
        first_at=min((each.first_at for each in counts), default=None),
        last_at=max((each.last_at for each in counts), default=None),
    )


# One line


def _gathered(
    counts: Iterable[SubjectCount], by: Group, classifier: Findings | None
) -> dict[str, _Gathering]:
    found: dict[str, _Gathering] = {}
    for each in counts:
        key = key_of(each.subject, by, classifier)
        gathering = found.get(key)
        if gathering is None:
            gathering = found[key] = _Gathering(key)
        gathering.take(each, _finding(each.subject, classifier))
    return found


@dataclass(slots=True)
class _Gathering:
    """A line in the making: what sorting asks is at hand, the rest is made of what is shown."""

    key: str
    count: int = 0
    last_at: float = 0.0
    finding: Finding | None = None
    subjects: list[SubjectCount] = field(default_factory=list)

    def take(self, each: SubjectCount, finding: Finding | None) -> None:
        self.count += each.count
        self.last_at = max(self.last_at, each.last_at)
        self.subjects.append(each)
        if finding is not None and (
            self.finding is None or _URGENCY[finding.kind] < _URGENCY[self.finding.kind]
        ):
            self.finding = finding

    @property
    def urgency(self) -> int:
        return _URGENCY[self.finding.kind] if self.finding else _URGENCY[Class.UNKNOWN]

    def line(self) -> ReviewLine:
        sources = self._flows_by(lambda subject: subject.src_ip)
        targets = self._flows_by(target_of)
        return ReviewLine(
            key=self.key,
            count=self.count,
            first_at=min(each.first_at for each in self.subjects),
            last_at=self.last_at,
            sources=len(sources),
            source_sample=_most(sources),
            targets=_most(targets),
            target_count=len(targets),
            audited=sum(each.count for each in self.subjects if each.subject.would_deny),
            ports=_most(self._flows_by(_port)),
            reasons=_most(self._flows_by(lambda subject: str(subject.reason))),
            rules=_most(self._flows_by(lambda subject: subject.rule or "")),
            gateways=_most(self._flows_by(lambda subject: subject.gateway)),
            note=next(iter(_most(self._flows_by(lambda subject: subject.note))), ""),
            finding=self.finding,
            bytes_up=sum(each.bytes_up for each in self.subjects),
            bytes_down=sum(each.bytes_down for each in self.subjects),
            subjects=tuple(self.subjects),
        )

    def _flows_by(self, said: Callable[[Subject], str]) -> dict[str, int]:
        flows: dict[str, int] = {}
        for each in self.subjects:
            if text := said(each.subject):
                flows[text] = flows.get(text, 0) + each.count
        return flows


def _most(flows: dict[str, int]) -> tuple[str, ...]:
    """The commonest few; of equals the first in order of text, so that output does not waver."""
    ranked = sorted(flows.items(), key=lambda item: (-item[1], item[0]))
    return tuple(text for text, _ in ranked[:MAX_SHOWN])


def _finding(subject: Subject, classifier: Findings | None) -> Finding | None:
    if classifier is None or not subject.is_denied:
        return None
    return classifier.finding(subject)


def _class(subject: Subject, classifier: Findings | None) -> Class | None:
    """The class of a deny; an allow has none."""
    if not subject.is_denied:
        return None
    finding = _finding(subject, classifier)
    return finding.kind if finding else Class.UNKNOWN


def _requirement(subject: Subject, classifier: Findings | None) -> str:
    """The requirement that lacks, or whose row decided: of ``aks/core#mcr`` the first part."""
    finding = _finding(subject, classifier)
    if finding is not None and finding.requirement:
        return finding.requirement
    head, mark, _ = (subject.rule or "").partition("#")
    return head if mark else ""


def _port(subject: Subject) -> str:
    return f"{subject.protocol}:{subject.dst_port}"
