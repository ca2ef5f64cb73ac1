"""``suggest``: the fewest additions to a policy for what was denied for want of a rule.

Requirements of the catalog first, then exact names, wildcards only where the shape of a label shows
that it varies, addresses last. What is suspicious, denied on purpose or a stranger's for all that
is known is not suggested, and said why. Each suggestion is tried on the very flows it comes from:
its evidence is what it lets through, and one that would also let through what must stay denied is
narrowed to the clients seen, or given up.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from egressproxy.names import DnsName
from egressproxy.patterns import Pattern
from egressproxy.review.drafts import Draft, rule_name
from egressproxy.review.eligible import Because, Eligible, Limits, sort_denied
from egressproxy.review.missing import shared_wildcards
from egressproxy.review.planning import Plan, Planner, settle, span_of
from egressproxy.review.suggestion import Evidence, Kind, Suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from egressproxy.policy.rules import Policy
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.review.model import SubjectCount
    from egressproxy.review.report import Findings

MAX_WITHHELD: Final = 500

_ONE_NAME: Final = "this name alone"
_READ_OF_NAMES: Final = frozenset({"api_server_fqdn", "registry"})
"""Options of requirements that say whose it is, and that were read from what a client asked for."""


def suggest(
    counts: Iterable[SubjectCount],
    policy: Policy,
    ruleset: Ruleset,
    classifier: Findings,
    now: float,
    *,
    limits: Limits | None = None,
) -> tuple[Suggestion, ...]:
    """What to add to a policy, best first; at the end what is withheld, the commonest first.

    Args:
        counts: what was recorded, in the order in which it matters; allows are left out.
        policy: the one in force.
        ruleset: compiled from it, and not asked by another thread meanwhile.
        classifier: says what is suspicious, harmless or optional.
        now: POSIX seconds.
        limits: what a person says of suggestions.
    """
    eligible = sort_denied(counts, policy, ruleset, classifier, limits or Limits(), now)
    plan = settle(Planner(eligible, policy, ruleset, now))
    offers = [_offer(draft, plan.opened[draft.name], policy) for draft in plan.drafts]
    return (*sorted(offers, key=_order), *_withheld(eligible, plan))


def _order(suggestion: Suggestion) -> tuple[int, int, str]:
    return tuple(Kind).index(suggestion.kind), -suggestion.evidence.flows, suggestion.title


# What people are shown


def _offer(draft: Draft, opened: Sequence[SubjectCount], policy: Policy) -> Suggestion:
    evidence = Evidence.of(opened)
    return Suggestion(
        kind=draft.kind,
        title=draft.title,
        why=draft.why,
        evidence=evidence,
        risk=_risk(draft, evidence, policy),
        section=draft.section,
        entry=draft.entry(),
        rules=draft.rules(policy),
        subjects=tuple(opened),
    )


def _risk(draft: Draft, evidence: Evidence, policy: Policy) -> str:
    said = [_what_opens(draft, evidence)]
    if shared := ", ".join(map(str, shared_wildcards(draft.rows))):
        said.append(f"any customer can have a name that is {shared}")
    said += [
        f"make sure that {value} is yours"
        for name, value in draft.options
        if name in _READ_OF_NAMES
    ]
    if policy.sources and draft.clients.networks is None:
        said.append("for every client: those seen are not all in source groups")
    if evidence.source_count == 1:
        said.append("one client alone wanted it")
    return "; ".join(said)


def _what_opens(draft: Draft, evidence: Evidence) -> str:
    match draft.kind:
        case Kind.REQUIREMENT:
            count = sum(len(row.patterns) for row in draft.rows)
            asked = evidence.target_count
            return f"{count} documented names, {asked} asked for" if count > 1 else _ONE_NAME
        case Kind.WILDCARD:
            return f"every name that is {draft.title}, those not seen yet too"
        case Kind.ADDRESS:
            return "by address: whatever answers there, no name is checked"
        case _:
            if any(not span.protocol.is_application for span in draft.ports):
                return "by the name's addresses: whatever answers there, no name is checked"
            return _ONE_NAME


def _withheld(eligible: Eligible, plan: Plan) -> Iterator[Suggestion]:
    done = {each.subject.id for counts in plan.opened.values() for each in counts}
    groups: dict[tuple[str, str], list[tuple[SubjectCount, Because]]] = {}
    for count, because in (*eligible.withheld, *plan.dropped):
        if count.subject.id not in done:
            done.add(count.subject.id)
            groups.setdefault((because.text, count.subject.target), []).append((count, because))
    found = [_not_suggested(target, group) for (_, target), group in groups.items()]
    found.sort(key=lambda one: (-one.evidence.flows, one.title))
    yield from found[:MAX_WITHHELD]


def _not_suggested(target: str, group: Sequence[tuple[SubjectCount, Because]]) -> Suggestion:
    counts = tuple(count for count, _ in group)
    because = group[0][1]
    suggestion = Suggestion(
        kind=Kind.WITHHELD,
        title=target or "(neither name nor address)",
        why=because.text,
        evidence=Evidence.of(counts),
        subjects=counts,
    )
    if not because.is_shared:
        return suggestion
    ports = tuple(sorted({span_of(each.subject) for each in counts}))
    draft = Draft(
        kind=Kind.NAME,
        title=target,
        subjects=counts,
        why=because.text,
        name=rule_name(target, set()),
        ports=ports,
        pattern=Pattern(DnsName(target)),
    )
    return replace(suggestion, section=draft.section, entry=draft.entry())
