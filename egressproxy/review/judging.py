"""A recorded flow judged anew: what a policy says to it today.

It is judged from what its record holds, by the same two passes as on the wire. Bytes that were
refused stay refused, unless pass 1 allows their address: then nobody reads them. A record has the
last address that a name was wanted at, so a rule by address is asked about that one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from egressproxy.errors import InvalidNameError
from egressproxy.names import DnsName
from egressproxy.observe.record import NameSource, Plane
from egressproxy.policy.address import pack_address
from egressproxy.policy.decide import NAMELESS
from egressproxy.policy.rules import Mode
from egressproxy.policy.verdict import Action, Flow, Reason, Verdict
from egressproxy.ports import MAX_PORT, Protocol
from egressproxy.resolve.guard import is_never_dialled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.review.model import Subject

NOT_SERVED: Final = "source not in clients"
"""The note of a packet that no policy can let through (``service.kernel_denies``)."""

BYTES: Final = frozenset(
    {
        Reason.MALFORMED_HELLO,
        Reason.HELLO_TOO_LARGE,
        Reason.HELLO_TIMEOUT,
        Reason.CLOSED_BEFORE_HELLO,
        Reason.AMBIGUOUS_REQUEST,
        Reason.HEAD_TOO_LARGE,
        Reason.H2C_REFUSED,
    }
)
"""Denies of what the client said, whatever the name; only pass 1 asks for no bytes."""
_LIMITS: Final = frozenset({Reason.LIMIT_SOURCE, Reason.LIMIT_GLOBAL})
_TURNS_ON_MORE: Final = frozenset(
    {Reason.HOST_MISMATCH, Reason.DESTINATION_MISMATCH, Reason.FORBIDDEN_ADDRESS}
)
_OCTETS_4: Final = 4
_PROTOCOLS: Final = {str(protocol): protocol for protocol in Protocol}
_FORBIDDEN: Final = Verdict(Action.DENY, Reason.FORBIDDEN_ADDRESS)
_NEW_NAME: Final = Verdict(Action.ALLOW, Reason.NEW_NAME, would_deny=True)


class Outcome(StrEnum):
    """What becomes of a flow; in order of what gets through."""

    DENY = "deny"
    AUDIT = "audit"
    """It passes, and enforcing would deny it."""
    ALLOW = "allow"

    @property
    def rank(self) -> int:
        """Greater where more gets through."""
        return _RANK[self]


class Unjudged(StrEnum):
    """Why a recorded flow cannot be judged."""

    OVERFLOW = "one line for many names of a busy source"
    LIMIT = "refused by a limit before the policy was asked"
    FAILED = "allowed, and failed on its way"
    UNREADABLE = "what the client gave is no name, address or port"
    TURNS_ON_MORE = "turned on an address or a second name that the record does not have"
    DNS = "a DNS question"


_RANK: Final = {outcome: rank for rank, outcome in enumerate(Outcome)}


def judge(subject: Subject, ruleset: Ruleset, now: float) -> Verdict | Unjudged:
    """What a policy says to a recorded flow today, or why that cannot be told."""
    if why := _out_of_reach(subject):
        return why
    reason = subject.reason
    if reason is Reason.LOOP or subject.note == NOT_SERVED:
        return Verdict(Action.DENY, reason)
    protocol = _PROTOCOLS.get(subject.protocol)
    if protocol is None:  # ICMP: whatever a policy says, the kernel's table does not forward it
        return Verdict(subject.action, reason, would_deny=subject.would_deny)
    flow = flow_of(subject, protocol)
    if flow is None:
        return Unjudged.UNREADABLE
    if flow.name is None and flow.connect is None and flow.dst and is_never_dialled(flow.dst):
        return _FORBIDDEN
    verdict = _by_address(flow, ruleset, now)
    if verdict is None and reason in BYTES:
        return Verdict(Action.DENY, reason)
    verdict = verdict or _by_name(subject, flow, ruleset, now)
    if reason in _TURNS_ON_MORE and verdict.is_allow:
        return Unjudged.TURNS_ON_MORE
    if reason is Reason.NEW_NAME and verdict.reason is Reason.DEFAULT_DENY:
        verdict = _NEW_NAME if _warns(ruleset, now) else verdict
    if verdict.reason is Reason.NEW_NAME and subject.name_source is not NameSource.CONNECT:
        return _unless_expired(subject, flow, verdict, ruleset, now)
    return verdict


def _warns(ruleset: Ruleset, now: float) -> bool:
    """Whether ``mode: warn-on-new`` counts: then a name that was new is judged as the new one."""
    facts = ruleset.program.facts
    return facts.mode is Mode.WARN_ON_NEW and now < facts.warn_ends


def outcome_of(verdict: Verdict) -> Outcome:
    """What a verdict means for the flow."""
    if not verdict.is_allow:
        return Outcome.DENY
    return Outcome.AUDIT if verdict.would_deny else Outcome.ALLOW


def flow_of(subject: Subject, protocol: Protocol) -> Flow | None:
    """What a record says of its flow, bytes that were refused aside.

    ``None`` where that is no flow: logs of others can hold anything.
    """
    name = None
    if subject.name is not None:
        try:
            name = DnsName(subject.name)
        except InvalidNameError:
            return None
    if not _is_address(subject.src_ip) or not 0 <= subject.dst_port <= MAX_PORT:
        return None
    if subject.dst_ip is not None and not _is_address(subject.dst_ip):
        return None
    fault = subject.reason if subject.reason in NAMELESS else None
    return Flow(
        protocol,
        subject.src_ip,
        subject.dst_port,
        None if fault else name,
        subject.dst_ip,
        name if fault else None,  # the record of a tunnel without SNI has the CONNECT name
        subject.ech,
        fault,
    )


def _is_address(text: str) -> bool:
    """Whether a text is an address as records write it: without a zone, IPv4 as such."""
    packed = pack_address(text)
    return (
        packed is not None and "%" not in text and (len(packed) == _OCTETS_4) is (":" not in text)
    )


def recorded(subject: Subject) -> Outcome:
    """What became of a flow; one that was allowed and failed was allowed."""
    if subject.action is Action.DENY:
        return Outcome.DENY
    return Outcome.AUDIT if subject.would_deny else Outcome.ALLOW


def _out_of_reach(subject: Subject) -> Unjudged | None:
    if subject.is_overflow:
        return Unjudged.OVERFLOW
    if subject.action is Action.ERROR:
        return Unjudged.FAILED
    if subject.reason in _LIMITS:
        return Unjudged.LIMIT
    return Unjudged.DNS if subject.reason is Reason.DNS_REFUSED else None


def _by_address(flow: Flow, ruleset: Ruleset, now: float) -> Verdict | None:
    """Pass 1, which asks nobody for bytes: the kernel's table, or the proxy at the accept.

    A rule for a name's addresses counts for the name that the flow gave: its client looked it up.
    """
    if not ruleset.has_network_rules(flow.port):
        return None
    protocol = Protocol.UDP if flow.protocol is Protocol.UDP else Protocol.TCP
    asked = Flow(protocol, flow.src, flow.port, flow.name or flow.connect, flow.dst)
    return ruleset.decide_network(asked, now)


def _unless_expired(
    subject: Subject, flow: Flow, verdict: Verdict, ruleset: Ruleset, now: float
) -> Verdict:
    """What is new passes, unless a rule for its address knew of it, and has expired."""
    name = flow.name if subject.plane is Plane.EXPLICIT else None
    asked = Flow(Protocol.TCP, flow.src, flow.port, name, flow.dst)
    by_address = ruleset.decide(asked, now)
    return by_address if by_address.reason is Reason.EXPIRED_RULE else verdict


def _by_name(subject: Subject, flow: Flow, ruleset: Ruleset, now: float) -> Verdict:
    """Pass 2; of what nobody has read, by the protocols that it may turn out to speak."""
    if flow.name is not None:
        if subject.plane is Plane.EXPLICIT and subject.name_source is NameSource.CONNECT:
            return _of_connect(flow, ruleset, now)
        if subject.plane is Plane.NETWORK and flow.protocol is Protocol.TCP:
            return _kindest(flow, ruleset, now)
    return ruleset.decide_application(flow, now)


def _of_connect(flow: Flow, ruleset: Ruleset, now: float) -> Verdict:
    """As ``planes.explicit``: TLS is asked first, and HTTP only lets pass what a rule allows."""
    verdict = ruleset.decide_application(flow._replace(protocol=Protocol.TLS), now)
    if outcome_of(verdict) is not Outcome.ALLOW:
        for other in _as_one_of((Protocol.HTTP,), flow, ruleset, now):
            if outcome_of(other) is Outcome.ALLOW:
                return other
    return verdict


def _kindest(flow: Flow, ruleset: Ruleset, now: float) -> Verdict:
    verdict = ruleset.decide_application(flow, now)
    for other in _as_one_of((Protocol.TLS, Protocol.HTTP), flow, ruleset, now):
        if outcome_of(other).rank > outcome_of(verdict).rank:
            verdict = other
    return verdict


def _as_one_of(
    protocols: Iterable[Protocol], flow: Flow, ruleset: Ruleset, now: float
) -> Iterator[Verdict]:
    for protocol in protocols:
        if (protocol, flow.port) in ruleset.application_ports():
            yield ruleset.decide_application(flow._replace(protocol=protocol), now)
