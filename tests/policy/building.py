"""Policies built by hand, and a judge so plain that it can be held to be right."""

from __future__ import annotations

import ipaddress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egressproxy.names import DnsName
from egressproxy.patterns import parse_pattern
from egressproxy.policy.rules import Ech, Mode, NameList, Origin, Policy, Rule, SniCheck
from egressproxy.policy.verdict import AUDITABLE, Action, Flow, Pass, Reason, Verdict
from egressproxy.ports import Protocol, parse_ports

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from egressproxy.ports import PortSpan

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ALLOW, DENY = Action.ALLOW, Action.DENY
TLS, HTTP, TCP, UDP = Protocol.TLS, Protocol.HTTP, Protocol.TCP, Protocol.UDP
NOON = datetime(2026, 6, 15, 12, tzinfo=UTC).timestamp()
YESTERDAY, TODAY, TOMORROW = date(2026, 6, 14), date(2026, 6, 15), date(2026, 6, 16)


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, texts))


def rule(
    id: str,
    *to: str,
    ports: str | tuple[PortSpan, ...] = "https",
    action: Action = ALLOW,
    **more: Any,
) -> Rule:
    """A rule; ``to`` has patterns, networks and ``any``, ``ports`` are parted by blanks."""
    if isinstance(more.get("sources"), str):
        more["sources"] = networks(*more["sources"].split())
    addresses = [text for text in to if text[0].isdigit() or ":" in text]
    patterns = [text for text in to if text != "any" and text not in addresses]
    return Rule(
        **{
            "id": id,
            "action": action,
            "ports": tuple(map(parse_ports, ports.split())) if isinstance(ports, str) else ports,
            "origin": Origin("policy.yaml", 7),
            "patterns": tuple(map(parse_pattern, patterns)),
            "networks": networks(*addresses),
            "any_destination": "any" in to,
            **more,
        }
    )


def name_list(*entries: str) -> NameList:
    return NameList(Path("names.txt"), entries)


def policy(*rules: Rule, **more: Any) -> Policy:
    return Policy(
        **{
            "cloud": "AzureCloud",
            "rules": rules,
            "sources": (),
            "requirements": (),
            "files": (),
            "digest": "0" * 64,
            **more,
        }
    )


def flow(name: str | None = None, port: int = 443, protocol: Protocol = TLS, **more: Any) -> Flow:
    if isinstance(more.get("connect"), str):
        more["connect"] = DnsName(more["connect"])
    return Flow(
        **{
            "protocol": protocol,
            "src": "10.0.0.1",
            "port": port,
            "name": None if name is None else DnsName(name),
            **more,
        }
    )


# The plain judge: loops over the rules, ``Pattern.matches`` and ``ipaddress``, nothing else.


def plain_decide(policy: Policy, flow: Flow, now: float) -> Verdict:
    if flow.fault is not None and flow.fault not in AUDITABLE:
        return Verdict(DENY, flow.fault)
    network = _pass_1(policy, flow, now)
    if network is not None and network.reason is Reason.RULE:
        return network
    verdict = plain_application(policy, flow, now)
    unmatched = verdict.reason in {*AUDITABLE} - {Reason.RULE}
    return network if network is not None and unmatched else verdict


def plain_network(policy: Policy, flow: Flow, now: float) -> Verdict | None:
    if flow.fault is not None and flow.fault not in AUDITABLE:
        return Verdict(DENY, flow.fault)
    verdict = _pass_1(policy, flow, now)
    return verdict if verdict is not None and verdict.reason is Reason.RULE else None


def plain_application(policy: Policy, flow: Flow, now: float) -> Verdict:
    """Not for a source that is no address, but for an empty one: a client in no source set."""
    if flow.fault is not None:
        return _deny(policy, flow.fault, now)
    if flow.protocol is UDP and flow.port == 443:
        return Verdict(DENY, Reason.QUIC_REFUSED)
    if flow.protocol in (TCP, UDP):
        return _deny(policy, Reason.DEFAULT_DENY, now)
    if flow.name is None:
        is_tls = flow.protocol is TLS
        return _deny(policy, Reason.NO_SNI if is_tls else Reason.AMBIGUOUS_REQUEST, now)
    if flow.connect is not None and flow.connect != flow.name:
        tunnel = _pass_2(policy, flow._replace(name=flow.connect), now)
        if not tunnel.is_allow:
            return tunnel
        if tunnel.rule is None or tunnel.rule.sni is SniCheck.SAME:
            return Verdict(DENY, Reason.HOST_MISMATCH, tunnel.rule_id, Pass.APPLICATION)
    verdict = _pass_2(policy, flow, now)
    refuses = policy.ech is Ech.REFUSE or (verdict.rule and verdict.rule.ech is Ech.REFUSE)
    if flow.ech and verdict.is_allow and refuses:
        return Verdict(DENY, Reason.ECH_REFUSED, verdict.rule_id, Pass.APPLICATION)
    return verdict


def _pass_1(policy: Policy, flow: Flow, now: float) -> Verdict | None:
    is_application = flow.protocol in (TLS, HTTP)
    protocol = TCP if is_application else flow.protocol
    named = flow.connect if is_application else flow.name
    matching = [
        rule
        for rule in policy.rules
        if _ports_and_source(rule, protocol, flow)
        and (
            rule.any_destination
            or _inside(flow.dst, rule.networks)
            or (named is not None and _means(rule, named))
        )
    ]
    return _first(policy, matching, Pass.NETWORK, now)


def _pass_2(policy: Policy, flow: Flow, now: float) -> Verdict:
    name = flow.name
    assert name is not None
    matching = [
        rule
        for rule in policy.rules
        if _ports_and_source(rule, flow.protocol, flow) and _means(rule, name)
    ]
    verdict = _first(policy, matching, Pass.APPLICATION, now)
    return verdict or _deny(policy, Reason.DEFAULT_DENY, now)


def _first(policy: Policy, matching: Sequence[Rule], by: Pass, now: float) -> Verdict | None:
    for rule in matching:
        if not _is_over(rule, now):
            if rule.action is ALLOW:
                return Verdict(ALLOW, Reason.RULE, rule.id, by, rule.audit, rule)
            return _deny(policy, Reason.RULE, now, rule, by)
    for rule in matching:
        if rule.action is ALLOW:
            return _deny(policy, Reason.EXPIRED_RULE, now, rule, by)
    return None


def _deny(
    policy: Policy,
    reason: Reason,
    now: float,
    rule: Rule | None = None,
    by: Pass = Pass.NONE,
) -> Verdict:
    by_policy = policy.mode is Mode.AUDIT and not _is_past(policy.audit_until, now)
    is_trial = rule is not None and rule.audit and not _is_past(rule.audit_until, now)
    soft = reason in AUDITABLE and (by_policy or (is_trial and reason is Reason.RULE))
    return Verdict(ALLOW if soft else DENY, reason, rule.id if rule else None, by, soft, rule)


def _is_past(day: date | None, now: float) -> bool:
    return day is not None and datetime.fromtimestamp(now, UTC).date() >= day + timedelta(days=1)


def _is_over(rule: Rule, now: float) -> bool:
    trial_over = rule.audit and rule.action is ALLOW and _is_past(rule.audit_until, now)
    return trial_over or _is_past(rule.until, now)


def _ports_and_source(rule: Rule, protocol: Protocol, flow: Flow) -> bool:
    return any(
        span.protocol is protocol and span.first <= flow.port <= span.last for span in rule.ports
    ) and (rule.sources is None or _inside(flow.src, rule.sources))


def _inside(text: str | None, nets: Iterable[Network]) -> bool:
    try:
        address = ipaddress.ip_address(text or "")
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in net for net in nets)


def _means(rule: Rule, name: str) -> bool:
    listed = [parse_pattern(text) for names in rule.lists for text in names.entries]
    return any(pattern.matches(name) for pattern in [*rule.patterns, *listed])
