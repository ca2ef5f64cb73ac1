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
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv6Address

    from egressproxy.names import DnsName
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
    best: dict[str, NearMiss] = {}
    for miss in _Search(policy, flow, verdict, now).run():
        known = best.get(miss.rule.id)
        if known is None or _ORDER[miss.kind] < _ORDER[known.kind]:
            best[miss.rule.id] = miss
    ranked = sorted(best.values(), key=lambda miss: _ORDER[miss.kind])
    return tuple(ranked[:MAX_NEAR_MISSES])


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
class _Search:
    policy: Policy
    flow: Flow
    verdict: Verdict
    now: float

    def run(self) -> Iterator[NearMiss]:
        for rule in self.policy.rules:
            if rule.action is not Action.ALLOW:
                continue
            if meant := mention(rule, self.flow):
                yield from self._all_but_the_name(rule, meant)
            elif self.flow.name is not None:
                yield from self._the_name(rule, self.flow.name)

    def _all_but_the_name(self, rule: Rule, meant: str) -> Iterator[NearMiss]:
        flow = self.flow
        spans = ", ".join(map(str, rule.ports))
        on_port = [span for span in rule.ports if flow.port in span]
        is_right_port = any(self._is_spoken(span.protocol, rule) for span in on_port)
        is_source = rule.sources is None or self._is_source(rule)
        is_over = end_of_day(rule.until) <= self.now
        if is_right_port and not is_source:
            yield NearMiss(Kind.SOURCE, rule, f"allows {meant} only from {_sources(rule)}")
        elif is_right_port and is_over:
            yield NearMiss(Kind.EXPIRED, rule, f"allowed {meant} until {rule.until}")
        elif is_right_port and self._is_denied_before(rule):
            text = f"allows {meant}, but {self.verdict.rule_id} is judged first"
            yield NearMiss(Kind.SHADOWED, rule, text)
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

    def _the_name(self, rule: Rule, name: DnsName) -> Iterator[NearMiss]:
        if not any(self._is_spoken(s.protocol, rule) and self.flow.port in s for s in rule.ports):
            return
        for pattern in rule.patterns:
            kind, text = difference(pattern, name)
            if kind is not None:
                yield NearMiss(kind, rule, text)
        if not rule.lists:
            return
        above = set(parents(name))
        for names in rule.lists:
            for entry in names.entries:
                if entry in above:
                    text = f"{entry} ({names.path.name}) is that name only; below it are *.{entry}"
                    yield NearMiss(Kind.BELOW, rule, text)
                elif entry == f"*.{name}":
                    text = f"{entry} ({names.path.name}) does not cover the apex {name}"
                    yield NearMiss(Kind.APEX, rule, text)


def _sources(rule: Rule) -> str:
    if rule.source_groups:
        return ", ".join(rule.source_groups)
    networks = rule.sources or ()
    shown = ", ".join(map(str, networks[:3]))
    return f"{shown} and {len(networks) - 3} more" if len(networks) > 3 else shown or "nobody"
