"""Which denied flows a suggestion may be made of, and why the others not.

The policy of today is asked first: what it allows by now needs nothing, what it denies on purpose
or could never allow is not for a suggestion to change. Then the class: nothing suspicious, nothing
that is spelt like something else, nothing that is documented as harmless. And a name below a suffix
where any customer can have one is somebody's word to give: ``mine``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from egressproxy.catalog.notes import rows_of_name
from egressproxy.names import DnsName
from egressproxy.policy.lint_names import api_servers, shared_suffix
from egressproxy.policy.near_index import NearIndex
from egressproxy.policy.near_name import Kind as Near
from egressproxy.policy.verdict import Action, Flow, Reason, Verdict
from egressproxy.ports import Protocol
from egressproxy.review.imitation import imitated
from egressproxy.review.judging import NOT_SERVED, Outcome, Unjudged, judge, outcome_of
from egressproxy.review.model import Class

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from egressproxy.policy.near_miss import NearMiss
    from egressproxy.policy.rules import Policy
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.review.model import Finding, Subject, SubjectCount
    from egressproxy.review.report import Findings

MAX_TARGETS: Final = 2000
"""Names and addresses that are looked at closely, the commonest."""

_BYTES: Final = "no rule can allow it: the client's bytes are refused"
_NEVER: Final = {
    Reason.QUIC_REFUSED: "QUIC is refused, so that clients fall back to TCP, which has names",
    Reason.FORBIDDEN_ADDRESS: "no policy opens this address",
    Reason.ECH_REFUSED: "Encrypted ClientHello is refused: ech: allow, if that is wanted",
    Reason.LOOP: "it is addressed to the gateway itself",
}
_OPENABLE: Final = frozenset(
    {
        Reason.DEFAULT_DENY,
        Reason.NO_SNI,
        Reason.IP_LITERAL,
        Reason.NOT_TLS_OR_HTTP,
        Reason.EXPIRED_RULE,
        Reason.NEW_NAME,
    }
)
_JUDGEABLE: Final = frozenset(str(protocol) for protocol in Protocol)
_TYPOS: Final = frozenset({Near.LOOKALIKE, Near.SPELLING})


@dataclass(frozen=True, slots=True)
class Because:
    """Why something is not suggested; ``is_barred`` is what no suggestion may let through."""

    text: str
    is_barred: bool = True
    is_shared: bool = False
    """It is another's name for all that is known; with somebody's word it may be suggested."""

    @classmethod
    def of_strangers(cls, suffix: str) -> Because:
        """Anybody can have a name below a suffix."""
        text = f"any customer can have a name below {suffix}: make sure that it is yours"
        return cls(text, is_shared=True)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A denied subject that a suggestion may open; ``hint`` is the rule that nearly does.

    ``shared`` is the suffix of an API server for which nobody gave the word: a requirement may name
    it, to be looked at, and a rule may not.
    """

    count: SubjectCount
    hint: str = ""
    shared: str = ""


@dataclass(slots=True)
class Eligible:
    """All denied subjects, sorted; what the policy allows by now is in neither."""

    wanted: list[Wanted] = field(default_factory=list)
    withheld: list[tuple[SubjectCount, Because]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a person says of suggestions.

    ``mine`` are names that are this organisation's, below suffixes shared with strangers, exact or
    all names below one (``*.vault.azure.net`` is not asked for its sense). ``at_least`` is the
    number of flows a target must have; ``with_optional`` is whether what the catalog calls optional
    is suggested too.
    """

    mine: Collection[str] = ()
    at_least: int = 1
    with_optional: bool = False

    def is_mine(self, name: str) -> bool:
        """Whether somebody gave the word for a name."""
        return any(
            name == one or (one.startswith("*.") and name.endswith(one[1:])) for one in self.mine
        )


def sort_denied(
    counts: Iterable[SubjectCount],
    policy: Policy,
    ruleset: Ruleset,
    classifier: Findings,
    limits: Limits,
    now: float,
) -> Eligible:
    """Sort what was denied; allows among ``counts`` are left out. Wanted ones keep their order."""
    sorter = _Sorter(ruleset, classifier, limits, NearIndex(policy, ruleset), now)
    eligible = Eligible()
    left: list[tuple[SubjectCount, Verdict]] = []
    totals: dict[str, int] = {}  # of what is left: the rest shall push nothing out
    for each in counts:
        found = sorter.at_once(each.subject) if each.subject.is_denied else None
        if isinstance(found, Because):
            eligible.withheld.append((each, found))
        elif found is not None:
            left.append((each, found))
            totals[each.subject.target] = totals.get(each.subject.target, 0) + each.count
    documented = {t for t in totals if rows_of_name(t, policy.cloud)}
    ranked = sorted(totals, key=lambda target: (target not in documented, -totals[target]))
    common = set(ranked[:MAX_TARGETS])
    for each, verdict in left:
        target = each.subject.target
        if target in common:
            looked = sorter.closely(each, verdict, totals[target])
        else:
            looked = Because(f"beyond the {MAX_TARGETS:,} commonest", is_barred=False)
        if isinstance(looked, Because):
            eligible.withheld.append((each, looked))
        else:
            eligible.wanted.append(looked)
    return eligible


@dataclass(frozen=True, slots=True)
class _Sorter:
    ruleset: Ruleset
    classifier: Findings
    limits: Limits
    index: NearIndex
    now: float

    def at_once(self, subject: Subject) -> Because | Verdict | None:
        """Why not, as far as lookups tell; ``None`` where it is allowed, else what denies it."""
        verdict = judge(subject, self.ruleset, self.now)
        if isinstance(verdict, Unjudged):
            return Because(verdict.value)
        if outcome_of(verdict) is Outcome.ALLOW:
            return None
        return _against(subject, verdict) or self._by_class(subject) or verdict

    def closely(self, count: SubjectCount, verdict: Verdict, flows: int) -> Because | Wanted:
        """Why not, or what is wanted; ``flows`` are those of its target."""
        subject = count.subject
        name = None if subject.name is None else DnsName(subject.name)
        if name is not None and (because := self._denied_elsewhere(name)) is not None:
            return because
        near = self._near(subject, name, verdict)
        if near is not None and (because := _by_near_miss(near)) is not None:
            return because
        is_mine = name is None or self.limits.is_mine(name)
        if name is not None and not is_mine:
            if meant := imitated(name):
                return Because(f"it passes itself off as {meant}, which it is not below")
            if suffix := shared_suffix(name):
                return Because.of_strangers(suffix)
        if flows < self.limits.at_least:
            return Because(f"fewer than {self.limits.at_least} flows", is_barred=False)
        hint = f"{near.rule.id} {near.text}" if near is not None else ""
        return Wanted(count, hint, "" if is_mine or name is None else api_servers(name))

    def _by_class(self, subject: Subject) -> Because | None:
        finding = self.classifier.finding(subject)
        if finding.kind is Class.SUSPICIOUS:
            return Because(f"suspicious: {finding.why}")
        if finding.kind is Class.HARMLESS:
            return Because("documented as harmless when blocked", is_barred=False)
        if finding.kind is Class.OPTIONAL and not self.limits.with_optional:
            return Because(_optional(finding), is_barred=False)
        return None

    def _denied_elsewhere(self, name: DnsName) -> Because | None:
        """Who denies a name on one port wants no suggestion to open it on another."""
        program = self.ruleset.program
        for value in program.matcher.names(name):
            for number in program.matcher.group(value):
                rule = program.rules[number]
                if rule.action is Action.DENY:
                    return Because(f"{rule.id} denies this name otherwise ({rule.origin})")
        return None

    def _near(self, subject: Subject, name: DnsName | None, verdict: Verdict) -> NearMiss | None:
        flow = Flow(
            Protocol(subject.protocol), subject.src_ip, subject.dst_port, name, subject.dst_ip
        )
        return next(iter(self.index.misses(flow, verdict, self.now)), None)


def _optional(finding: Finding) -> str:
    return f"optional: {finding.why}" if finding.why else "documented as optional"


def _against(subject: Subject, verdict: Verdict) -> Because | None:
    """What in the policy or the flow itself stands against a suggestion."""
    rule, reason = verdict.rule, verdict.reason
    if rule is not None and reason is Reason.RULE:
        if rule.action is Action.DENY:
            return Because(f"{rule.id} denies it ({rule.origin})")
        return Because(f"{rule.id} allows it on trial: mode: audit there ends it ({rule.origin})")
    if subject.note == NOT_SERVED:
        return Because("the client is none that this gateway serves")
    if subject.protocol not in _JUDGEABLE:
        return Because(f"no policy forwards {subject.protocol}")
    if reason not in _OPENABLE:
        return Because(_NEVER.get(reason, _BYTES))
    return None if subject.target else Because("it said neither a name nor an address")


def _by_near_miss(near: NearMiss) -> Because | None:
    if near.kind in _TYPOS:
        return Because(f"{near.text}: first make sure that this is the name that is meant")
    if near.kind is Near.EXPIRED:
        return Because(
            f"{near.rule.id} {near.text}: a later until: there, if it is still wanted"
            f" ({near.rule.origin})"
        )
    return None
