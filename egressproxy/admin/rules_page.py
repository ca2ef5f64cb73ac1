"""``/review/rules``: the policy in force, rule by rule and row by row, with what used each.

Without a store the rules are shown all the same, without their use.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
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
from egressproxy.review import queries
from egressproxy.review.model import Filter, Group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from egressproxy.admin.frame import Frame
    from egressproxy.policy.rules import Policy, Rule
    from egressproxy.review.store import Store

PATH: Final = "/review/rules"
MAX_SHOWN: Final = 500
"""Rules of one section; a policy may have ten thousand."""
MAX_TO: Final = 6
MAX_SEARCH: Final = 256
MAX_COUNTED: Final = 10_000
DAYS: Final = {"1": "24 hours", "7": "7 days", "30": "30 days"}
DEFAULT_DAYS: Final = "30"


@dataclass(frozen=True, slots=True)
class Used:
    """Flows that a rule decided, and when last (POSIX seconds)."""

    flows: int
    last_at: float | None


@dataclass(frozen=True, slots=True)
class RuleLine:
    """One rule with what it is and what used it; ``used`` is ``None`` where nobody counted."""

    rule: Rule
    facts: dict[str, Any]
    place: str
    """Where it is written, without the file's folder."""
    to: tuple[str, ...]
    more_to: int
    is_expired: bool
    used: Used | None

    @property
    def is_unused(self) -> bool:
        """Whether it was counted, and nothing used it."""
        return self.used is not None and not self.used.flows


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
        """Whether every rule of it was counted, and nothing used any."""
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
    trouble: str
    hint: str
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
        used: dict[str, Used] | None = None
        trouble = TroubleError("")
        try:
            since = now - int(look.days) * 86400
            used = await frame.data.ask(lambda store: usage(store, since))
        except TroubleError as error:
            trouble = error
        view = await asyncio.to_thread(rules_view, policy, look, used, trouble, now)
        return await frame.page(request, "rules.html", view=view, days=DAYS)


def usage(store: Store, since: float) -> dict[str, Used]:
    """Flows by the rule that decided them, allows and denies."""
    where = Filter(since=since, is_denied=None)
    found = queries.top(store, where, Group.RULE, limit=MAX_COUNTED)
    return {each.key: Used(each.count, each.last_at) for each in found}


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
    used: Mapping[str, Used] | None,
    trouble: TroubleError,
    now: float,
) -> RulesView:
    """The page of a policy; ``used`` by rule id, ``None`` where there are no counts."""
    lines = [_line(rule, used, now) for rule in policy.rules]
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
        trouble=trouble.message,
        hint=trouble.hint,
        caveats=(),
    )


def _line(rule: Rule, used: Mapping[str, Used] | None, now: float) -> RuleLine:
    facts = rule_view(rule)
    to = facts["to"]
    return RuleLine(
        rule=rule,
        facts=facts,
        place=f"{PurePath(rule.origin.file).name}:{rule.origin.line}",
        to=tuple(to[:MAX_TO]),
        more_to=max(0, len(to) - MAX_TO),
        is_expired=rule.until is not None and end_of_day(rule.until) <= now,
        used=None if used is None else used.get(rule.id, Used(0, None)),
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
    "expired": lambda line: line.is_expired,
    "ending": lambda line: line.rule.until is not None and not line.is_expired,
    "audit": lambda line: line.rule.audit,
    "deny": lambda line: line.rule.action is Action.DENY,
}
