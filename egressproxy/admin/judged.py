"""How a name's recorded flows are judged now: each way in which it was asked for, and why.

A way is a protocol, a port and a kind of client. It is judged anew under the policy in force, so
that a page says at once whether a change has helped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.errors import InvalidNameError
from egressproxy.names import DnsName, is_ip_literal
from egressproxy.policy.decide import NAMELESS
from egressproxy.policy.explain import why
from egressproxy.policy.lookalike import decoded, foreign_letters
from egressproxy.policy.verdict import Flow, Reason, Verdict
from egressproxy.ports import Protocol
from egressproxy.resolve.explained import explained
from egressproxy.review.judging import BYTES, Unjudged, flow_of, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from egressproxy.policy.explain import Explanation
    from egressproxy.policy.rules import Policy
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.review.model import Subject, SubjectCount

MAX_WAYS: Final = 6
"""Ways of asking that are judged anew; the commonest."""
_PROTOCOLS: Final = {str(protocol): protocol for protocol in Protocol}
_WEB_PORT: Final = 443


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One way of asking: what became of it then, and what becomes of it now.

    ``verdict`` is that of the policy in force, or why there is none (``None`` before one is
    loaded); ``explanation`` is ``None`` where records do not hold what it would go by.
    ``was`` are the (reason, rule) that records have, the commonest first.
    """

    protocol: str
    port: int
    group: str
    count: int
    sources: tuple[str, ...]
    is_denied: bool
    was: tuple[tuple[str, str], ...]
    verdict: Verdict | Unjudged | None
    explanation: Explanation | None

    @property
    def is_allowed(self) -> bool | None:
        """Whether it passes now because a rule says so; ``None`` where that cannot be told."""
        verdict = self.verdict
        if not isinstance(verdict, Verdict):
            return None
        return verdict.is_allow and not verdict.would_deny

    @property
    def is_changed(self) -> bool:
        """Whether the policy in force says other than the records do."""
        return self.is_allowed is self.is_denied

    @property
    def headline(self) -> str:
        """Why, in a few words."""
        verdict = self.verdict
        match verdict:
            case None:
                return "; ".join(why(Reason(reason)) for reason, _ in self.was)
            case Unjudged():
                return f"not judged anew: {verdict}"
            case Verdict(would_deny=True):
                return f"audit lets it pass; enforcing denies it: {why(verdict.reason)}"
            case Verdict(is_allow=True):
                return "a rule allows it" if verdict.rule_id else "audit lets it pass"
            case _:
                return why(verdict.reason)


def judged_ways(
    counts: Sequence[SubjectCount], in_force: tuple[Policy, Ruleset] | None, now: float
) -> tuple[tuple[Judged, ...], int]:
    """The commonest ways, and how many more there are.

    Args:
        counts: of the subjects with one name (or address).
        in_force: the policy, for this thread alone; ``None`` before it is loaded.
        now: POSIX seconds.
    """
    ways = _ways(counts)
    judged = tuple(_judged(way, in_force, now) for way in ways[:MAX_WAYS])
    return judged, len(ways) - len(judged)


def would_be(name: str, in_force: tuple[Policy, Ruleset], now: float) -> Explanation | None:
    """What a client in no group would be told of a name (TLS) or address (TCP) on port 443.

    ``None`` where it is neither.
    """
    if is_ip_literal(name):
        address = name.strip("[]").partition("%")[0]
        return explained(*in_force, Flow(Protocol.TCP, "", _WEB_PORT, dst=address), now)
    try:
        flow = Flow(Protocol.TLS, "", _WEB_PORT, DnsName(name))
    except InvalidNameError:
        return None
    return explained(*in_force, flow, now)


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a name reads where that is not how it is written."""

    decoded: str
    letters: tuple[str, ...]


def spelling(name: str) -> Spelling | None:
    """The name decoded and its letters outside ASCII, where it has A-labels."""
    plain = decoded(name)
    return Spelling(plain, foreign_letters(name)) if plain != name else None


def _ways(counts: Iterable[SubjectCount]) -> list[list[SubjectCount]]:
    """Subjects by the way they asked, the commonest way first."""
    ways: dict[tuple[object, ...], list[SubjectCount]] = {}
    for one in counts:
        subject = one.subject
        key = (
            subject.protocol,
            subject.dst_port,
            subject.source_group,
            subject.is_denied,
            subject.reason if subject.reason in BYTES | NAMELESS else None,
        )
        ways.setdefault(key, []).append(one)
    return sorted(ways.values(), key=lambda way: -sum(one.count for one in way))


def _judged(
    way: Sequence[SubjectCount], in_force: tuple[Policy, Ruleset] | None, now: float
) -> Judged:
    first = way[0].subject
    was: dict[tuple[str, str], int] = {}
    for one in way:
        key = (str(one.subject.reason), one.subject.rule or "")
        was[key] = was.get(key, 0) + one.count
    verdict = judge(first, in_force[1], now) if in_force is not None else None
    return Judged(
        protocol=first.protocol,
        port=first.dst_port,
        group=first.source_group or "",
        count=sum(one.count for one in way),
        sources=tuple(dict.fromkeys(one.subject.src_ip for one in way)),
        is_denied=first.is_denied,
        was=tuple(sorted(was, key=lambda key: -was[key])),
        verdict=verdict,
        explanation=_explanation(first, in_force, verdict, now),
    )


def _explanation(
    subject: Subject,
    in_force: tuple[Policy, Ruleset] | None,
    verdict: Verdict | Unjudged | None,
    now: float,
) -> Explanation | None:
    """What ``check`` says, where it judges by the same as the verdict."""
    flow = asked(subject)
    if in_force is None or flow is None or not isinstance(verdict, Verdict):
        return None
    explanation = explained(*in_force, flow, now)
    return explanation if explanation.verdict == verdict else None


def asked(subject: Subject) -> Flow | None:
    """The flow that a subject's clients would make now, refused bytes and all.

    ``None`` where its records do not say enough.
    """
    protocol = _PROTOCOLS.get(subject.protocol)
    flow = flow_of(subject, protocol) if protocol is not None else None
    if flow is None or not (flow.name or flow.connect or flow.dst):
        return None
    return flow._replace(fault=subject.reason) if subject.reason in BYTES else flow
