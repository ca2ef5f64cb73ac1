"""``/review``: what was denied, how much of it is urgent, what it was and who wanted it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from aiohttp import web

from egressproxy.admin.plot import NARROW, WIDE, Plot, plot
from egressproxy.review import queries
from egressproxy.review.ask import class_text
from egressproxy.review.model import Class, Filter, Group
from egressproxy.review.report import group, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from egressproxy.admin.frame import Frame
    from egressproxy.admin.review_data import Review
    from egressproxy.review.model import Point, ReviewLine, StoredRecord, Subject

TOP: Final = 10
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewView:
    """The page. ``classes`` are ``(class, flows, names)``, the most urgent first."""

    span: Span
    totals: queries.Totals
    audited: int
    classes: tuple[tuple[Class, int, int], ...]
    names: tuple[ReviewLine, ...]
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
        return await frame.page(request, "overview.html", view=view, spans=SPANS)


def span_of(query: Mapping[str, str]) -> Span:
    """The span that a URL asks for; of one that is none, the default."""
    return next((each for each in SPANS if each.text == query.get("since")), DEFAULT_SPAN)


def overview_view(review: Review, *, span: Span) -> OverviewView:
    """Ask the store for all of the page; blocks, in the judging thread."""
    store, since = review.store, review.now - span.seconds
    where = Filter(since=since)
    counts = queries.subjects(store, where, limit=MAX_SUBJECTS)
    kind_of = _kinds(review)
    by_name = sorted(group(counts, Group.NAME, review.classifier), key=lambda line: -line.count)
    by_source = sorted(group(counts, Group.SOURCE, review.classifier), key=lambda line: -line.count)
    flows = dict.fromkeys(Class, 0)
    wanted: dict[Class, set[str]] = {kind: set() for kind in Class}
    for one in counts:
        kind = kind_of(one.subject)
        flows[kind] += one.count
        wanted[kind].add(target_of(one.subject))
    points = queries.series(
        store, where, step_s=span.step_s, part=lambda subject: class_text(kind_of(subject))
    )
    newest = queries.records(store, where, limit=NEWEST)
    return OverviewView(
        span=span,
        totals=queries.totals(store, where),
        audited=sum(one.count for one in counts if one.subject.would_deny),
        classes=tuple((kind, flows[kind], len(wanted[kind])) for kind in Class if flows[kind]),
        names=tuple(by_name[:TOP]),
        sources=tuple(by_source[:TOP]),
        newest=tuple((each, kind_of(each.subject)) for each in newest),
        newest_id=newest[0].id if newest else queries.newest_id(store),
        plots=tuple(_plot(points, review.now, span, width) for width in (WIDE, NARROW)),
        is_cut=len(counts) == MAX_SUBJECTS,
        is_empty=not counts and queries.newest_id(store) == 0,
    )


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
