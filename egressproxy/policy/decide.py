"""``Window``: the judgement of flows between one policy date and the next.

Two passes, as Azure Firewall: the network rules by address and port, and only where none matched
the application rules by name. Inside a pass the first rule in policy order that fits, allow or
deny, decides. Doubt about the bytes denies before any rule is asked; audit softens what
``verdict.AUDITABLE`` lists.

In ``mode: warn-on-new`` a name that no rule mentions is allowed as long as it is new, which a table
beside the program tells.

QUIC that no network rule allows is refused whatever the mode, so that clients fall back to TCP,
where their names are judged.

Nothing here raises on what a client sent. Answers are remembered in bounded memos; verdicts are one
object a rule and pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

from egressproxy.policy.address import pack_address
from egressproxy.policy.matcher import AddressUse
from egressproxy.policy.memo import Memo
from egressproxy.policy.program import EVERYONE, end_of_day
from egressproxy.policy.rules import Ech, Mode, SniCheck
from egressproxy.policy.verdict import AUDITABLE, Action, Pass, Reason, Verdict
from egressproxy.ports import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from egressproxy.policy.program import Program
    from egressproxy.policy.rules import Rule
    from egressproxy.policy.verdict import Flow

NAMELESS: Final = frozenset({Reason.NO_SNI, Reason.IP_LITERAL, Reason.NOT_TLS_OR_HTTP})
"""Faults of flows that may well be allowed by address."""

QUIC_PORT: Final = 443
"""UDP here is HTTP/3, and refused where no network rule matches."""

_UNMATCHED: Final = NAMELESS | {Reason.DEFAULT_DENY, Reason.NEW_NAME, Reason.EXPIRED_RULE}
_REASONS: Final = {str(reason): reason for reason in Reason}
_NOTHING: Final = Verdict(Action.DENY, Reason.DEFAULT_DENY)
_SHORT_GROUP: Final = 4


@dataclass(frozen=True, slots=True)
class Source:
    """All clients that are in the same source sets. ``number`` is -1 for what is no address.

    To those that are ``crowded`` every name counts as known (``policy.known``).
    """

    number: int
    sets: frozenset[int]
    group: str | None
    crowded: bool = False


_UNREADABLE: Final = Source(-1, frozenset(), None)


class Window:
    """Judges flows while ``start <= now < end``, POSIX seconds."""

    __slots__ = (
        "_address_counts",
        "_default",
        "_firsts",
        "_is_audit",
        "_judged",
        "_known",
        "_names",
        "_networks",
        "_new",
        "_nobody",
        "_numbers",
        "_program",
        "_quic",
        "_sources_by_sets",
        "end",
        "flows",
        "sources",
        "start",
    )

    def __init__(self, program: Program, start: float, end: float) -> None:
        self._program = program
        self.start = start
        self.end = end
        facts = program.facts
        self._is_audit = facts.mode is Mode.AUDIT and start < facts.audit_ends
        is_warning = facts.mode is Mode.WARN_ON_NEW and start < facts.warn_ends
        self._known = program.known if is_warning else None
        self._address_counts = facts.tcp_udp_ports  # else each new address costs its lookup
        self.flows: Memo[tuple[str, int, int, str | None, str | None], Verdict] = Memo()
        """Whole judgements by (protocol, port, source, name, destination where it counts)."""
        self.sources: Memo[str, Source] = Memo()
        self._names: Memo[tuple[str, int, int, str], Verdict] = Memo()
        self._networks: Memo[tuple[str, int, int, str | None, str | None], Verdict] = Memo()
        self._firsts: Memo[tuple[int, str, int, int], tuple[int, int]] = Memo()
        self._sources_by_sets: Memo[tuple[frozenset[int], bool], Source] = Memo()
        self._numbers = count()  # never used twice, so a forgotten source's memos are dead too
        self._judged: dict[tuple[int | str | None, Pass, Reason], Verdict] = {}
        self._nobody = len(program.rules)
        self._default = self._denied(Reason.DEFAULT_DENY, Pass.NONE, None)
        self._new = Verdict(Action.ALLOW, Reason.NEW_NAME, would_deny=True)
        self._quic = self._denied(Reason.QUIC_REFUSED, Pass.NONE, None)

    def source(self, src: str) -> Source:
        """The kind of client an address is; an empty text is a client in no source set."""
        return self.sources.get(src) or self.sources.put(src, self._classify(src))

    def _classify(self, src: str) -> Source:
        matcher = self._program.matcher
        sets: frozenset[int] = frozenset()
        if src:
            packed = pack_address(src)
            if packed is None:
                return _UNREADABLE
            values = matcher.addresses(AddressUse.SOURCE, packed)
            sets = frozenset(number for value in values for number in matcher.group(value))
        crowded = self._known is not None and self._known.is_crowded(src)
        key = (sets, crowded)
        known = self._sources_by_sets.get(key)
        if known is not None:
            return known
        group = next((name for number, name in self._program.groups if number in sets), None)
        return self._sources_by_sets.put(key, Source(next(self._numbers), sets, group, crowded))

    # Both passes

    def both(self, flow: Flow) -> Verdict:
        """The judgement of a flow."""
        fault = flow.fault
        if fault is not None and fault not in AUDITABLE:
            return self._fault(fault)
        source = self.source(flow.src)
        network = self._network(flow, source)
        if network is not _NOTHING and network.reason is not Reason.EXPIRED_RULE:
            return network
        verdict = self._application(flow, source)
        if network is not _NOTHING and verdict.reason in _UNMATCHED:
            return network
        return verdict

    def network(self, flow: Flow) -> Verdict | None:
        """The judgement of pass 1, ``None`` where no rule in force matched."""
        fault = flow.fault
        if fault is not None and fault not in AUDITABLE:
            return self._fault(fault)
        verdict = self._network(flow, self.source(flow.src))
        if verdict is _NOTHING or verdict.reason is Reason.EXPIRED_RULE:
            return None
        return verdict

    def application(self, flow: Flow) -> Verdict:
        """The judgement of pass 2."""
        fault = flow.fault
        if fault is not None and fault not in AUDITABLE:
            return self._fault(fault)
        return self._application(flow, self.source(flow.src))

    # Pass 1

    def _network(self, flow: Flow, source: Source) -> Verdict:
        """A verdict, with reason ``expired_rule`` where only that matched, or ``_NOTHING``."""
        if source is _UNREADABLE or not self._address_counts[flow.port & 0xFFFF]:
            return _NOTHING
        protocol, named = flow.protocol, flow.name
        if protocol is Protocol.TLS or protocol is Protocol.HTTP:
            protocol, named = Protocol.TCP, flow.connect
        key = (protocol, flow.port, source.number, flow.dst, named)
        known = self._networks.get(key)
        if known is not None:
            return known
        matcher = self._program.matcher
        values = [] if self._program.anywhere is None else [self._program.anywhere]
        packed = pack_address(flow.dst) if flow.dst else None
        if packed is not None:
            values += matcher.addresses(AddressUse.DESTINATION, packed)
        if named:
            values += matcher.names(named)
        found = self._first(values, protocol, flow.port, source)
        return self._networks.put(key, self._judge(found, Pass.NETWORK) or _NOTHING)

    # Pass 2

    def _application(self, flow: Flow, source: Source) -> Verdict:
        protocol, _, port, name, _, connect, ech, fault = flow
        if source is _UNREADABLE:
            return _NOTHING
        if fault is not None:
            return self._fault(fault)
        if protocol is not Protocol.TLS and protocol is not Protocol.HTTP:
            is_quic = protocol is Protocol.UDP and port == QUIC_PORT
            return self._quic if is_quic else self._default
        if name is None:
            is_tls = protocol is Protocol.TLS
            return self._fault(Reason.NO_SNI if is_tls else Reason.AMBIGUOUS_REQUEST)
        if connect is not None and connect != name:
            verdict = self._named(protocol, port, source, connect)
            if not verdict.is_allow:
                return verdict
            if verdict.rule is None or verdict.rule.sni is not SniCheck.ANY_ALLOWED:
                return self._refused(Reason.HOST_MISMATCH, verdict)
        verdict = self._named(protocol, port, source, name)
        return self._without_ech(verdict) if ech and verdict.is_allow else verdict

    def _named(self, protocol: Protocol, port: int, source: Source, name: str) -> Verdict:
        key = (protocol, port, source.number, name)
        known = self._names.get(key)
        if known is not None:
            return known
        found = self._first(self._program.matcher.names(name), protocol, port, source)
        verdict = self._judge(found, Pass.APPLICATION) or self._unmatched(source, name)
        return self._names.put(key, verdict)

    def _unmatched(self, source: Source, name: str) -> Verdict:
        """Of a name that no rule mentions."""
        known = self._known
        if known is None or source.crowded or known.has(name):
            return self._default
        return self._new

    def _without_ech(self, verdict: Verdict) -> Verdict:
        rule = verdict.rule
        if self._program.facts.ech is Ech.REFUSE or (rule and rule.ech is Ech.REFUSE):
            return self._refused(Reason.ECH_REFUSED, verdict)
        return verdict

    # The first rule that fits

    def _first(
        self, values: Iterable[int], protocol: Protocol, port: int, source: Source
    ) -> tuple[int, int]:
        """The first rule in force, and the first expired allow, in these groups."""
        first = expired = self._nobody
        for value in values:
            one, other = self._first_of(value, protocol, port, source)
            first = min(first, one)
            expired = min(expired, other)
        return first, expired

    def _first_of(
        self, value: int, protocol: Protocol, port: int, source: Source
    ) -> tuple[int, int]:
        """The same of one group; remembered for long groups, whatever the name was."""
        group = self._program.matcher.group(value)
        if len(group) <= _SHORT_GROUP:
            return self._scan(group, protocol, port, source)
        key = (value, protocol, port, source.number)
        return self._firsts.get(key) or self._firsts.put(
            key, self._scan(group, protocol, port, source)
        )

    def _scan(
        self, group: Iterable[int], protocol: Protocol, port: int, source: Source
    ) -> tuple[int, int]:
        gates, gate_of = self._program.gates, self._program.gate_of
        expired = self._nobody
        for number in group:
            gate = gates[gate_of[number]]
            if gate.sources != EVERYONE and gate.sources not in source.sets:
                continue
            if not gate.admits(protocol, port):
                continue
            if gate.expires > self.start:
                return number, expired
            if gate.is_allow and expired == self._nobody:
                expired = number
        return self._nobody, expired

    # Verdicts, one object each

    def _judge(self, found: tuple[int, int], decided_by: Pass) -> Verdict | None:
        number, expired = found
        reason = Reason.RULE
        if number == self._nobody:
            number, reason = expired, Reason.EXPIRED_RULE
            if number == self._nobody:
                return None
        key = (number, decided_by, reason)
        known = self._judged.get(key)
        if known is None:
            rule = self._program.rules[number]
            known = self._judged[key] = self._matched(rule, decided_by, reason)
        return known

    def _matched(self, rule: Rule, decided_by: Pass, reason: Reason) -> Verdict:
        if rule.action is Action.ALLOW and reason is Reason.RULE:
            return Verdict(Action.ALLOW, reason, rule.id, decided_by, rule.audit, rule)
        return self._denied(reason, decided_by, rule)

    def _denied(self, reason: Reason, decided_by: Pass, rule: Rule | None) -> Verdict:
        """A deny, or what audit makes of it."""
        is_softened = reason in AUDITABLE and (
            self._is_audit or (reason is Reason.RULE and rule is not None and self._is_trial(rule))
        )
        return Verdict(
            Action.ALLOW if is_softened else Action.DENY,
            reason,
            rule.id if rule else None,
            decided_by,
            is_softened,
            rule,
        )

    def _is_trial(self, rule: Rule) -> bool:
        return rule.audit and self.start < end_of_day(rule.audit_until)

    def _fault(self, fault: Reason) -> Verdict:
        reason = _REASONS.get(fault, Reason.MALFORMED_HELLO)
        key = (None, Pass.NONE, reason)
        known = self._judged.get(key)
        if known is None:
            known = self._judged[key] = self._denied(reason, Pass.NONE, None)
        return known

    def _refused(self, reason: Reason, verdict: Verdict) -> Verdict:
        """What an allow is when something other than its rule is against it; never softened."""
        key = (verdict.rule_id, Pass.APPLICATION, reason)
        known = self._judged.get(key)
        if known is None:
            known = self._judged[key] = self._denied(reason, Pass.APPLICATION, verdict.rule)
        return known
