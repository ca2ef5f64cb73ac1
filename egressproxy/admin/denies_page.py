"""What the list of denies shows: a question that lives in the URL, its lines, where each leads to.

The same page lists allows (``action=allow``). All texts of the question are bounded and read by
``review.ask``; what a line leads to is a question again, so every list can be narrowed by a click.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from egressproxy.policy.verdict import Reason
from egressproxy.review.ask import KEYS, class_text, describe, read_filter, texts_of
from egressproxy.review.model import Class, Filter, Group

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from egressproxy.review.ask import FilterProblem
    from egressproxy.review.model import ReviewLine

PATH: Final = "/review/denies"
CSV_PATH: Final = "/review/denies.csv"
NAME_PATH: Final = "/review/name"
PAGE_LINES: Final = 50
MAX_PAGES: Final = 40
CSV_LINES: Final = 10_000
SPANS: Final = {"1h": "1 hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}
DEFAULT_SPAN: Final = "24h"
_IS_DEFAULT: Final = frozenset({("since", "24h"), ("since", "1d")})
GROUPS: Final = {
    Group.NAME: "Name",
    Group.SOURCE: "Source",
    Group.REASON: "Reason",
    Group.RULE: "Rule",
    Group.PORT: "Port",
    Group.CLASS: "Class",
    Group.REQUIREMENT: "Requirement",
    Group.GATEWAY: "Gateway",
}
ORDERS: Final = {"count": "most often", "last": "latest", "class": "most urgent"}
_ACTIONS: Final = {True: "deny", False: "allow", None: "any"}
_TITLES: Final = {True: "Denies", False: "Allowed flows", None: "All flows"}
_MAX_FIELD: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: which flows, a line for what, in which order, which page (from one).

    ``texts`` is what stood in the form, for the form to show again; ``now`` is POSIX seconds.
    """

    where: Filter
    by: Group
    order: str
    page: int
    now: float
    texts: Mapping[str, str]
    problems: tuple[FilterProblem, ...]

    @property
    def query(self) -> str:
        """The URL's query for this question; what is the default is left out."""
        return urlencode(list(self._pairs()))

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for key, texts in texts_of(self.where, now=self.now):
            yield from ((key, text) for text in texts if (key, text) not in _IS_DEFAULT)
        if self.by is not Group.NAME:
            yield "by", self.by
        if self.order != "count":
            yield "order", self.order
        if self.page > 1:
            yield "page", str(self.page)

    @property
    def link(self) -> str:
        """The page's address with this question."""
        return f"{PATH}?{self.query}" if self.query else PATH

    @property
    def title(self) -> str:
        """What the list is called."""
        return _TITLES[self.where.is_denied]

    @property
    def action(self) -> str:
        """``deny``, ``allow`` or ``any``."""
        return _ACTIONS[self.where.is_denied]

    @property
    def says(self) -> str:
        """The question in words."""
        return describe(self.where, self.now)


@dataclass(frozen=True, slots=True)
class Way:
    """A link to another question; ``is_here`` is whether it is the one asked."""

    text: str
    link: str
    is_here: bool = False
    count: int | None = None


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
    spans: tuple[Way, ...]
    groups: tuple[Way, ...]
    orders: tuple[Way, ...]
    classes: tuple[Way, ...]
    conditions: tuple[Way, ...]
    """Each condition of the question, with the question that is without it."""
    reasons: tuple[str, ...]
    before: str
    after: str
    csv: str


def read_question(query: Mapping[str, Sequence[str]], now: float) -> Question:
    """The question that a URL asks; what cannot be read is left out and told."""
    texts = {key: [text[:_MAX_FIELD] for text in query.get(key, ())][:100] for key in KEYS}
    if not any(text.strip() for key in ("since", "until") for text in texts[key]):
        texts["since"] = [DEFAULT_SPAN]
    where, problems = read_filter(texts, now)
    if where.since is None and where.until is None:  # neither could be read
        where = replace(where, since=now - 86400)
    order = _one(query, "order")
    page = _one(query, "page")
    is_page = page.isascii() and page.isdigit() and len(page) < 4
    return Question(
        where=where,
        by=next((group for group in GROUPS if group == _one(query, "by")), Group.NAME),
        order=order if order in ORDERS else "count",
        page=min(max(int(page), 1), MAX_PAGES) if is_page else 1,
        now=now,
        texts={key: ", ".join(found) for key, found in texts.items() if found},
        problems=problems,
    )


def _one(query: Mapping[str, Sequence[str]], key: str) -> str:
    return (query.get(key) or ("",))[-1]


def wanted_lines(question: Question) -> int:
    """How many lines to ask for: all up to the page asked for, and one to know of more."""
    return question.page * PAGE_LINES + 1


def denies_view(
    question: Question,
    lines: Sequence[ReviewLine],
    by_class: Mapping[Class, int],
) -> DeniesView:
    """The page; ``lines`` are ``wanted_lines``, ``by_class`` counts flows without that filter."""
    start = (question.page - 1) * PAGE_LINES
    shown = lines[start : start + PAGE_LINES]
    most = max((line.count for line in shown), default=1)
    has_more = len(lines) > start + PAGE_LINES and question.page < MAX_PAGES
    return DeniesView(
        question=question,
        lines=tuple(
            LineView(line, line_link(question, line), max(1, round(100 * line.count / most)))
            for line in shown
        ),
        spans=tuple(_spans(question)),
        groups=tuple(
            Way(text, _changed(question, by=group).link, group is question.by)
            for group, text in GROUPS.items()
        ),
        orders=tuple(
            Way(text, _changed(question, order=order).link, order == question.order)
            for order, text in ORDERS.items()
        ),
        classes=tuple(_classes(question, by_class)),
        conditions=tuple(_conditions(question)),
        reasons=tuple(Reason),
        before=replace(question, page=question.page - 1).link if question.page > 1 else "",
        after=replace(question, page=question.page + 1).link if has_more else "",
        csv=f"{CSV_PATH}?{replace(question, page=1).query}",
    )


def _changed(question: Question, **changes: object) -> Question:
    return replace(question, page=1, **changes)  # type: ignore[arg-type]  # checked by their names


def _spans(question: Question) -> Iterator[Way]:
    said = dict(texts_of(question.where, now=question.now))
    for span, text in SPANS.items():
        where, _ = read_filter({"since": [span]}, question.now)
        is_here = said.get("since") == dict(texts_of(where, now=question.now))["since"]
        changed = replace(question.where, since=where.since, until=None)
        yield Way(text, _changed(question, where=changed).link, is_here and "until" not in said)


def _classes(question: Question, by_class: Mapping[Class, int]) -> Iterator[Way]:
    """A switch a class: on where the question names it, or names none."""
    chosen = question.where.classes
    for kind in Class:
        left = tuple(one for one in chosen if one is not kind)
        where = replace(question.where, classes=left if kind in chosen else (*chosen, kind))
        count = by_class.get(kind, 0)
        if count or kind in chosen:
            yield Way(kind, _changed(question, where=where).link, kind in chosen, count)


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
                without = _changed(question, where=replace(where, **fewer))
                text = class_text(value) if key == "class" else str(value)
                yield Way(f"{key} {text}", without.link)


def line_link(question: Question, line: ReviewLine) -> str:
    """Where a line leads to: a name's own page, or the same question narrowed to the line."""
    if not line.key:
        return ""
    if question.by is Group.NAME:
        return name_link(question, line.key)
    if question.by is Group.REQUIREMENT:
        return f"/review/catalog?{urlencode({'requirement': line.key})}"
    key = "from" if question.by is Group.SOURCE else str(question.by)
    where, problems = read_filter({key: [line.key]}, question.now)
    if problems:
        return ""
    narrowed = {name: getattr(where, name) for name in _FIELDS[key]}
    return _changed(question, by=Group.NAME, where=replace(question.where, **narrowed)).link


def name_link(question: Question, name: str) -> str:
    """A name's own page, over the same time."""
    said = dict(texts_of(question.where, now=question.now))
    pairs = [("name", name)]
    pairs += [(key, text) for key in ("since", "until") for text in said.get(key, ())]
    return f"{NAME_PATH}?{urlencode([pair for pair in pairs if pair not in _IS_DEFAULT])}"
