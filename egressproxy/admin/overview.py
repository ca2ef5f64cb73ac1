"""``/review``: what was denied, how much of it is urgent, what it was and who wanted it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from aiohttp import web

from egressproxy.admin.plot import NARROW, WIDE, Plot, plot
from egressproxy.admin.reloads import headline
from egressproxy.review import queries
from egressproxy.review.ask import class_text
from egressproxy.review.model import Class, Filter, Group
from egressproxy.review.report import group, target_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from egressproxy.admin.frame import Frame
    from egressproxy.admin.review_data import Review
    from egressproxy.review.model import Finding, Point, ReviewLine, StoredRecord, SubjectCount

TOP: Final = 8
RELOADS: Final = 4
NEWEST: Final = 12
CHEAP_S: Final = 0.5
"""What costs less is made anew each time."""
KEEP_TIMES: Final = 4
MAX_KEEP_S: Final = 60.0
MAX_SUBJECTS: Final = 20_000
"""Subjects that are looked at; rarer ones count in the totals and the plot alone."""


@dataclass(frozen=True, slots=True)
class Span:
    """A choice of how far back to look: ``text`` is what the URL says, ``step_s`` a bar's width."""

    text: str
    words: str
    seconds: int
    step_s: int


SPANS: Final = (
    Span("1h", "last hour", 3600, 120),
    Span("24h", "last 24 hours", 24 * 3600, 3600),
    Span("7d", "last 7 days", 7 * 86400, 6 * 3600),
    Span("30d", "last 30 days", 30 * 86400, 86400),
)
DEFAULT_SPAN: Final = SPANS[1]
KINDS: Final = tuple(class_text(kind) for kind in reversed(Class))
"""From the bottom of a bar to its top: the most urgent is on top."""


MAX_LINES: Final = {
    Class.SUSPICIOUS: 5,
    Class.MISSING_REQUIREMENT: 6,
    Class.NEAR_MISS: 5,
    Class.UNKNOWN: 6,
    Class.OPTIONAL: 0,
    Class.HARMLESS: 0,
}
"""Lines of each class that are shown: of what is noise, the number alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What was denied for one reason; ``targets`` are names or addresses, the commonest first.

    ``symptom`` is what people see meanwhile, if that is known.
    """

    why: str
    symptom: str
    targets: tuple[str, ...]
    flows: int
    clients: int
    last_at: float


@dataclass(frozen=True, slots=True)
class OfClass:
    """All of one class; ``lines`` are its commonest, ``more`` how many are not shown."""

    kind: Class
    flows: int
    names: int
    lines: tuple[Line, ...]
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewView:
    """The page; ``classes`` has the most urgent first, and none without flows."""

    span: Span
    totals: queries.Totals
    audited: int
    classes: tuple[OfClass, ...]
    sources: tuple[ReviewLine, ...]
    newest: tuple[tuple[StoredRecord, Class], ...]
    newest_id: int
    plots: tuple[Plot, ...]
    is_cut: bool
    is_empty: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """A view, when it was made (POSIX seconds) and how long that took, seconds."""

    view: OverviewView
    made_at: float
    cost_s: float

    def is_fresh(self, now: float) -> bool:
        """Whether it is served again: the dearer the longer, so that pages cost a part of a CPU."""
        if self.cost_s < CHEAP_S:
            return False
        return 0 <= now - self.made_at < min(KEEP_TIMES * self.cost_s, MAX_KEEP_S)


class Overview:
    """The handler of the page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._kept: dict[Span, Kept] = {}

    def routes(self) -> list[web.RouteDef]:
        """The page with its path."""
        return [web.get("/review", self.overview)]

    async def overview(self, request: web.Request) -> web.Response:
        """The page of a span of time, the last day by default."""
        frame = self._frame
        span = span_of(request.query)
        where = Filter(since=time.time() - span.seconds)
        view = await frame.data.review(partial(self._view, span=span), where)
        return await frame.page(
            request,
            "overview.html",
            view=view,
            spans=SPANS,
            reloads=list(islice(reversed(frame.supervisor.reloads), RELOADS)),
            headline=headline,
        )

    def _view(self, review: Review, *, span: Span) -> OverviewView:
        """The page's view, of a moment ago where it is dear; in the judging thread alone."""
        kept = self._kept.get(span)
        if kept is None or not kept.is_fresh(review.now):
            began = time.monotonic()
            view = overview_view(review, span=span)
            kept = self._kept[span] = Kept(view, review.now, time.monotonic() - began)
        return kept.view


def span_of(query: Mapping[str, str]) -> Span:
    """The span that a URL asks for; of one that is none, the default."""
    return next((each for each in SPANS if each.text == query.get("since")), DEFAULT_SPAN)


def overview_view(review: Review, *, span: Span) -> OverviewView:
    """Ask the store for all of the page; blocks, in the judging thread."""
    store, where = review.store, Filter(since=review.now - span.seconds)
    finding_of = review.classifier.finding
    counts = queries.subjects(store, where, limit=MAX_SUBJECTS)
    by_class: dict[Class, list[tuple[SubjectCount, Finding]]] = {}
    for one in counts:
        finding = finding_of(one.subject)
        by_class.setdefault(finding.kind, []).append((one, finding))
    points = queries.series(
        store,
        where,
        step_s=span.step_s,
        part=lambda subject: class_text(finding_of(subject).kind),
        counts=counts,
    )
    newest = queries.records(store, where, limit=NEWEST)
    return OverviewView(
        span=span,
        totals=queries.totals(store, where),
        audited=sum(one.count for one in counts if one.subject.would_deny),
        classes=tuple(_of_class(kind, by_class[kind]) for kind in Class if kind in by_class),
        sources=_sources(counts, review),
        newest=tuple((each, finding_of(each.subject).kind) for each in newest),
        newest_id=newest[0].id if newest else queries.newest_id(store),
        plots=tuple(_plot(points, review.now, span, width) for width in (WIDE, NARROW)),
        is_cut=len(counts) == MAX_SUBJECTS,
        is_empty=not counts and queries.newest_id(store) == 0,
    )


def _sources(counts: Sequence[SubjectCount], review: Review) -> tuple[ReviewLine, ...]:
    """The clients with most flows."""
    flows: Counter[str] = Counter()
    for one in counts:
        flows[one.subject.src_ip] += one.count
    most = {source for source, _ in flows.most_common(TOP)}
    found = (one for one in counts if one.subject.src_ip in most)
    lines = group(found, Group.SOURCE, review.classifier)
    return tuple(sorted(lines, key=lambda line: (-line.count, line.key)))


def _of_class(kind: Class, found: Iterable[tuple[SubjectCount, Finding]]) -> OfClass:
    """One class; what is suspicious for the same reason is one line, however many names it has."""
    alike: dict[tuple[str, str, str], list[SubjectCount]] = {}
    for one, finding in found:
        target = "" if kind is Class.SUSPICIOUS else target_of(one.subject)
        symptom = "" if kind is Class.SUSPICIOUS else finding.symptom
        alike.setdefault((target, finding.why, symptom), []).append(one)
    lines = sorted((_line(*key[1:], of_it) for key, of_it in alike.items()), key=_by_flows)
    return OfClass(
        kind,
        flows=sum(line.flows for line in lines),
        names=len({target for line in lines for target in line.targets}),
        lines=tuple(lines[: MAX_LINES[kind]]),
        more=max(0, len(lines) - MAX_LINES[kind]),
    )


def _line(why: str, symptom: str, found: Sequence[SubjectCount]) -> Line:
    return Line(
        why=why,
        symptom=symptom,
        targets=tuple(dict.fromkeys(target_of(one.subject) for one in found)),
        flows=sum(one.count for one in found),
        clients=len({one.subject.src_ip for one in found}),
        last_at=max(one.last_at for one in found),
    )


def _by_flows(line: Line) -> tuple[int, str]:
    return -line.flows, line.targets[0]


def _plot(points: list[Point], now: float, span: Span, width: int) -> Plot:
    return plot(
        points,
        since=now - span.seconds,
        until=now,
        step_s=span.step_s,
        kinds=KINDS,
        other=class_text(Class.UNKNOWN),
        width=width,
    )
