"""``/review/suggestions``: what would let missing flows through, tried on recorded ones, as YAML.

Which of the suggestions are taken lives in the URL, so that a choice is tried, copied and sent to
a colleague; nothing here changes a policy.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from aiohttp import web

from egressproxy.admin.question import Way, query_of
from egressproxy.policy.compile import compile_policy
from egressproxy.review import queries
from egressproxy.review.drafts import candidate
from egressproxy.review.model import Filter
from egressproxy.review.replay import Replay, replay
from egressproxy.review.suggest import suggest
from egressproxy.review.suggestion import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from egressproxy.admin.frame import Frame
    from egressproxy.admin.review_data import Review
    from egressproxy.policy.rules import Policy
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.review.model import SubjectCount
    from egressproxy.review.suggestion import Suggestion

PATH: Final = "/review/suggestions"
SPANS: Final = {
    "24h": ("24 hours", 86400),
    "7d": ("7 days", 7 * 86400),
    "30d": ("30 days", 30 * 86400),
}
DEFAULT_SPAN: Final = "7d"
MAX_SUBJECTS: Final = 20_000
MAX_CHANGES: Final = 100
MAX_WITHHELD: Final = 100
MAX_OFFERS: Final = 400
"""Suggestions of one page; so many choices fit in a URL."""
_KEY_DIGITS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the URL asks for; ``picks`` is ``None`` for every suggestion."""

    span: str
    picks: frozenset[str] | None = None

    @property
    def seconds(self) -> int:
        """How far back."""
        return SPANS[self.span][1]

    def link(self, span: str) -> str:
        """The page over another span, with every suggestion of it."""
        return PATH if span == DEFAULT_SPAN else f"{PATH}?{urlencode({'since': span})}"

    def takes(self, suggestion: Suggestion) -> bool:
        """Whether a suggestion is among those chosen."""
        return self.picks is None or key_of(suggestion) in self.picks


@dataclass(frozen=True, slots=True)
class Offer:
    """A suggestion with what stands for it in the URL."""

    suggestion: Suggestion
    key: str
    is_taken: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestionsView:
    """The page; ``replay`` is what the taken suggestions would change, ``None`` without any.

    ``reasons`` counts the flows that nothing is suggested for, by why. ``is_cut`` says that there
    was more than is read.
    """

    choice: Choice
    quick: tuple[Way, ...]
    """All of them, requirements alone, none: choices of many at once."""
    offers: tuple[Offer, ...]
    more_offers: int
    withheld: tuple[Suggestion, ...]
    reasons: tuple[tuple[str, int], ...]
    replay: Replay | None
    yaml: str
    flows: int
    is_cut: bool

    @property
    def taken(self) -> int:
        """How many suggestions are taken."""
        return sum(offer.is_taken for offer in self.offers)


class SuggestionsPage:
    """The handler of the page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[web.RouteDef]:
        """The page with its path."""
        return [web.get(PATH, self.page)]

    async def page(self, request: web.Request) -> web.Response:
        """Suggestions from the span in the query."""
        choice = read_choice(query_of(request))
        where = Filter(since=time.time() - choice.seconds, is_denied=None)
        view = await self._frame.data.review(
            partial(suggestions_view, choice=choice, where=where), where
        )
        return await self._frame.page(
            request, "suggestions.html", view=view, spans=SPANS, max_changes=MAX_CHANGES
        )


def read_choice(query: Mapping[str, Sequence[str]]) -> Choice:
    """What a URL asks for, whatever it holds.

    A form says ``chosen``, since one without any tick says no ``pick``.
    """
    span = (query.get("since") or [""])[-1]
    picks = frozenset(query.get("pick", ())[:MAX_OFFERS])
    return Choice(
        span=span if span in SPANS else DEFAULT_SPAN,
        picks=picks if picks or "chosen" in query else None,
    )


def key_of(suggestion: Suggestion) -> str:
    """What stands for a suggestion in a URL: short, and the same whenever it is suggested."""
    whole = f"{suggestion.kind} {suggestion.title} {suggestion.yaml}"
    return hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()[:_KEY_DIGITS]


def suggestions_view(review: Review, *, choice: Choice, where: Filter) -> SuggestionsView | None:
    """Ask the store for all of the page; blocks, in the judging thread.

    ``None`` before a policy is loaded.
    """
    policy, ruleset = review.policy, review.ruleset
    if policy is None or ruleset is None:
        return None
    counts = queries.subjects(review.store, where, limit=MAX_SUBJECTS)
    found = suggest(counts, policy, ruleset, review.classifier, review.now)
    offered = [each for each in found if each.is_offered]
    offers = tuple(Offer(each, key_of(each), choice.takes(each)) for each in offered[:MAX_OFFERS])
    taken = [offer.suggestion for offer in offers if offer.is_taken]
    withheld = [each for each in found if not each.is_offered]
    return SuggestionsView(
        choice=choice,
        quick=tuple(_quick(choice, offers)),
        offers=offers,
        more_offers=len(offered) - len(offers),
        withheld=tuple(withheld[:MAX_WITHHELD]),
        reasons=tuple(_reasons(withheld).most_common()),
        replay=_tried(policy, ruleset, taken, counts, review.now) if taken else None,
        yaml=joined(taken),
        flows=sum(one.count for one in counts),
        is_cut=len(counts) == MAX_SUBJECTS,
    )


def _quick(choice: Choice, offers: Sequence[Offer]) -> Iterator[Way]:
    """Ways to choose many at once, each with how many it takes."""
    required = [each for each in offers if each.suggestion.kind is Kind.REQUIREMENT]
    ways = {"all": list(offers), "requirements": required, "none": []}
    for text, taken in ways.items():
        if text == "requirements" and len(required) in (0, len(offers)):
            continue
        pairs = [("since", choice.span), ("chosen", "1"), *(("pick", each.key) for each in taken)]
        link = choice.link(choice.span) if text == "all" else f"{PATH}?{urlencode(pairs)}"
        is_here = [each.key for each in offers if each.is_taken] == [each.key for each in taken]
        yield Way(text, link, is_here)


def _tried(
    policy: Policy,
    ruleset: Ruleset,
    taken: Sequence[Suggestion],
    counts: Iterable[SubjectCount],
    now: float,
) -> Replay:
    return replay(counts, ruleset, compile_policy(candidate(policy, taken)), now)


def _reasons(withheld: Iterable[Suggestion]) -> Counter[str]:
    reasons: Counter[str] = Counter()
    for each in withheld:
        reasons[each.why] += each.evidence.flows
    return reasons


def joined(suggestions: Iterable[Suggestion]) -> str:
    """The items of suggestions as one YAML text, each section once."""
    sections: dict[str, list[str]] = {"rules": [], "requirements": []}
    for each in suggestions:
        sections[each.section] += [f"  {line}" for line in each.entry]
    return "".join(
        "\n".join([f"{section}:", *lines, ""]) for section, lines in sections.items() if lines
    )
