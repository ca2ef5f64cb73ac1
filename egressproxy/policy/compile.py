"""``compile_policy``: from a ``Policy`` to its ``Ruleset``.

Rules keep their numbers, which are their order of judgement. Every name and network that any of
them mentions becomes one key of one table; rules that share a key form a group, rules that share
ports, sources and dates a gate.
"""

from __future__ import annotations

from array import array
from itertools import chain
from typing import TYPE_CHECKING

from egressproxy.policy.matcher import (
    LONG_GROUP,
    AddressUse,
    Depths,
    Matcher,
    lengths_key,
    network_key,
    pattern_key,
    text_key,
)
from egressproxy.policy.program import EVERYONE, Facts, Gate, Program, end_of_day
from egressproxy.policy.rules import Mode
from egressproxy.policy.ruleset import Ruleset
from egressproxy.policy.table import Table, build_table
from egressproxy.policy.verdict import Action
from egressproxy.ports import MAX_PORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from egressproxy.policy.rules import Policy, Rule
    from egressproxy.policy.table import TableLayout

    Networks = tuple[IPv4Network | IPv6Network, ...]
    Group = tuple[int, ...]


def compile_policy(policy: Policy) -> Ruleset:
    """Compile a policy; a million list entries take seconds, so call it off the loop.

    Raises:
        TableTooLargeError: more than 4 GiB of names.
    """
    gates = _Gates()
    gate_of = array("I", (gates.of(rule) for rule in policy.rules))
    groups = [(gates.source_set(networks), name) for name, networks in policy.sources]
    keys = _Keys()
    keys.add_lists(policy.rules)
    keys.add_rules(policy.rules)
    keys.add_sources(gates.source_sets)
    anywhere = tuple(i for i, rule in enumerate(policy.rules) if rule.any_destination)
    anywhere_group = keys.value(anywhere) if anywhere else None
    buffer, layout = keys.table()
    facts = Facts(
        cloud=policy.cloud,
        digest=policy.digest,
        requirements=policy.requirements,
        mode=policy.mode,
        audit_ends=end_of_day(policy.audit_until),
        warn_ends=end_of_day(policy.warn_until),
        destination=policy.destination,
        ech=policy.ech,
        refusal=policy.refusal,
        on_reload=policy.on_reload,
        boundaries=_boundaries(policy),
        tcp_udp_ports=_tcp_udp_ports(gates.gates),
        application_ports=frozenset(
            (span.protocol, span.first)
            for gate in gates.gates
            for span in gate.ports
            if span.protocol.is_application
        ),
        depths=keys.depths(),
        layout=layout,
    )
    return Ruleset(
        Program(
            facts=facts,
            rules=policy.rules,
            gates=gates.gates,
            gate_of=gate_of,
            groups=groups,
            anywhere=anywhere_group,
            matcher=Matcher(Table(buffer, layout), keys.words, facts.depths),
        )
    )


def _boundaries(policy: Policy) -> tuple[float, ...]:
    days = {rule.until for rule in policy.rules}
    days |= {rule.audit_until for rule in policy.rules if rule.audit}
    if policy.mode is Mode.AUDIT:
        days.add(policy.audit_until)
    if policy.mode is Mode.WARN_ON_NEW:
        days.add(policy.warn_until)
    return tuple(sorted(end_of_day(day) for day in days if day is not None))


def _tcp_udp_ports(gates: Iterable[Gate]) -> bytes:
    marks = bytearray(MAX_PORT + 1)
    for gate in gates:
        for span in gate.ports:
            if not span.protocol.is_application:
                marks[span.first : span.last + 1] = b"\1" * (span.last + 1 - span.first)
    return bytes(marks)


class _Gates:
    """Numbers the distinct gates and source sets of a policy."""

    def __init__(self) -> None:
        self.gates: list[Gate] = []
        self.source_sets: dict[Networks, int] = {}
        self._numbers: dict[Gate, int] = {}

    def of(self, rule: Rule) -> int:
        sources = EVERYONE if rule.sources is None else self.source_set(rule.sources)
        expires = end_of_day(rule.until)
        is_allow = rule.action is Action.ALLOW
        if is_allow and rule.audit:  # what only audit allows ends with the audit
            expires = min(expires, end_of_day(rule.audit_until))
        gate = Gate(rule.ports, sources, expires, is_allow)
        number = self._numbers.setdefault(gate, len(self.gates))
        if number == len(self.gates):
            self.gates.append(gate)
        return number

    def source_set(self, networks: Networks) -> int:
        return self.source_sets.setdefault(networks, len(self.source_sets))


class _Keys:
    """All keys of a policy with the groups that own them."""

    def __init__(self) -> None:
        self.owners: dict[bytes, Group] = {}
        self.words = array("I")
        self._values: dict[Group, int] = {}
        self._lengths: dict[bytes, int] = {}
        self._suffixes = 0
        self._networks: dict[tuple[AddressUse, int], set[int]] = {}

    def value(self, group: Group) -> int:
        """What stands in the table for a group."""
        if len(group) == 1:
            return group[0]
        known = self._values.get(group)
        if known is None:
            known = self._values[group] = LONG_GROUP + len(self.words)
            self.words.append(len(group))
            self.words.extend(group)
        return known

    def add_lists(self, rules: Sequence[Rule]) -> None:
        """The entries of lists, millions of them, with no Python call for most."""
        entries: dict[int, tuple[str, ...]] = {}
        users: dict[int, list[int]] = {}
        for number, rule in enumerate(rules):
            for names in rule.lists:
                entries[id(names.entries)] = names.entries
                users.setdefault(id(names.entries), []).append(number)
        for place, texts in entries.items():
            exact = [b"=" + text.encode() for text in texts if "*" not in text]
            wild = [text for text in texts if "*" in text] if len(exact) < len(texts) else []
            group = tuple(sorted(set(users[place])))
            self._merge(dict.fromkeys(exact, group))
            self._merge({text_key(text): group for text in wild})
            for text in wild:
                prefix, _, suffix = text.partition("*")
                self._note_wildcard(prefix, suffix.encode())

    def _merge(self, fresh: dict[bytes, Group]) -> None:
        if not self.owners:
            self.owners = fresh
            return
        for key in self.owners.keys() & fresh.keys():
            fresh[key] = tuple(sorted({*self.owners[key], *fresh[key]}))
        self.owners.update(fresh)

    def add_rules(self, rules: Sequence[Rule]) -> None:
        """The patterns and networks that are written in rules."""
        owners: dict[bytes, dict[int, None]] = {}
        for number, rule in enumerate(rules):
            for pattern in rule.patterns:
                owners.setdefault(pattern_key(pattern), {})[number] = None
                if pattern.prefix is not None:
                    self._note_wildcard(pattern.prefix, b"." + pattern.suffix.encode())
            for network in rule.networks:
                key = self._network_key(AddressUse.DESTINATION, network)
                owners.setdefault(key, {})[number] = None
        self._merge({key: tuple(numbers) for key, numbers in owners.items()})

    def add_sources(self, source_sets: dict[Networks, int]) -> None:
        """The networks of source sets; their groups are of set numbers."""
        owners: dict[bytes, dict[int, None]] = {}
        for networks, number in source_sets.items():
            for network in networks:
                key = self._network_key(AddressUse.SOURCE, network)
                owners.setdefault(key, {})[number] = None
        self._merge({key: tuple(numbers) for key, numbers in owners.items()})

    def _network_key(self, use: AddressUse, network: IPv4Network | IPv6Network) -> bytes:
        lengths = self._networks.setdefault((use, network.max_prefixlen // 8), set())
        lengths.add(network.prefixlen)
        return network_key(use, network)

    def _note_wildcard(self, prefix: str, suffix: bytes) -> None:
        if prefix:
            self._lengths[suffix] = self._lengths.get(suffix, 0) | 1 << len(prefix)
        else:
            self._suffixes |= 1 << suffix.count(b".")

    def table(self) -> tuple[bytes, TableLayout]:
        """All keys and what stands there for them."""
        values = {group: self.value(group) for group in set(self.owners.values())}
        lengths = self._prefix_lengths()
        return build_table(
            [*self.owners, *lengths],
            chain(map(values.__getitem__, self.owners.values()), lengths.values()),
        )

    def _prefix_lengths(self) -> dict[bytes, int]:
        """The keys that say which prefix lengths there are under a suffix, and their places."""
        places = {}
        for suffix, lengths in self._lengths.items():
            places[lengths_key(suffix)] = len(self.words)
            self.words.extend((lengths & 0xFFFFFFFF, lengths >> 32))
        return places

    def depths(self) -> Depths:
        """What lookups need not probe."""
        prefixed = 0
        for suffix in self._lengths:
            prefixed |= 1 << suffix.count(b".")
        networks = {key: tuple(sorted(lengths)) for key, lengths in self._networks.items()}
        return Depths(self._suffixes, prefixed, tuple(networks.items()))
