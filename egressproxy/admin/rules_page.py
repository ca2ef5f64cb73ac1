"""``/review/rules``: the policy in force, rule by rule and row by row, with what used each.

Without a store the rules are shown all the same, without their use.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from aiohttp import web

from egressproxy.admin.question import Way
from egressproxy.admin.review_data import TroubleError
from egressproxy.admin.views import rule_view
from egressproxy.catalog import load_catalog
from egressproxy.policy.program import end_of_day
from egressproxy.policy.verdict import Action
from egressproxy.review.history import rule_history
from egressproxy.review.unused import DAY_S, Use, rule_uses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from egressproxy.admin.frame import Frame
    from egressproxy.admin.review_data import Review
    from egressproxy.policy.rules import Policy, Rule
    from egressproxy.review.unused import RuleUse, Uses

PATH: Final = "/review/rules"
MAX_SHOWN: Final = 500
"""Rules of one section; a policy may have ten thousand."""
MAX_TO: Final = 6
MAX_SEARCH: Final = 256
DAYS: Final = {"1": "24 hours", "7": "7 days", "30": "30 days"}
DEFAULT_DAYS: Final = "30"


@dataclass(frozen=True, slots=True)
class RuleLine:
    """One rule with what it is and what used it; ``used`` is ``None`` without a store."""

    rule: Rule
    facts: dict[str, Any]
    place: str
    """Where it is written, without the file's folder."""
    to: tuple[str, ...]
    more_to: int
    is_expired: bool
    used: RuleUse | None

    @property
    def is_unused(self) -> bool:
        """Whether it is known that nothing used it."""
        return self.used is not None and self.used.use is Use.UNUSED


@dataclass(frozen=True, slots=True)
class Section:
    """The policy's own rules (no ``requirement``), or the rows of one requirement."""

    requirement: str
    title: str
    lines: tuple[RuleLine, ...]
    more: int
    flows: int

    @property
    def places(self) -> tuple[str, ...]:
        """Where its rules are written, each once."""
        return tuple(dict.fromkeys(line.place for line in self.lines))

    @property
    def is_unused(self) -> bool:
        """Whether it is known that nothing used any rule of it."""
        return all(line.is_unused for line in self.lines)


@dataclass(frozen=True, slots=True)
class Look:
    """What the URL asks for."""

    days: str = DEFAULT_DAYS
    kind: str = "all"
    search: str = ""

    def link(self, **changes: str) -> str:
        """The page with some of it changed."""
        said = {"days": self.days, "kind": self.kind, "search": self.search} | changes
        default = {"days": DEFAULT_DAYS, "kind": "all", "search": ""}
        pairs = [(key, text) for key, text in said.items() if text != default[key]]
        return f"{PATH}?{urlencode(pairs)}" if pairs else PATH


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesView:
    """The page; ``trouble`` says why there are no counts, ``caveats`` what they do not show."""

    policy: Policy
    look: Look
    sections: tuple[Section, ...]
    matched: int
    kinds: tuple[Way, ...]
    spans: tuple[Way, ...]
    trouble: TroubleError | None
    caveats: tuple[str, ...]


class RulesPage:
    """The handler of the page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[web.RouteDef]:
        """The page with its path."""
        return [web.get(PATH, self.page)]

    async def page(self, request: web.Request) -> web.Response:
        """The rules of the policy in force."""
        frame, look = self._frame, read_look(request.query)
        crew = frame.supervisor.crew
        if crew is None:
            raise TroubleError("the policy is not loaded yet", "try again in a moment")
        policy, now = crew.current.policy, time.time()
        uses: Uses | None = None
        trouble: TroubleError | None = None
        try:
            since = now - int(look.days) * DAY_S
            uses = await frame.data.review(partial(_uses, policy=policy, since=since))
        except TroubleError as error:
            trouble = error
        view = await asyncio.to_thread(rules_view, policy, look, uses, trouble, now)
        return await frame.page(request, "rules.html", view=view)


def _uses(review: Review, *, policy: Policy, since: float) -> Uses | None:
    """What used each rule of the policy; ``None`` where another is in force by now."""
    if review.ruleset is None or review.policy is not policy:
        return None
    history = rule_history(review.store, since=since)
    return rule_uses(policy, review.ruleset, history, review.now)


def read_look(query: Mapping[str, str]) -> Look:
    """What a URL asks for, whatever it holds."""
    days, kind = query.get("days", ""), query.get("kind", "")
    return Look(
        days if days in DAYS else DEFAULT_DAYS,
        kind if kind in _KINDS else "all",
        query.get("search", "").strip()[:MAX_SEARCH],
    )


def rules_view(
    policy: Policy,
    look: Look,
    uses: Uses | None,
    trouble: TroubleError | None,
    now: float,
) -> RulesView:
    """The page of a policy; ``uses`` are of its rules, ``None`` where nobody counts."""
    used = {each.rule.id: each for each in uses.rules} if uses is not None else {}
    lines = [_line(rule, used.get(rule.id), now) for rule in policy.rules]
    wanted = look.search.lower().split()
    found = [line for line in lines if _KINDS[look.kind](line) and _fits(line, wanted)]
    return RulesView(
        policy=policy,
        look=look,
        sections=tuple(_sections(policy, found)),
        matched=len(found),
        kinds=tuple(_kinds(look, lines)),
        spans=tuple(
            Way(text, look.link(days=days), days == look.days) for days, text in DAYS.items()
        ),
        trouble=trouble,
        caveats=uses.remarks if uses is not None else (),
    )


def _line(rule: Rule, used: RuleUse | None, now: float) -> RuleLine:
    facts = rule_view(rule)
    to = facts["to"]
    return RuleLine(
        rule=rule,
        facts=facts,
        place=f"{PurePath(rule.origin.file).name}:{rule.origin.line}",
        to=tuple(to[:MAX_TO]),
        more_to=max(0, len(to) - MAX_TO),
        is_expired=rule.until is not None and end_of_day(rule.until) <= now,
        used=used,
    )


def _fits(line: RuleLine, words: Sequence[str]) -> bool:
    facts = line.facts
    parts = [line.rule.id, *facts["to"], *facts["ports"], *(facts["from"] or ()), facts["origin"]]
    text = "\n".join(parts).lower()
    return all(word in text for word in words)


def _sections(policy: Policy, lines: Sequence[RuleLine]) -> Iterator[Section]:
    titles = {one.id: one.title for one in load_catalog().requirements}
    for requirement in ("", *policy.requirements):
        own = [line for line in lines if (line.rule.requirement or "") == requirement]
        if own:
            yield Section(
                requirement=requirement,
                title=titles.get(requirement, "Written in the policy, judged first"),
                lines=tuple(own[:MAX_SHOWN]),
                more=max(0, len(own) - MAX_SHOWN),
                flows=sum(line.used.flows for line in own if line.used),
            )


def _kinds(look: Look, lines: Sequence[RuleLine]) -> Iterator[Way]:
    for kind, is_in in _KINDS.items():
        count = sum(map(is_in, lines))
        if count or kind in ("all", look.kind):
            yield Way(kind, look.link(kind=kind), kind == look.kind, count)


_KINDS: Final[Mapping[str, Callable[[RuleLine], bool]]] = {
    "all": lambda _: True,
    "unused": lambda line: line.is_unused,
    "not known": lambda line: line.used is not None and line.used.use is Use.UNKNOWN,
    "expired": lambda line: line.is_expired,
    "ending": lambda line: line.rule.until is not None and not line.is_expired,
    "audit": lambda line: line.rule.audit,
    "deny": lambda line: line.rule.action is Action.DENY,
}
