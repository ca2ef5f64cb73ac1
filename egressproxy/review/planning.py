"""A plan of additions to a policy, tried on the flows it is made of until it goes nowhere too far.

What would also let through something that must stay denied is narrowed to the clients seen (a
wildcard: to its names), and given up where that does not help.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from egressproxy.names import DnsName
from egressproxy.observe.record import Plane
from egressproxy.patterns import Pattern
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.rules import Mode
from egressproxy.policy.verdict import Action
from egressproxy.ports import PortSpan, Protocol
from egressproxy.review.drafts import Draft, clients_of, literal_clients, rule_name
from egressproxy.review.eligible import Because, Eligible, Wanted
from egressproxy.review.judging import Outcome, Unjudged, judge, outcome_of
from egressproxy.review.missing import missing
from egressproxy.review.suggestion import Kind
from egressproxy.review.wildcards import Wildcard, wildcards

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from egressproxy.policy.rules import Policy
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.review.model import Subject, SubjectCount

MAX_NAMES: Final = 300
"""Names and addresses suggested, the commonest; a policy of more is a list."""
TUNNEL_NAMES: Final = 5
"""Names of one client, each asked for once and varying by shape, that look like a tunnel."""

_MAX_ROUNDS: Final = 8  # requirement, narrowed, wildcard, name, narrowed, given up: six
_WEB: Final = {443: Protocol.TLS, 80: Protocol.HTTP}
_TOO_MANY: Final = Because(f"beyond the {MAX_NAMES} commonest", is_barred=False)
_TOO_FAR: Final = Because("it cannot be opened without what must stay denied")
_NO_WAY: Final = Because("no rule of a kind that is suggested would open it", is_barred=False)


@dataclass(slots=True)
class Plan:
    """Drafts, what each opens, and what was given up on the way."""

    drafts: list[Draft] = field(default_factory=list)
    dropped: list[tuple[SubjectCount, Because]] = field(default_factory=list)
    opened: dict[str, list[SubjectCount]] = field(default_factory=dict)


def settle(planner: Planner) -> Plan:
    """Plan, try, and plan again with more care for what went too far."""
    care: Counter[str] = Counter()
    plan = planner.plan(care)
    too_far = planner.trial(plan)
    for _ in range(_MAX_ROUNDS):
        if not too_far:
            break
        care.update(too_far)
        plan = planner.plan(care)
        too_far = planner.trial(plan)
    _drop(plan, too_far)
    return plan


def _drop(plan: Plan, too_far: Collection[str]) -> None:
    """Give up what opens nothing, and what still goes too far."""
    for draft in list(plan.drafts):
        if draft.title in too_far or not plan.opened.get(draft.name):
            plan.drafts.remove(draft)
            plan.opened.pop(draft.name, None)
            because = _TOO_FAR if draft.title in too_far else _NO_WAY
            plan.dropped += [(each, because) for each in draft.subjects]


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes plans of what is eligible under one policy, at ``now`` in POSIX seconds.

    ``care`` counts how often a title went too far: once, and it counts for the clients that were
    seen alone (a wildcard: its names are tried instead); twice, and it is not tried again.
    """

    eligible: Eligible
    policy: Policy
    ruleset: Ruleset
    now: float

    def plan(self, care: Counter[str]) -> Plan:
        """Drafts for all that is wanted."""
        plan, taken = Plan(), set[str]()
        skip = {title for title, times in care.items() if times > 1}
        left = self._requirements(plan, skip, care, taken)
        by_target: dict[str, list[Wanted]] = {}
        for each in left:
            by_target.setdefault(each.count.subject.target, []).append(each)
        self._give_up(plan, by_target, skip)
        for wildcard in self._wildcards(plan, by_target, care):
            group = [each for name in wildcard.names for each in by_target.pop(name)]
            title = str(wildcard.pattern)
            why = f"{len(wildcard.names)} names that differ in {wildcard.shape.in_words}"
            draft = self._draft(Kind.WILDCARD, title, group, care, why=why)
            self._add(plan, replace(draft, pattern=wildcard.pattern), taken)
        for target, group in by_target.items():
            self._add(plan, self._one(target, group, care), taken)
        return plan

    def _requirements(
        self, plan: Plan, skip: Collection[str], care: Counter[str], taken: set[str]
    ) -> list[Wanted]:
        """Drafts of requirements; gives back what none of them covers."""
        strangers = [Wanted(one) for one, because in self.eligible.withheld if because.is_shared]
        covered: set[int] = set()
        for listing in missing(self.eligible.wanted, strangers, self.policy, skip):
            covered |= {each.count.subject.id for each in listing.covers}
            title = listing.requirement.id
            draft = self._draft(
                Kind.REQUIREMENT, title, listing.covers, care, why=listing.requirement.title
            )
            self._add(plan, replace(draft, rows=listing.rows, options=listing.options), taken)
        return [each for each in self.eligible.wanted if each.count.subject.id not in covered]

    def _give_up(
        self, plan: Plan, by_target: dict[str, list[Wanted]], skip: Collection[str]
    ) -> None:
        """Take out what cannot be opened alone, and what is beyond the bound."""
        flows = {t: sum(each.count.count for each in g) for t, g in by_target.items()}
        ranked = sorted(by_target, key=lambda target: (-flows[target], target))
        beyond = set(ranked[MAX_NAMES:])
        for target in ranked:
            shared = by_target[target][0].shared
            if target in skip or target in beyond or shared:
                because = _TOO_FAR if target in skip else _TOO_MANY
                because = Because.of_strangers(shared) if shared else because
                plan.dropped += [(each.count, because) for each in by_target.pop(target)]

    def _wildcards(
        self, plan: Plan, by_target: dict[str, list[Wanted]], care: Counter[str]
    ) -> Iterator[Wildcard]:
        names = {
            target: tuple(sorted({span_of(each.count.subject) for each in group}))
            for target, group in by_target.items()
            if group[0].count.subject.name is not None
        }
        for wildcard in wildcards(names):
            group = [each.count for name in wildcard.names for each in by_target[name]]
            if _is_tunnel(group, wildcard):
                differ = f"{len(group)} names that differ in {wildcard.shape.in_words}"
                because = Because(f"{differ}, each once, of one client: the shape of a tunnel")
                plan.dropped += [(each, because) for each in group]
                for name in wildcard.names:
                    del by_target[name]
            elif not care[str(wildcard.pattern)]:
                yield wildcard

    def _one(self, target: str, group: Sequence[Wanted], care: Counter[str]) -> Draft:
        """The draft of one name or address."""
        name = group[0].count.subject.name
        hint = next((each.hint for each in group if each.hint), "no rule matches")
        kind = Kind.ADDRESS if name is None else Kind.NAME
        draft = self._draft(kind, target, group, care, why=hint)
        if name is None:
            return replace(draft, network=ip_network(target))
        return replace(draft, pattern=Pattern(DnsName(name)))

    def _draft(
        self, kind: Kind, title: str, group: Sequence[Wanted], care: Counter[str], *, why: str
    ) -> Draft:
        counts = tuple(each.count for each in group)
        clients = clients_of(counts, self.policy, self.ruleset)
        if care[title]:
            clients = literal_clients(counts) or clients
        ports = tuple(sorted({span_of(each.subject) for each in counts}))
        return Draft(kind=kind, title=title, subjects=counts, why=why, ports=ports, clients=clients)

    def _add(self, plan: Plan, draft: Draft, taken: set[str]) -> None:
        plan.drafts.append(replace(draft, name=rule_name(draft.title, taken)))

    def trial(self, plan: Plan) -> set[str]:
        """Fill in what drafts open; gives the titles of those that open what must stay denied."""
        owners = {rule.id: d for d in plan.drafts for rule in d.rules(self.policy)}
        ruleset = self._candidate(plan)
        plan.opened = {}
        too_far = set()
        for count, because in self._denied(plan):
            draft = self._opener(count.subject, ruleset, owners)
            if draft is None:
                continue
            if because is not None and because.is_barred and not _is_covered(count, draft):
                too_far.add(draft.title)
            plan.opened.setdefault(draft.name, []).append(count)
        return too_far

    def _candidate(self, plan: Plan) -> Ruleset:
        """The additions behind the policy's own denies: all that can judge what it denies today."""
        denies = [r for r in self.policy.rules if r.action is Action.DENY and not r.lists]
        added = [rule for draft in plan.drafts for rule in draft.rules(self.policy)]
        rules = (*denies, *added)
        return compile_policy(replace(self.policy, rules=rules, mode=Mode.ENFORCE))

    def _denied(self, plan: Plan) -> Iterator[tuple[SubjectCount, Because | None]]:
        dropped = {each.subject.id for each, _ in plan.dropped}
        yield from plan.dropped
        yield from self.eligible.withheld
        for each in self.eligible.wanted:
            if each.count.subject.id not in dropped:
                yield each.count, None

    def _opener(self, subject: Subject, ruleset: Ruleset, owners: dict[str, Draft]) -> Draft | None:
        verdict = judge(subject, ruleset, self.now)
        if isinstance(verdict, Unjudged) or outcome_of(verdict) is not Outcome.ALLOW:
            return None
        return owners.get(verdict.rule_id or "")


def _is_covered(count: SubjectCount, draft: Draft) -> bool:
    """Whether a draft was made for it: a stranger's name that the catalog has."""
    return any(each.subject.id == count.subject.id for each in draft.subjects)


def _is_tunnel(group: Sequence[SubjectCount], wildcard: Wildcard) -> bool:
    if len(wildcard.names) < TUNNEL_NAMES:
        return False
    is_one = len({each.subject.src_ip for each in group}) == 1
    return is_one and sum(each.count for each in group) == len(wildcard.names)


def span_of(subject: Subject) -> PortSpan:
    """The port item that would let a flow through: by name where that can be."""
    protocol, port = Protocol(subject.protocol), subject.dst_port
    if subject.name is None and protocol.is_application:
        protocol = Protocol.TCP
    elif subject.name is not None and subject.plane is Plane.NETWORK and protocol is Protocol.TCP:
        protocol = _WEB.get(port, protocol)
    return PortSpan(protocol, port, port)
