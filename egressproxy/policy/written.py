"""From the ``rules:`` of a file to ``Rule`` objects, with the checks that need other keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from egressproxy.patterns import Pattern
from egressproxy.policy.networks import in_order
from egressproxy.policy.rules import Destination, Ech, Origin, Rule, SniCheck
from egressproxy.policy.sources import clients_of
from egressproxy.policy.targets import ListReference, TagReference
from egressproxy.policy.verdict import Action

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from egressproxy.policy.document import Document, RuleEntry
    from egressproxy.policy.include import Part
    from egressproxy.policy.references import References
    from egressproxy.policy.rules import NameList
    from egressproxy.policy.yaml_nodes import Node


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a rule takes from the policy where it says nothing."""

    destination: Destination = Destination.RESOLVE
    ech: Ech = Ech.ALLOW

    @classmethod
    def of(cls, document: Document) -> Defaults:
        """The policy's own words on it."""
        return cls(
            destination=document.destination.value if document.destination else cls().destination,
            ech=document.ech.value if document.ech else cls().ech,
        )


@dataclass(frozen=True, slots=True)
class Context:
    """What is the same for all rules of a policy; ``cloud`` is ``None`` where it is wrong."""

    references: References
    defaults: Defaults
    cloud: str | None


@dataclass(slots=True)
class _Targets:
    """The items of a rule's ``to:``, sorted by what they are."""

    patterns: list[Pattern] = field(default_factory=list)
    lists: dict[str, NameList] = field(default_factory=dict)
    networks: list[IPv4Network | IPv6Network] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


def written_rules(part: Part, context: Context) -> list[Rule]:
    """The rules of one file, in order."""
    _check_names(part)
    return [
        _rule(entry, number, part, context)
        for number, entry in enumerate(part.document.rules or (), start=1)
    ]


def _check_names(part: Part) -> None:
    first: dict[str, int] = {}
    for entry in part.document.rules or ():
        if entry.name is None:
            continue
        node = entry.name.node
        line = first.setdefault(entry.name.value, node.line)
        if line != node.line:
            what = f"the rule name {entry.name.value!r} is used twice"
            part.report.add(
                node, what, f"the first is on line {line}: records need one name a rule"
            )


def _rule(entry: RuleEntry, number: int, part: Part, context: Context) -> Rule:
    targets = _targets(entry, part, context.references)
    _check_audit(entry, part)
    _check_ports(entry, targets, part)
    part.report.count_ranges(entry.node, len(targets.networks))
    clients = clients_of(entry.sources, part.scope.groups, part.scope.cap, part.report)
    name = entry.name.value if entry.name else f"#{number}"
    return Rule(
        id=f"{part.prefix}rules/{name}",
        action=entry.action.value if entry.action else Action.ALLOW,
        ports=tuple(dict.fromkeys(item.value for item in entry.ports or ())),
        origin=Origin(part.report.file, entry.node.line, entry.node.column),
        patterns=tuple(dict.fromkeys(targets.patterns)),
        lists=tuple(targets.lists.values()),
        networks=in_order(targets.networks),
        tags=tuple(targets.tags),
        sources=clients.networks,
        source_groups=clients.groups,
        until=entry.until.value if entry.until else None,
        audit=entry.mode is not None,
        audit_until=entry.audit_until.value if entry.audit_until else None,
        destination=entry.destination.value if entry.destination else context.defaults.destination,
        sni=entry.sni.value if entry.sni else SniCheck.SAME,
        ech=entry.ech.value if entry.ech else context.defaults.ech,
        addresses=in_order(item.value for item in entry.addresses or ()),
        accept=tuple(dict.fromkeys(item.value for item in entry.accept or ())),
    )


def _targets(entry: RuleEntry, part: Part, references: References) -> _Targets:
    targets = _Targets()
    for item in entry.to or ():
        match item.value:
            case Pattern() as pattern:
                _check_is_no_tag(pattern, item.node, part, references)
                targets.patterns.append(pattern)
            case TagReference(name):
                ranges = references.networks(name, item.node, part.report, wanted_by="this is the")
                targets.networks += ranges
                targets.tags.append(name)
            case ListReference(path):
                names = references.names(path, part.path, item.node, part.report)
                if names is not None:
                    targets.lists[path] = names
            case network:
                targets.networks.append(network)
    return targets


def _check_is_no_tag(pattern: Pattern, node: Node, part: Part, references: References) -> None:
    if pattern.is_exact and references.tags is not None and pattern.suffix in references.tags:
        what = f"{pattern} is the name of a service tag"
        part.report.add(node, what, f"write tag:{pattern}")


def _check_audit(entry: RuleEntry, part: Part) -> None:
    if entry.audit_until is not None and entry.mode is None:
        part.report.add(entry.audit_until.node, "audit_until without audit", "add mode: audit")


def _check_ports(entry: RuleEntry, targets: _Targets, part: Part) -> None:
    """Names go with tls and http; by address, and by exact name, with tcp and udp."""
    ports = [item.value for item in entry.ports or ()]
    by_name = [port for port in ports if port.protocol.is_application]
    by_address = [port for port in ports if not port.protocol.is_application]
    is_deny = entry.action is not None and entry.action.value is Action.DENY
    for item in entry.to or ():
        match item.value:
            case Pattern() | ListReference():
                if by_address:
                    _check_name_by_address(item.value, item.node, is_deny, part, targets)
            case _ if by_name:
                hint = (
                    f"write tcp:{by_name[0].first} to judge it by address,"
                    " or names instead of addresses"
                )
                what = f"an address or tag with {by_name[0]}: tls and http are judged by name"
                part.report.add(item.node, what, hint)
            case _:
                pass  # by address, with network ports only


def _check_name_by_address(
    value: Pattern | ListReference, node: Node, is_deny: bool, part: Part, targets: _Targets
) -> None:
    what = str(value) if isinstance(value, Pattern) else f"list:{value.path}"
    if is_deny:
        part.report.add(
            node,
            f"a deny of the name {what} on tcp or udp: only its addresses of the moment are known",
            "deny it with https or http, or deny its address ranges",
        )
    elif isinstance(value, Pattern):
        if not value.is_exact:
            _report_wildcard(what, node, part)
    elif value.path in targets.lists and (wildcard := targets.lists[value.path].wildcard):
        _report_wildcard(f"{what}, which has {wildcard},", node, part)


def _report_wildcard(what: str, node: Node, part: Part) -> None:
    part.report.add(
        node,
        f"{what} on tcp or udp: a wildcard has no addresses to resolve",
        "write exact names, or judge it by name with tls: or http: ports",
    )
