"""A question about recorded flows, which lives in the URL: which, a line for what, in which order.

All of its texts are a browser's: they are bounded and read by ``review.ask``, and what cannot be
read is told beside the form and left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from egressproxy.review.ask import KEYS, describe, read_filter, texts_of
from egressproxy.review.model import Filter, Group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from aiohttp import web

    from egressproxy.review.ask import FilterProblem
    from egressproxy.review.report import Order

PATH: Final = "/review/denies"
NAME_PATH: Final = "/review/name"
MAX_PAGES: Final = 40
DEFAULT_SPAN: Final = "24h"
DEFAULT_SPAN_S: Final = 86400
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
ORDERS: Final[tuple[Order, ...]] = ("count", "last", "class")

SPANS: Final = {"1h": "1 hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}

_IS_DEFAULT: Final = frozenset({("since", "24h"), ("since", "1d")})
_ACTIONS: Final = {True: "deny", False: "allow", None: "any"}
_TITLES: Final = {True: "Denies", False: "Allowed flows", None: "All flows"}
_MAX_FIELD: Final = 1024
_MAX_FIELDS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: which flows, a line for what, in which order, which page (from one).

    ``texts`` is what stood in the form, for the form to show again; ``now`` is POSIX seconds.
    """

    where: Filter
    by: Group
    order: Order
    page: int
    folds: bool
    """Whether names alike below one suffix are one line, where names are listed at all."""
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
            yield "group_by", self.by
        if self.order != "count":
            yield "order", self.order
        if not self.folds:
            yield "fold", "no"
        if self.page > 1:
            yield "page", str(self.page)

    @property
    def is_folded(self) -> bool:
        """Whether lines are folded: not where somebody asks for names by name."""
        return self.folds and self.by is Group.NAME and not self.where.names

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


def read_question(query: Mapping[str, Sequence[str]], now: float) -> Question:
    """The question that a URL asks; what cannot be read is left out and told."""
    texts = {key: [text[:_MAX_FIELD] for text in query.get(key, ())][:_MAX_FIELDS] for key in KEYS}
    if not any(text.strip() for key in ("since", "until") for text in texts[key]):
        texts["since"] = [DEFAULT_SPAN]
    where, problems = read_filter(texts, now)
    if where.since is None and where.until is None:  # neither could be read
        where = replace(where, since=now - DEFAULT_SPAN_S)
    order: Order = next((each for each in ORDERS if each == _one(query, "order")), "count")
    page = _one(query, "page")
    is_page = page.isascii() and page.isdigit() and len(page) < 4
    return Question(
        where=where,
        by=next((group for group in GROUPS if group == _one(query, "group_by")), Group.NAME),
        order=order,
        page=min(max(int(page), 1), MAX_PAGES) if is_page else 1,
        folds=_one(query, "fold") != "no",
        now=now,
        texts={key: ", ".join(found) for key, found in texts.items() if found},
        problems=problems,
    )


def _one(query: Mapping[str, Sequence[str]], key: str) -> str:
    return (query.get(key) or ("",))[-1]


def query_of(request: web.Request) -> dict[str, list[str]]:
    """A request's query, each key with all its texts."""
    return {key: request.query.getall(key) for key in request.query}


def changed(question: Question, **changes: object) -> Question:
    """Another question like this one, at its first page."""
    return replace(question, page=1, **changes)  # type: ignore[arg-type]  # checked by their names


def span_ways(question: Question, link_of: Callable[[Question], str]) -> Iterator[Way]:
    """The usual spans of time, each with the same question over it."""
    said = dict(texts_of(question.where, now=question.now))
    for span, text in SPANS.items():
        where, _ = read_filter({"since": [span]}, question.now)
        is_here = said.get("since") == dict(texts_of(where, now=question.now))["since"]
        other = replace(question.where, since=where.since, until=None)
        yield Way(text, link_of(changed(question, where=other)), is_here and "until" not in said)


def name_link(question: Question, name: str) -> str:
    """A name's own page, over the same time."""
    said = dict(texts_of(question.where, now=question.now))
    pairs = [("name", name)]
    pairs += [(key, text) for key in ("since", "until") for text in said.get(key, ())]
    return f"{NAME_PATH}?{urlencode([pair for pair in pairs if pair not in _IS_DEFAULT])}"
