"""What almost decided otherwise: allow rules that differ from a flow in one thing.

Read only by people, through ``explain``. Loops over the rules; nothing here is on a flow's path.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from egressproxy.policy.near_name import Kind, difference, parents
from egressproxy.policy.program import end_of_day
from egressproxy.policy.verdict import Action, Pass, Reason
from egressproxy.ports import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from ipaddress import IPv4Address, IPv6Address

    from egressproxy.names import DnsName
    from egressproxy.patterns import Pattern
    from egressproxy.policy.rules import Policy, Rule
    from egressproxy.policy.verdict import Flow, Verdict

MAX_NEAR_MISSES: Final = 6
_MAX_TAGS: Final = 3
_ORDER: Final = {kind: place for place, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True)
class NearMiss:
    """An allow rule that would have fitted but for one thing; ``text`` says which."""

    kind: Kind
    rule: Rule
    text: str


def near_misses(policy: Policy, flow: Flow, verdict: Verdict, now: float) -> tuple[NearMiss, ...]:
    """The best few, one for each rule, best first."""
    return best_few(_every_rule(policy, Differences(policy, flow, verdict, now)))


def best_few(found: Iterable[NearMiss]) -> tuple[NearMiss, ...]:
    """At most ``MAX_NEAR_MISSES``, one for each rule, best first."""
    best: dict[str, NearMiss] = {}
    for miss in found:
        known = best.get(miss.rule.id)
        if known is None or _ORDER[miss.kind] < _ORDER[known.kind]:
            best[miss.rule.id] = miss
    ranked = sorted(best.values(), key=lambda miss: _ORDER[miss.kind])
    return tuple(ranked[:MAX_NEAR_MISSES])


def _every_rule(policy: Policy, differences: Differences) -> Iterator[NearMiss]:
    for rule in policy.rules:
        if rule.action is not Action.ALLOW:
            continue
        if meant := mention(rule, differences.flow):
            yield from differences.but_the_name(rule, meant)
        elif differences.flow.name is not None:
            yield from differences.in_name(rule, differences.flow.name)


def mention(rule: Rule, flow: Flow) -> str:
    """How a rule names a flow's name or address, whatever its ports and sources; else nothing."""
    if flow.name is not None and (found := mention_of_name(rule, flow.name)):
        return found
    if rule.any_destination:
        return "any address"
    address = _address(flow.dst or "")
    found = next((str(net) for net in rule.networks if address and address in net), "")
    return f"{found} ({_tags(rule)})" if found and rule.tags else found


def _tags(rule: Rule) -> str:
    """The rule's tags: a range that was joined is not in Microsoft's file as it is here."""
    more = len(rule.tags) - _MAX_TAGS
    shown = ", ".join(rule.tags[:_MAX_TAGS]) + (f" and {more} more" if more > 0 else "")
    return f"its service tag: {shown}" if len(rule.tags) == 1 else f"its service tags: {shown}"


def mention_of_name(rule: Rule, name: DnsName) -> str:
    """The pattern or list entry of a rule that means a name, or an empty text."""
    for pattern in rule.patterns:
        if pattern.matches(name):
            return str(pattern)
    if not rule.lists:
        return ""
    meant = {str(name), *(f"*.{parent}" for parent in parents(name))}
    for names in rule.lists:
        for entry in names.entries:
            if entry in meant or ("*" in entry and _prefix_matches(entry, name)):
                return f"{entry} ({names.path.name})"
    return ""


def _prefix_matches(entry: str, name: str) -> bool:
    prefix, _, suffix = entry.partition("*")
    return (
        bool(prefix)
        and name.startswith(prefix)
        and name.endswith(suffix)
        and len(name) > len(prefix) + len(suffix)
    )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Differences:
    """In what rules differ from one flow; ``policy.near_index`` asks of few rules, fast."""

    policy: Policy
    flow: Flow
    verdict: Verdict
    now: float

    def but_the_name(self, rule: Rule, meant: str) -> Iterator[NearMiss]:
        """Of a rule that means the name or address, as ``meant``: port, source, date, order."""
        flow = self.flow
        spans = ", ".join(map(str, rule.ports))
        on_port = [span for span in rule.ports if flow.port in span]
        is_right_port = any(self._is_spoken(span.protocol, rule) for span in on_port)
        is_source = rule.sources is None or self._is_source(rule)
        is_over = end_of_day(rule.until) <= self.now
        if self._is_denied_before(rule):  # that, and nothing beside it, or it is not near
            if is_right_port and is_source and not is_over:
                text = f"allows {meant}, but {self.verdict.rule_id} is judged first"
                yield NearMiss(Kind.SHADOWED, rule, text)
        elif is_right_port and not is_source:
            yield NearMiss(Kind.SOURCE, rule, f"allows {meant} only from {_sources(rule)}")
        elif is_right_port and is_over:
            yield NearMiss(Kind.EXPIRED, rule, f"allowed {meant} until {rule.until}")
        elif not is_right_port and is_source and not is_over:
            kind = Kind.PROTOCOL if on_port else Kind.PORT
            text = f"allows {meant} on {spans}, not on {flow.protocol}:{flow.port}"
            yield NearMiss(kind, rule, text)

    def _is_spoken(self, protocol: Protocol, rule: Rule) -> bool:
        if protocol is self.flow.protocol:
            return True
        is_by_address = bool(rule.networks) or rule.any_destination
        return protocol is Protocol.TCP and self.flow.protocol is not Protocol.UDP and is_by_address

    def _is_source(self, rule: Rule) -> bool:
        address = _address(self.flow.src)
        return address is not None and any(address in network for network in rule.sources or ())

    def _is_denied_before(self, rule: Rule) -> bool:
        verdict = self.verdict
        if verdict.reason is not Reason.RULE or verdict.rule is None:
            return False
        if verdict.rule.action is not Action.DENY:
            return False
        if verdict.decided_by is Pass.NETWORK:
            return True
        first = next(each for each in self.policy.rules if each.id in (verdict.rule_id, rule.id))
        return first.id == verdict.rule_id

    def in_name(self, rule: Rule, name: DnsName) -> Iterator[NearMiss]:
        """Of a rule that has the port but not the name."""
        if not self.is_on_port(rule):
            return
        for pattern in rule.patterns:
            yield from self.in_pattern(rule, pattern, name)
        if not rule.lists:
            return
        above = set(parents(name))
        for names in rule.lists:
            for entry in names.entries:
                if entry in above:
                    yield below_entry(rule, f"{entry} ({names.path.name})", entry)
                elif entry == f"*.{name}":
                    yield apex_of_entry(rule, f"{entry} ({names.path.name})", name)

    def is_on_port(self, rule: Rule) -> bool:
        """Whether a rule has the flow's protocol and port."""
        return any(
            self._is_spoken(span.protocol, rule) and self.flow.port in span for span in rule.ports
        )

    def in_pattern(self, rule: Rule, pattern: Pattern, name: DnsName) -> Iterator[NearMiss]:
        """How a name differs from one pattern of a rule, where they are near."""
        kind, text = difference(pattern, name)
        if kind is not None:
            yield NearMiss(kind, rule, text)


def below_entry(rule: Rule, shown: str, entry: str) -> NearMiss:
    """A list has a name above the one that was wanted."""
    return NearMiss(Kind.BELOW, rule, f"{shown} is that name only; below it are *.{entry}")


def apex_of_entry(rule: Rule, shown: str, name: DnsName) -> NearMiss:
    """A list has what is below the name that was wanted."""
    return NearMiss(Kind.APEX, rule, f"{shown} does not cover the apex {name}")


def _sources(rule: Rule) -> str:
    if rule.source_groups:
        return ", ".join(rule.source_groups)
    networks = rule.sources or ()
    shown = ", ".join(map(str, networks[:3]))
    return f"{shown} and {len(networks) - 3} more" if len(networks) > 3 else shown or "nobody"
