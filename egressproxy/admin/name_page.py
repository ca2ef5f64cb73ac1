"""``/review/name``: who asked for one name, when, how it is judged now and why, what would help.

A name is whatever a client gave for one, or an address where it gave none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from aiohttp import web

from egressproxy.admin.judged import Judged, Spelling, judged_ways, spelling, would_be
from egressproxy.admin.plot import NARROW, WIDE, Plot, plot
from egressproxy.admin.question import (
    NAME_PATH,
    Question,
    Way,
    name_link,
    query_of,
    read_question,
    span_ways,
)
from egressproxy.errors import InvalidNameError
from egressproxy.names import DnsName
from egressproxy.policy.verdict import Reason
from egressproxy.review import queries
from egressproxy.review.ask import class_text
from egressproxy.review.model import Class, Group
from egressproxy.review.report import group, target_of
from egressproxy.review.schema import storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.admin.frame import Frame
    from egressproxy.admin.review_data import Review
    from egressproxy.policy.explain import Explanation
    from egressproxy.review.classify import Classifier
    from egressproxy.review.model import (
        Filter,
        Finding,
        ReviewLine,
        StoredRecord,
        Subject,
        SubjectCount,
    )

MAX_NAME: Final = 256
MAX_SUBJECTS: Final = 5000
MAX_SOURCES: Final = 20
MAX_RECORDS: Final = 25
DEEP: Final = 12
"""Subjects for which every rule is searched, the commonest."""
ALLOWED: Final = "allow"
KINDS: Final = (ALLOWED, *(class_text(kind) for kind in reversed(Class)))
"""From the bottom of a bar to its top."""
_BARS: Final = 60
_STEPS_S: Final = (60, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400)
_URGENCY: Final = {kind: place for place, kind in enumerate(Class)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NameView:
    """The page; ``denied`` and ``allowed`` count flows, times are POSIX seconds or ``None``.

    ``would_be`` is set where nobody asked for it: what would become of it.
    """

    name: str
    question: Question
    spans: tuple[Way, ...]
    spelling: Spelling | None
    denied: int
    allowed: int
    first_at: float | None
    last_at: float | None
    finding: Finding | None
    ways: tuple[Judged, ...]
    more_ways: int
    would_be: Explanation | None
    sources: tuple[ReviewLine, ...]
    source_count: int
    records: tuple[StoredRecord, ...]
    plots: tuple[Plot, ...]

    @property
    def yaml(self) -> str:
        """What would let the commonest way through that is denied now; may be empty."""
        return "\n".join(self._needed()) if not self.advice else ""

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do where nothing can be written into a policy."""
        lines = self._needed()
        is_advice = all(line.startswith("#") for line in lines)
        return tuple(line.removeprefix("# ") for line in lines) if is_advice else ()

    @property
    def denied_by(self) -> str:
        """The rule that denies it on purpose, if one does."""
        for each in self._explanations():
            verdict = each.verdict
            if not verdict.is_allow and verdict.reason is Reason.RULE and verdict.rule_id:
                return verdict.rule_id
        return ""

    @property
    def is_through(self) -> bool:
        """Whether it goes through now, in every way that can be judged."""
        explanations = self._explanations()
        return bool(explanations) and all(each.verdict.is_allow for each in explanations)

    def _needed(self) -> tuple[str, ...]:
        return next((each.needed for each in self._explanations() if each.needed), ())

    def _explanations(self) -> list[Explanation]:
        ways = [way.explanation for way in self.ways]
        return [each for each in (*ways, self.would_be) if each is not None]


class NamePage:
    """The handler of the page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[web.RouteDef]:
        """The page with its path."""
        return [web.get(NAME_PATH, self.page)]

    async def page(self, request: web.Request) -> web.Response:
        """The page of the name in the query, over the span in it."""
        query = query_of(request)
        name = storable(query.get("name", [""])[-1][:MAX_NAME])
        asked = {key: query[key] for key in ("since", "until") if key in query}
        question = read_question(asked | {"action": ["any"]}, time.time())
        if not name.strip():
            raise web.HTTPSeeOther("/review/denies")
        view = await self._frame.data.review(
            partial(name_view, name=name, question=question), question.where
        )
        return await self._frame.page(request, "name.html", view=view)


def normal(text: str) -> str:
    """A name as the wire's records have it: in normal form if it is one."""
    try:
        return str(DnsName(text.strip()))
    except InvalidNameError:
        return text.strip()


def name_view(review: Review, *, name: str, question: Question) -> NameView:
    """Ask the store for all of the page; blocks, in the judging thread."""
    counts = _counts(review, question.where, name)
    if not counts and (written := normal(name)) != name:
        name, counts = written, _counts(review, question.where, written)
    where = replace(question.where, names=(name,))
    policy, ruleset = review.policy, review.ruleset
    in_force = (policy, ruleset) if policy is not None and ruleset is not None else None
    ways, more_ways = judged_ways(counts, in_force, review.now)
    sources = sorted(group(counts, Group.SOURCE), key=lambda line: -line.count)
    return NameView(
        name=name,
        question=question,
        spans=tuple(span_ways(question, lambda other: name_link(other, name))),
        spelling=spelling(name),
        denied=sum(one.count for one in counts if one.subject.is_denied),
        allowed=sum(one.count for one in counts if not one.subject.is_denied),
        first_at=min((one.first_at for one in counts), default=None),
        last_at=max((one.last_at for one in counts), default=None),
        finding=_most_urgent(counts, review.classifier),
        ways=ways,
        more_ways=more_ways,
        would_be=would_be(name, in_force, review.now) if in_force and not counts else None,
        sources=tuple(sources[:MAX_SOURCES]),
        source_count=len(sources),
        records=tuple(
            one
            for one in queries.records(review.store, where, limit=MAX_RECORDS)
            if target_of(one.subject) == name
        ),
        plots=_plots(review, where) if counts else (),
    )


def _counts(review: Review, where: Filter, name: str) -> list[SubjectCount]:
    """The subjects of exactly this name: a star in it would mean others too."""
    found = queries.subjects(review.store, replace(where, names=(name,)), limit=MAX_SUBJECTS)
    return [one for one in found if target_of(one.subject) == name]


def _most_urgent(counts: Sequence[SubjectCount], classifier: Classifier) -> Finding | None:
    denied = [one.subject for one in counts if one.subject.is_denied][:DEEP]
    found = [classifier.finding(subject, deep=True) for subject in denied]
    return min(found, key=lambda finding: _URGENCY[finding.kind], default=None)


def _plots(review: Review, where: Filter) -> tuple[Plot, ...]:
    since = review.now if where.since is None else where.since
    until = review.now if where.until is None else where.until
    step_s = next((step for step in _STEPS_S if (until - since) / step <= _BARS), _STEPS_S[-1])

    def part(subject: Subject) -> str:
        if not subject.is_denied:
            return ALLOWED
        return class_text(review.classifier.finding(subject).kind)

    points = queries.series(review.store, where, step_s=step_s, part=part)
    return tuple(
        plot(points, since=since, until=until, step_s=step_s, kinds=KINDS, width=width)
        for width in (WIDE, NARROW)
    )
