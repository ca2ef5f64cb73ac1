"""``/review``: what was denied, how much of it is urgent, what it was and who wanted it."""

from __future__ import annotations

import time
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
    from collections.abc import Callable, Mapping, Sequence

    from egressproxy.admin.frame import Frame
    from egressproxy.admin.review_data import Review
    from egressproxy.review.model import Point, ReviewLine, StoredRecord, Subject, SubjectCount

TOP: Final = 8
RELOADS: Final = 4
NEWEST: Final = 12
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
    """What was denied for one reason; ``targets`` are names or addresses, the commonest first."""

    why: str
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


class Overview:
    """The handler of the page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[web.RouteDef]:
        """The page with its path."""
        return [web.get("/review", self.overview)]

    async def overview(self, request: web.Request) -> web.Response:
        """The page of a span of time, the last day by default."""
        frame = self._frame
        span = span_of(request.query)
        where = Filter(since=time.time() - span.seconds)
        view = await frame.data.review(partial(overview_view, span=span), where)
        return await frame.page(
            request,
            "overview.html",
            view=view,
            spans=SPANS,
            reloads=list(islice(reversed(frame.supervisor.reloads), RELOADS)),
            headline=headline,
        )


def span_of(query: Mapping[str, str]) -> Span:
    """The span that a URL asks for; of one that is none, the default."""
    return next((each for each in SPANS if each.text == query.get("since")), DEFAULT_SPAN)


def overview_view(review: Review, *, span: Span) -> OverviewView:
    """Ask the store for all of the page; blocks, in the judging thread."""
    store, since = review.store, review.now - span.seconds
    where = Filter(since=since)
    counts = queries.subjects(store, where, limit=MAX_SUBJECTS)
    kind_of = _kinds(review)
    by_source = sorted(group(counts, Group.SOURCE, review.classifier), key=lambda line: -line.count)
    points = queries.series(
        store, where, step_s=span.step_s, part=lambda subject: class_text(kind_of(subject))
    )
    kinds = {kind_of(one.subject) for one in counts}
    newest = queries.records(store, where, limit=NEWEST)
    return OverviewView(
        span=span,
        totals=queries.totals(store, where),
        audited=sum(one.count for one in counts if one.subject.would_deny),
        classes=tuple(_of_class(kind, counts, review) for kind in Class if kind in kinds),
        sources=tuple(by_source[:TOP]),
        newest=tuple((each, kind_of(each.subject)) for each in newest),
        newest_id=newest[0].id if newest else queries.newest_id(store),
        plots=tuple(_plot(points, review.now, span, width) for width in (WIDE, NARROW)),
        is_cut=len(counts) == MAX_SUBJECTS,
        is_empty=not counts and queries.newest_id(store) == 0,
    )


def _of_class(kind: Class, counts: Sequence[SubjectCount], review: Review) -> OfClass:
    """One class; what is suspicious for the same reason is one line, however many names it has."""
    alike: dict[tuple[str, str], list[SubjectCount]] = {}
    for one in counts:
        finding = review.classifier.finding(one.subject)
        if finding.kind is kind:
            target = "" if kind is Class.SUSPICIOUS else target_of(one.subject)
            alike.setdefault((target, finding.why), []).append(one)
    lines = sorted((_line(why, found) for (_, why), found in alike.items()), key=_by_flows)
    return OfClass(
        kind,
        flows=sum(line.flows for line in lines),
        names=len({target for line in lines for target in line.targets}),
        lines=tuple(lines[: MAX_LINES[kind]]),
        more=max(0, len(lines) - MAX_LINES[kind]),
    )


def _line(why: str, found: Sequence[SubjectCount]) -> Line:
    return Line(
        why=why,
        targets=tuple(dict.fromkeys(target_of(one.subject) for one in found)),
        flows=sum(one.count for one in found),
        clients=len({one.subject.src_ip for one in found}),
        last_at=max(one.last_at for one in found),
    )


def _by_flows(line: Line) -> tuple[int, str]:
    return -line.flows, line.targets[0]


def _kinds(review: Review) -> Callable[[Subject], Class]:
    return lambda subject: review.classifier.finding(subject).kind


def _plot(points: list[Point], now: float, span: Span, width: int) -> Plot:
    return plot(
        points,
        since=now - span.seconds,
        until=now,
        step_s=span.step_s,
        kinds=KINDS,
        width=width,
    )
