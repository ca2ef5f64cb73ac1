"""The names that two policies judge otherwise, found by asking both."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING, Final

from egressproxy.errors import InvalidNameError
from egressproxy.names import DnsName
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.verdict import Flow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.policy.networks import Network
    from egressproxy.policy.rules import Policy
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.ports import PortSpan, Protocol

MAX_QUESTIONS: Final = 500_000
"""Names x ports x sources that are asked; a few microseconds each."""

_SAMPLE: Final = "egressproxy-diff-sample"
"""Stands for a wildcard's ``*``: no policy names it."""

_ELSEWHERE: Final = ("192.0.2.1", "198.51.100.1", "203.0.113.1", "8.8.8.8", "2001:db8::1")


@dataclass(frozen=True, slots=True)
class NameChange:
    """A name that is judged otherwise; ``sources`` is empty where it is so for everyone."""

    name: str
    port: str
    is_allowed: bool
    sources: tuple[str, ...] = ()

    def __str__(self) -> str:
        verb = "allowed" if self.is_allowed else "denied"
        clients = f" from {', '.join(self.sources)}" if self.sources else ""
        return f"{verb} now: {self.name} on {self.port}{clients}"


@dataclass(frozen=True, slots=True)
class NameDiff:
    """``unasked`` counts the names beyond ``MAX_QUESTIONS``."""

    changes: tuple[NameChange, ...]
    unasked: int = 0


def diff_names(old: Policy, new: Policy, now: float) -> NameDiff:
    """Ask both policies about every name either mentions, by port and source group.

    Args:
        old: the policy before.
        new: the policy after.
        now: POSIX seconds, for rules that expire.
    """
    asked = _Asked(compile_policy(old), compile_policy(new), now, _sources(old, new))
    ports = sorted(_ports(old) | _ports(new))
    names = dict.fromkeys(_names(old, new))
    most = MAX_QUESTIONS // max(1, len(ports) * len(asked.sources))
    changes = [
        change
        for written in islice(names, most)
        for protocol, port in ports
        for change in asked.about(written, protocol, port)
    ]
    return NameDiff(tuple(changes), max(0, len(names) - most))


@dataclass(frozen=True, slots=True)
class _Asked:
    old: Ruleset
    new: Ruleset
    now: float
    sources: dict[str, str]

    def about(self, written: str, protocol: Protocol, port: int) -> Iterator[NameChange]:
        try:
            name = DnsName(written.replace("*", _SAMPLE))
        except InvalidNameError:
            return  # a suffix so long that nothing fits before it
        changed: dict[bool, list[str]] = {True: [], False: []}
        for src, label in self.sources.items():
            flow = Flow(protocol, src, port, name)
            after = self.new.decide(flow, self.now).is_allow
            if self.old.decide(flow, self.now).is_allow is not after:
                changed[after].append(label)
        for is_allowed, labels in changed.items():
            everyone = len(labels) == len(self.sources)
            if labels:
                where = () if everyone else tuple(dict.fromkeys(labels))
                yield NameChange(written, f"{protocol}:{port}", is_allowed, where)


def _ports(policy: Policy) -> set[tuple[Protocol, int]]:
    spans: Iterable[PortSpan] = (span for rule in policy.rules for span in rule.ports)
    return {(span.protocol, span.first) for span in spans if span.protocol.is_application}


def _names(old: Policy, new: Policy) -> Iterator[str]:
    """Every pattern of both; of lists only what one of them lacks."""
    for policy in (old, new):
        for rule in policy.rules:
            yield from map(str, rule.patterns)
    before, after = (
        {entry for rule in policy.rules for names in rule.lists for entry in names.entries}
        for policy in (old, new)
    )
    yield from sorted(before ^ after)


def _sources(old: Policy, new: Policy) -> dict[str, str]:
    """An address for each range that a rule or group names, and one that is in none of them."""
    labels: dict[Network, str] = {}
    for policy in (old, new):
        for name, networks in policy.sources:
            labels.update(dict.fromkeys(networks, name))
        for rule in policy.rules:
            for network in rule.sources or ():
                labels.setdefault(network, str(network))
    sources = {str(network.network_address): label for network, label in labels.items()}
    for address in map(ip_address, _ELSEWHERE):
        if not any(address in network for network in labels):
            sources[str(address)] = "elsewhere"
            break
    return sources
