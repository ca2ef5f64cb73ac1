"""``/review/denies``: the list of denies, or of allows, as a page and as files.

What a line leads to is a question again, so that every list is narrowed by a click.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from aiohttp import web

from egressproxy.admin.question import (
    GROUPS,
    MAX_PAGES,
    ORDERS,
    PATH,
    Question,
    Way,
    changed,
    name_link,
    query_of,
    read_question,
    span_ways,
)
from egressproxy.policy.verdict import Reason
from egressproxy.review.ask import class_text, read_filter
from egressproxy.review.formats import lines_as_csv, report_as_json
from egressproxy.review.model import Class, Group
from egressproxy.review.queries import NO_RULE, NO_TARGET, OVERFLOW
from egressproxy.review.report import NO_CLASS, NO_REQUIREMENT, report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from egressproxy.admin.frame import Frame
    from egressproxy.admin.review_data import Review
    from egressproxy.review.model import ReviewLine
    from egressproxy.review.report import Order, Report

CSV_PATH: Final = "/review/denies.csv"
JSON_PATH: Final = "/review/denies.json"
PAGE_LINES: Final = 50
FILE_LINES: Final = 10_000
"""Lines of a file at most."""
_NOT_KEYS: Final = frozenset({NO_TARGET, OVERFLOW, NO_RULE, NO_CLASS, NO_REQUIREMENT})


@dataclass(frozen=True, slots=True)
class LineView:
    """A line with where it leads to; an empty ``link`` where it leads nowhere."""

    line: ReviewLine
    link: str
    share: int
    """Hundredths of the largest count on the page, at least one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniesView:
    """The page."""

    question: Question
    lines: tuple[LineView, ...]
    report: Report
    spans: tuple[Way, ...]
    groups: tuple[Way, ...]
    order_links: dict[Order, str]
    classes: tuple[Way, ...]
    conditions: tuple[Way, ...]
    """Each condition of the question, with the question that is without it."""
    reasons: tuple[str, ...]
    folding: str
    """The same question folded where it is not, and the other way round; may be empty."""
    before: str
    after: str
    csv: str
    json: str


class DeniesPage:
    """The list as a page, and the same lines as files."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[web.RouteDef]:
        """Its paths."""
        return [
            web.get(PATH, self.page),
            web.get(CSV_PATH, self.csv),
            web.get(JSON_PATH, self.json),
        ]

    async def page(self, request: web.Request) -> web.Response:
        """The list with its filters."""
        query = query_of(request)
        question = read_question(query, time.time())
        if not question.problems and any("" in texts for texts in query.values()):
            raise web.HTTPSeeOther(question.link)  # a form says its empty fields too
        view = await self._frame.data.review(partial(_answer, question), question.where)
        return await self._frame.page(request, "denies.html", view=view)

    async def csv(self, request: web.Request) -> web.Response:
        """All lines, for a spreadsheet."""
        question, found = await self._whole(request)
        text = await asyncio.to_thread("".join, lines_as_csv(found.lines, question.by))
        return _file(text, "text/csv", f"{question.action}-by-{question.by}.csv")

    async def json(self, request: web.Request) -> web.Response:
        """All lines, for a program."""
        question, found = await self._whole(request)
        text = await asyncio.to_thread(
            lambda: json.dumps(report_as_json(found, question.by), indent=1) + "\n"
        )
        return _file(text, "application/json", f"{question.action}-by-{question.by}.json")

    async def _whole(self, request: web.Request) -> tuple[Question, Report]:
        question = read_question(query_of(request), time.time())
        ask = partial(_report, question, FILE_LINES)
        return question, await self._frame.data.review(ask, question.where)


def _file(text: str, content_type: str, name: str) -> web.Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return web.Response(text=text, content_type=content_type, charset="utf-8", headers=headers)


def _report(question: Question, limit: int, review: Review, *, is_folded: bool = False) -> Report:
    return report(
        review.store,
        question.where,
        question.by,
        limit=limit,
        classifier=review.classifier,
        order=question.order,
        is_folded=is_folded,
    )


def _answer(question: Question, review: Review) -> DeniesView:
    found = _report(question, wanted_lines(question), review, is_folded=question.is_folded)
    return denies_view(question, found, _by_class(question, review))


def _by_class(question: Question, review: Review) -> dict[str, int]:
    """Flows of each class, without the question's own choice of classes.

    Not those of the list itself: a line has the class of its most urgent subject.
    """
    where = question.where
    if where.is_denied is False:
        return {}
    whole = replace(where, classes=())
    lines = report(review.store, whole, Group.CLASS, limit=0, classifier=review.classifier).lines
    return {line.key: line.count for line in lines}


def wanted_lines(question: Question) -> int:
    """How many lines to ask for: all up to the page asked for, and one to know of more."""
    return question.page * PAGE_LINES + 1


def denies_view(question: Question, report: Report, by_class: Mapping[str, int]) -> DeniesView:
    """The page.

    Args:
        question: what was asked.
        report: with ``wanted_lines`` lines, if there are so many.
        by_class: flows of each class, without the question's own choice of classes.
    """
    start = (question.page - 1) * PAGE_LINES
    shown = report.lines[start : start + PAGE_LINES]
    most = max((line.count for line in shown), default=1)
    has_more = len(report.lines) > start + PAGE_LINES and question.page < MAX_PAGES
    return DeniesView(
        question=question,
        report=report,
        lines=tuple(
            LineView(line, line_link(question, line), max(1, round(100 * line.count / most)))
            for line in shown
        ),
        spans=tuple(span_ways(question, lambda other: other.link)),
        groups=tuple(
            Way(text, changed(question, by=group).link, group is question.by)
            for group, text in GROUPS.items()
        ),
        order_links={order: changed(question, order=order).link for order in ORDERS},
        classes=tuple(_classes(question, by_class)),
        conditions=tuple(_conditions(question)),
        reasons=tuple(Reason),
        folding=changed(question, folds=not question.folds).link
        if question.by is Group.NAME and not question.where.names
        else "",
        before=replace(question, page=question.page - 1).link if question.page > 1 else "",
        after=replace(question, page=question.page + 1).link if has_more else "",
        csv=f"{CSV_PATH}?{replace(question, page=1).query}",
        json=f"{JSON_PATH}?{replace(question, page=1).query}",
    )


def _classes(question: Question, by_class: Mapping[str, int]) -> Iterator[Way]:
    """A switch a class: on where the question names it, or names none."""
    chosen = question.where.classes
    for kind in Class:
        left = tuple(one for one in chosen if one is not kind)
        where = replace(question.where, classes=left if kind in chosen else (*chosen, kind))
        count = by_class.get(kind, 0)
        if count or kind in chosen:
            yield Way(kind, changed(question, where=where).link, kind in chosen, count)


_FIELDS: Final = {
    "from": ("sources", "source_groups"),
    "name": ("names",),
    "reason": ("reasons",),
    "rule": ("rules",),
    "port": ("ports",),
    "plane": ("planes",),
    "class": ("classes",),
    "gateway": ("gateways",),
}


def _conditions(question: Question) -> Iterator[Way]:
    where = question.where
    for key, fields in _FIELDS.items():
        for name in fields:
            for value in getattr(where, name):
                rest = tuple(one for one in getattr(where, name) if one != value)
                fewer: dict[str, Any] = {name: rest}
                without = changed(question, where=replace(where, **fewer))
                text = class_text(value) if key == "class" else str(value)
                yield Way(f"{key} {text}", without.link)


def is_fold(line: ReviewLine) -> bool:
    """Whether a line stands for names alike: a name that a client gave is one target."""
    return line.key.startswith("*.") and line.target_count > 1


def line_link(question: Question, line: ReviewLine) -> str:
    """Where a line leads to: a name's own page, or the same question narrowed to the line."""
    if not line.key or line.key in _NOT_KEYS:
        return ""
    if question.by is Group.NAME and is_fold(line):
        return changed(question, where=replace(question.where, names=(line.key,))).link
    if question.by is Group.NAME:
        return name_link(question, line.key)
    if question.by is Group.REQUIREMENT:
        return f"/review/catalog?{urlencode({'requirement': line.key})}"
    key = "from" if question.by is Group.SOURCE else str(question.by)
    text = line.key.rpartition(":")[2] if question.by is Group.PORT else line.key
    where, problems = read_filter({key: [text]}, question.now)
    if problems:
        return ""
    narrowed = {name: getattr(where, name) for name in _FIELDS[key]}
    return changed(question, by=Group.NAME, where=replace(question.where, **narrowed)).link
