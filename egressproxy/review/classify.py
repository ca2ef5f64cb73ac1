"""``Classifier``: what a denied subject is to the person who reviews it, and why, in words.

The first of these that holds is the class:

1. ``suspicious``, by a clear sign (``signs``): too much to count, a small ClientHello in pieces,
   two names in one flow, an address tried after its name was refused, the metadata service.
2. ``harmless``: the policy in force allows it by now; QUIC, which falls back to TCP; a client that
   left without a word.
3. ``harmless``, ``optional``, ``missing requirement``: the catalog has the name on that port.
4. ``suspicious``: the name is one of many with the shape of a tunnel.
5. ``near miss``: a rule differs in one thing (``policy.near_index``); ``suspicious`` where foreign
   letters imitate what it allows.
6. ``suspicious``, by a faint sign: no server name to a public address, a scan, TLS on an odd port,
   many names of one source.
7. ``unknown``.

So what a cluster needs is said to be missing even where its source is restless, and a typing error
beside a rule is no alarm; but whoever hides is told first, whatever they wanted. What a rule of the
policy denies lacks no requirement: it is denied as it is written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from egressproxy.errors import InvalidNameError
from egressproxy.names import DnsName
from egressproxy.policy.explain import why
from egressproxy.policy.lint_names import is_shared
from egressproxy.policy.near_index import NearIndex
from egressproxy.policy.near_miss import near_misses
from egressproxy.policy.near_name import Kind
from egressproxy.policy.verdict import Flow, Reason, Verdict
from egressproxy.ports import MAX_PORT, Protocol
from egressproxy.review.documented import Known, by_port, known
from egressproxy.review.judging import NOT_SERVED, judge
from egressproxy.review.model import Class, Finding
from egressproxy.review.signs import clear_sign, faint_sign, tunnel_sign

if TYPE_CHECKING:
    from collections.abc import Container

    from egressproxy.policy.near_miss import NearMiss
    from egressproxy.policy.rules import Policy
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.review.behaviour import Behaviour
    from egressproxy.review.model import Subject

MAX_MEMO: Final = 200_000
"""Findings remembered; it starts over when they are reached."""

_PROTOCOLS: Final = {str(protocol): protocol for protocol in Protocol}
_NOTHING_LOST: Final = frozenset({Reason.QUIC_REFUSED, Reason.CLOSED_BEFORE_HELLO})
_UNMATCHED: Final = frozenset(
    {Reason.DEFAULT_DENY, Reason.NEW_NAME, Reason.EXPIRED_RULE, Reason.REVOKED}
)
_BEFORE_POLICY: Final = {
    NOT_SERVED: "its source is not in clients, so that no rule is asked",
    "at the gateway itself, not open to this source": (
        "it asks for a port of the gateway that is not open to this source"
    ),
}


class Classifier:
    """Judges denied subjects under one policy; ``finding`` never raises. Not for several threads.

    A ruleset that is used elsewhere, such as by a worker or another thread, must not be given.
    """

    def __init__(
        self, policy: Policy | None, ruleset: Ruleset | None, behaviour: Behaviour, *, now: float
    ) -> None:
        """Index a policy.

        Args:
            policy: the one that counts; ``None`` leaves near misses out, and what the catalog says
                is what it said when the records were written.
            ruleset: compiled from it.
            behaviour: what sources did; ``Behaviour()`` for nothing known.
            now: POSIX seconds; rules that have expired by then are over.
        """
        self._policy = policy
        self._ruleset = ruleset if policy is not None else None
        self._behaviour = behaviour
        self._now = now
        self._near = NearIndex(policy, ruleset) if policy and ruleset else None
        self._held = None if policy is None else frozenset(policy.requirements)
        self._ports: Container[object] = ruleset.application_ports() if ruleset else ()
        self._memo: dict[tuple[object, ...], Finding] = {}
        self._in_catalog: dict[tuple[object, ...], Known | None] = {}

    def finding(self, subject: Subject, *, deep: bool = False) -> Finding:
        """The class of a denied subject, and why.

        Args:
            subject: one that was denied, or let through by audit alone.
            deep: search every rule for near misses, not only where lookups find some; that takes
                milliseconds under a large policy, and is for one name's page.
        """
        if deep:
            return self._find(subject, is_deep=True)
        key = _key(subject)
        found = self._memo.get(key)
        if found is None:
            if len(self._memo) >= MAX_MEMO:
                self._memo.clear()
            found = self._memo[key] = self._find(subject, is_deep=False)
        return found

    def _find(self, subject: Subject, *, is_deep: bool) -> Finding:
        in_catalog = self._known(subject)
        found = self._classify(subject, in_catalog, is_deep=is_deep)
        if in_catalog and not found.symptom and found.kind is not Class.HARMLESS:
            return replace(found, symptom=in_catalog.symptom)
        return found

    def _known(self, subject: Subject) -> Known | None:
        """What the catalog has; many sources want the same names."""
        key = (subject.name, subject.dst_port, subject.protocol, subject.note)
        if key not in self._in_catalog:
            if len(self._in_catalog) >= MAX_MEMO:
                self._in_catalog.clear()
            cloud = self._policy.cloud if self._policy else None
            self._in_catalog[key] = known(subject, cloud, self._held)
        return self._in_catalog[key]

    def _classify(self, subject: Subject, in_catalog: Known | None, *, is_deep: bool) -> Finding:
        if sign := clear_sign(subject, self._behaviour):
            return Finding(kind=Class.SUSPICIOUS, why=sign)
        verdict = self._verdict(subject)
        if found := _nothing_lost(subject, verdict):
            return found
        if in_catalog and (found := in_catalog.finding()) and not _is_beside(subject, found):
            return found
        if subject.note in _BEFORE_POLICY:
            return Finding(kind=Class.UNKNOWN, why=_BEFORE_POLICY[subject.note])
        if sign := tunnel_sign(subject, self._behaviour):
            return Finding(kind=Class.SUSPICIOUS, why=sign)
        if verdict and (miss := self._near_miss(subject, verdict, is_deep=is_deep)):
            return _near(miss, subject)
        if subject.reason is Reason.EXPIRED_RULE:
            rule = f" {subject.rule}" if subject.rule else ""
            return Finding(kind=Class.NEAR_MISS, why=f"its rule{rule} has expired")
        if sign := faint_sign(subject, self._behaviour, self._ports):
            return Finding(kind=Class.SUSPICIOUS, why=sign)
        return Finding(kind=Class.UNKNOWN, why=_unknown(subject))

    def _verdict(self, subject: Subject) -> Verdict | None:
        """What the policy says today; ``None`` without one, and where it cannot be told."""
        if self._ruleset is None:
            return None
        verdict = judge(subject, self._ruleset, self._now)
        return verdict if isinstance(verdict, Verdict) else None

    def _near_miss(self, subject: Subject, verdict: Verdict, *, is_deep: bool) -> NearMiss | None:
        flow = _flow(subject)
        if flow is None or self._policy is None or self._near is None:
            return None
        if is_deep:
            misses = near_misses(self._policy, flow, verdict, self._now)
        else:
            misses = self._near.misses(flow, verdict, self._now)
        return next((miss for miss in misses if _says_something(miss, flow)), None)


def _key(subject: Subject) -> tuple[object, ...]:
    """What a finding turns on."""
    return (
        subject.src_ip,
        subject.name,
        subject.dst_ip,
        subject.dst_port,
        subject.protocol,
        subject.reason,
        subject.rule,
        subject.plane,
        subject.name_source,
        subject.note,
        subject.hello_split,
        subject.is_overflow,
        subject.ech,
    )


def _is_beside(subject: Subject, found: Finding) -> bool:
    """Whether a requirement would not help: a rule or the bytes are what denied."""
    return found.kind is Class.MISSING_REQUIREMENT and subject.reason not in _UNMATCHED


def _nothing_lost(subject: Subject, verdict: Verdict | None) -> Finding | None:
    if verdict is not None and verdict.is_allow and not verdict.would_deny:
        rule = f" ({verdict.rule_id})" if verdict.rule_id else ""
        return Finding(kind=Class.HARMLESS, why=f"the policy allows it by now{rule}")
    if subject.reason in _NOTHING_LOST:
        return Finding(kind=Class.HARMLESS, why=why(subject.reason))
    return None


def _flow(subject: Subject) -> Flow | None:
    """What rules are near to: the name, or the address where there is none.

    ``None`` where the record holds neither, or nothing that a rule could be about.
    """
    protocol = _PROTOCOLS.get(subject.protocol)
    if protocol is None or not 0 <= subject.dst_port <= MAX_PORT:
        return None
    if subject.name is None:
        if protocol.is_application:  # without a name only rules by address can mean it
            protocol = Protocol.TCP
        return Flow(protocol, subject.src_ip, subject.dst_port, None, subject.dst_ip)
    try:
        return Flow(protocol, subject.src_ip, subject.dst_port, DnsName(subject.name), None)
    except InvalidNameError:
        return None


def _says_something(miss: NearMiss, flow: Flow) -> bool:
    """Whether a miss is near: another customer's storage account beside yours is not."""
    if miss.rule.any_destination:
        return False
    if miss.kind not in (Kind.PREFIX, Kind.BELOW) or flow.name is None:
        return True
    _, _, suffix = flow.name.partition(".")
    return not is_shared(suffix)


def _near(miss: NearMiss, subject: Subject) -> Finding:
    """A near miss; foreign letters that imitate an allowed name are no typing error."""
    is_imitation = miss.kind is Kind.LOOKALIKE and "xn--" in (subject.name or "")
    kind = Class.SUSPICIOUS if is_imitation else Class.NEAR_MISS
    return Finding(kind=kind, why=f"{miss.text} (rule {miss.rule.id})")


def _unknown(subject: Subject) -> str:
    if subject.reason is Reason.RULE and subject.rule:
        return f"rule {subject.rule} denies it, as it is written"
    if port := by_port(subject):
        return port
    if subject.reason is Reason.DEFAULT_DENY:
        return "neither the policy nor the catalog knows it"
    return why(subject.reason)
