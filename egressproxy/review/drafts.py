"""A draft: an addition to a policy being thought of, as rules to judge by and as YAML to write."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from egressproxy.policy.rules import Origin, Rule
from egressproxy.policy.sources import EVERYONE, Clients
from egressproxy.policy.verdict import Action
from egressproxy.review.suggestion import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from egressproxy.catalog.model import ExpandedRow
    from egressproxy.patterns import Pattern
    from egressproxy.policy.networks import Network
    from egressproxy.policy.rules import Policy
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.ports import PortSpan
    from egressproxy.review.model import SubjectCount
    from egressproxy.review.suggestion import Suggestion

MAX_LITERALS: Final = 32
"""Client addresses that a ``from:`` lists."""
MAX_GROUPS: Final = 32
"""Source groups that a ``from:`` names; beyond it counts for everyone."""
ORIGIN: Final = Origin("suggested", 0)
PREFIX: Final = "suggested/"
"""Begins the ids of rules that are only suggested."""

_SHORT: Final = {"tls:443": "https", "http:80": "http"}
_PLAIN: Final = re.compile(r"[a-z][a-z0-9-]*(?:\.[a-z0-9-]+)*|[0-9]+(?:\.[0-9]+){3}", re.ASCII)
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_ODD: Final = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)
_MAX_NAME: Final = 90

Option = str | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One addition; exactly one of ``pattern``, ``network`` and ``rows`` is set.

    ``options`` are those of a requirement. ``name`` is the rule's, unique among drafts.
    """

    kind: Kind
    title: str
    subjects: tuple[SubjectCount, ...]
    why: str
    name: str = ""
    ports: tuple[PortSpan, ...] = ()
    pattern: Pattern | None = None
    network: Network | None = None
    rows: tuple[ExpandedRow, ...] = ()
    options: tuple[tuple[str, Option], ...] = ()
    clients: Clients = field(default=EVERYONE)

    @property
    def section(self) -> str:
        """Where in a document it belongs."""
        return "requirements" if self.rows else "rules"

    def rules(self, policy: Policy) -> tuple[Rule, ...]:
        """What it means in a policy."""
        if self.rows:
            return tuple(self._row_rule(row, policy) for row in self.rows)
        return (
            Rule(
                id=f"{PREFIX}rules/{self.name}",
                action=Action.ALLOW,
                ports=self.ports,
                origin=ORIGIN,
                patterns=() if self.pattern is None else (self.pattern,),
                networks=() if self.network is None else (self.network,),
                sources=self.clients.networks,
                source_groups=self.clients.groups,
                destination=policy.destination,
                ech=policy.ech,
            ),
        )

    def _row_rule(self, row: ExpandedRow, policy: Policy) -> Rule:
        return Rule(
            id=f"{PREFIX}{row.row.id}{_suffix(self)}",
            action=Action.ALLOW,
            ports=row.ports,
            origin=replace(ORIGIN, document=row.row.document, section=row.row.section),
            patterns=row.patterns,
            networks=row.networks,
            tags=row.tags,
            sources=self.clients.networks,
            source_groups=self.clients.groups,
            destination=policy.destination,
            ech=policy.ech,
            requirement=self.title,
        )

    def entry(self) -> tuple[str, ...]:
        """The lines of its YAML item, not indented."""
        sources = _sources(self.clients)
        if self.rows:
            options = [f"{name}: {_scalar(value)}" for name, value in self.options]
            options += [f"from: {sources}"] if sources else []
            return (f"- {self.title}" + (f": {{{', '.join(options)}}}" if options else ""),)
        target = str(self.pattern if self.pattern is not None else _address(self.network))
        lines = [
            f"- name: {_scalar(self.name)}",
            f"  to: [{_scalar(target)}]",
            f"  ports: [{', '.join(map(_port_item, self.ports))}]",
        ]
        return (*lines, *([f"  from: {sources}"] if sources else []))


def candidate(policy: Policy, suggestions: Iterable[Suggestion]) -> Policy:
    """The policy with suggestions applied, in memory, as an include file would add them.

    Rules come after the policy's own, before its requirements. ``digest`` is empty: it is no policy
    that a file holds.
    """
    return with_rules(policy, [rule for each in suggestions for rule in each.rules])


def with_rules(policy: Policy, added: Sequence[Rule]) -> Policy:
    """The policy with more rules, each where its kind belongs."""
    written = [rule for rule in policy.rules if rule.requirement is None]
    required = [rule for rule in policy.rules if rule.requirement is not None]
    new_written = [rule for rule in added if rule.requirement is None]
    new_required = [rule for rule in added if rule.requirement is not None]
    return replace(
        policy,
        rules=(*written, *new_written, *required, *new_required),
        requirements=tuple(
            dict.fromkeys((*policy.requirements, *(r.requirement or "" for r in new_required)))
        ),
        digest="",
    )


def clients_of(counts: Iterable[SubjectCount], policy: Policy, ruleset: Ruleset) -> Clients:
    """The policy's source groups that all clients are in, or everyone."""
    groups = {ruleset.source_group(each.subject.src_ip) for each in counts}
    names = sorted(group for group in groups if group is not None)
    if None in groups or not names or len(names) > MAX_GROUPS:
        return EVERYONE
    networks = dict(policy.sources)
    return Clients(tuple(net for name in names for net in networks[name]), tuple(names))


def literal_clients(counts: Iterable[SubjectCount]) -> Clients | None:
    """Exactly the clients that were seen; ``None`` where they are too many to list."""
    addresses = sorted({each.subject.src_ip for each in counts})
    if len(addresses) > MAX_LITERALS:
        return None
    return Clients(tuple(ip_network(address) for address in addresses))


def rule_name(title: str, taken: set[str]) -> str:
    """A rule's name made of what it allows; adds it to ``taken``."""
    text = title.replace("*.", "below ") if title.startswith("*.") else title.replace("*", "")
    parts = (_ODD.sub("-", part).strip("-._") for part in text.split(" "))
    base = " ".join(filter(None, parts))[-_MAX_NAME:].lstrip("-._ ") or "rule"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base} {number}"
    taken.add(name)
    return name


def _suffix(draft: Draft) -> str:
    """Tells the rows of a requirement that is listed twice apart."""
    return "".join(f"@{value}" for name, value in draft.options if name == "registry")


def _address(network: Network | None) -> str:
    if network is None:
        return ""
    is_one = network.num_addresses == 1
    return str(network.network_address if is_one else network)


def _sources(clients: Clients) -> str:
    if clients.networks is None:
        return ""
    items = clients.groups or tuple(_address(network) for network in clients.networks)
    return f"[{', '.join(map(_scalar, items))}]"


def _port_item(span: PortSpan) -> str:
    text = str(span)
    return _SHORT.get(text) or json.dumps(text)


def _scalar(value: Option) -> str:
    """A value as YAML reads it back."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    is_plain = _PLAIN.fullmatch(value) and value not in _WORDS
    return value if is_plain else json.dumps(value)
