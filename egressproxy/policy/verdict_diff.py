"""What two policies judge otherwise, found by asking both: names, and addresses by port."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice, product
from typing import TYPE_CHECKING, Final, NamedTuple

from egressproxy.errors import InvalidNameError
from egressproxy.names import DnsName
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.verdict import Flow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.policy.networks import Network
    from egressproxy.policy.rules import Policy, Rule
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.ports import PortSpan

MAX_QUESTIONS: Final = 500_000
"""Destinations x ports x sources that are asked; a few microseconds each."""

MAX_OF_TAG: Final = 100
"""Ranges of a service tag that are asked, evenly picked."""

_SAMPLE: Final = "egressproxy-diff-sample"
"""Stands for a wildcard's ``*``: no policy names it."""

_ELSEWHERE: Final = ("192.0.2.1", "198.51.100.1", "203.0.113.1", "8.8.8.8", "2001:db8::1")


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """A destination that is judged otherwise; ``sources`` is empty where it is so for everyone."""

    destination: str
    port: str
    is_allowed: bool
    sources: tuple[str, ...] = ()

    def __str__(self) -> str:
        verb = "allowed" if self.is_allowed else "denied"
        clients = f" from {', '.join(self.sources)}" if self.sources else ""
        return f"{verb} now: {self.destination} on {self.port}{clients}"


@dataclass(frozen=True, slots=True)
class VerdictDiff:
    """``unasked`` counts the destinations beyond ``MAX_QUESTIONS``."""

    changes: tuple[VerdictChange, ...]
    unasked: int = 0


class _Question(NamedTuple):
    """One destination as a person reads it, and the flows' names and addresses that ask of it."""

    label: str
    names: tuple[DnsName, ...] = ()
    addresses: tuple[str, ...] = ()


def diff_verdicts(old: Policy, new: Policy, now: float) -> VerdictDiff:
    """Ask both policies about all that either mentions, by port and source group.

    Args:
        old: the policy before.
        new: the policy after.
        now: POSIX seconds, for rules that expire.
    """
    asked = _Asked(compile_policy(old), compile_policy(new), now, _sources(old, new))
    spans = sorted({span for rule in (*old.rules, *new.rules) for span in rule.ports})
    by_name = [span for span in spans if span.protocol.is_application]
    by_address = [span for span in spans if not span.protocol.is_application]
    names, addresses = _names(old, new), _addresses(old, new)
    cost = max(1, len(asked.sources))
    most = MAX_QUESTIONS // (cost * max(1, len(spans)))
    changes = [
        change
        for question, ports in islice(
            ((q, ports) for qs, ports in ((names, by_name), (addresses, by_address)) for q in qs),
            most,
        )
        for span in ports
        for change in asked.about(question, span)
    ]
    return VerdictDiff(tuple(changes), max(0, len(names) + len(addresses) - most))


@dataclass(frozen=True, slots=True)
class _Asked:
    old: Ruleset
    new: Ruleset
    now: float
    sources: dict[str, str]

    def about(self, question: _Question, span: PortSpan) -> Iterator[VerdictChange]:
        changed: dict[bool, dict[str, None]] = {True: {}, False: {}}
        for flow, label in self._flows(question, span):
            after = self.new.decide(flow, self.now).is_allow
            if self.old.decide(flow, self.now).is_allow is not after:
                changed[after][label] = None
        everyone = set(self.sources.values())
        for is_allowed, labels in changed.items():
            if labels:
                where = () if everyone == set(labels) else tuple(labels)
                yield VerdictChange(question.label, str(span), is_allowed, where)

    def _flows(self, question: _Question, span: PortSpan) -> Iterator[tuple[Flow, str]]:
        for (src, label), port in product(self.sources.items(), {span.first, span.last}):
            for name in question.names:
                yield Flow(span.protocol, src, port, name), label
            for address in question.addresses:
                yield Flow(span.protocol, src, port, dst=address), label


def _names(old: Policy, new: Policy) -> list[_Question]:
    """Every pattern of both; of lists only what one of them lacks."""
    texts = [str(p) for policy in (old, new) for rule in policy.rules for p in rule.patterns]
    before, after = (
        {entry for rule in policy.rules for names in rule.lists for entry in names.entries}
        for policy in (old, new)
    )
    written = dict.fromkeys((*texts, *sorted(before ^ after)))
    return [_Question(text, names) for text in written if (names := _sample(text))]


def _sample(written: str) -> tuple[DnsName, ...]:
    try:
        return (DnsName(written.replace("*", _SAMPLE)),)
    except InvalidNameError:
        return ()  # a suffix so long that nothing fits before it


def _addresses(old: Policy, new: Policy) -> list[_Question]:
    """Every network and tag of both, and every name that is judged by its addresses."""
    questions: dict[_Question, None] = {}
    for rule in (*old.rules, *new.rules):
        if any(not span.protocol.is_application for span in rule.ports):
            questions.update(dict.fromkeys(_of_network_rule(rule)))
    return list(questions)


def _of_network_rule(rule: Rule) -> Iterator[_Question]:
    if rule.any_destination:
        yield _Question("any address", addresses=_ELSEWHERE[:1])
    if rule.tags:
        step = -(-len(rule.networks) // MAX_OF_TAG) or 1
        picked = tuple(map(_inside, rule.networks[::step]))
        yield _Question(", ".join(f"tag:{tag}" for tag in rule.tags), addresses=picked)
    else:
        for network in rule.networks:
            yield _Question(str(network), addresses=(_inside(network),))
    for pattern in rule.patterns:
        yield _Question(str(pattern), _sample(str(pattern)))


def _inside(network: Network) -> str:
    """An address a third into a network: its smaller parts are rarely cut there."""
    return str(network[network.num_addresses // 3])


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
    if elsewhere := _elsewhere(labels):
        sources[elsewhere] = "elsewhere"
    return sources


def _elsewhere(networks: Iterable[Network]) -> str:
    """An address that is in none of the networks, or an empty text."""
    known = tuple(networks)
    return next(
        (text for text in _ELSEWHERE if not any(ip_address(text) in one for one in known)), ""
    )
