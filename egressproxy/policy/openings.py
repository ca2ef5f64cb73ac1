"""The names that a policy opens, each with a port: what can be tried from the gateway itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from egressproxy.catalog.samples import WILDCARD
from egressproxy.names import DnsName
from egressproxy.policy.verdict import Action, Flow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.patterns import Pattern
    from egressproxy.policy.rules import Policy, Rule
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.ports import Protocol

MAX_OPENINGS: Final = 2000


class Opening(NamedTuple):
    """A name, and the first port of one of its rule's port items.

    ``is_sample`` is a made-up name below a wildcard, as the catalog has them: it need not exist.
    """

    name: DnsName
    protocol: Protocol
    port: int
    rule: Rule
    is_sample: bool


def openings(policy: Policy, ruleset: Ruleset, now: float) -> tuple[Opening, ...]:
    """What the policy lets somebody reach by name, each once, in its order; at most a bound.

    Names of ``list:`` files are left out, as are those that another rule denies, that audit alone
    lets through, and that have expired; ``now`` is POSIX seconds.
    """
    found: dict[tuple[DnsName, Protocol, int], Opening] = {}
    for rule in policy.rules:
        if rule.action is not Action.ALLOW or rule.sources == ():
            continue
        source = "" if rule.sources is None else str(rule.sources[0].network_address)
        for opening in _of(rule):
            flow = Flow(opening.protocol, source, opening.port, opening.name)
            verdict = ruleset.decide(flow, now)
            if verdict.is_allow and not verdict.would_deny and len(found) < MAX_OPENINGS:
                found.setdefault(opening[:3], opening)
    return tuple(found.values())


def _of(rule: Rule) -> Iterator[Opening]:
    for pattern in rule.patterns:
        name = _name(pattern)
        for span in rule.ports:
            yield Opening(name, span.protocol, span.first, rule, not pattern.is_exact)


def _name(pattern: Pattern) -> DnsName:
    if pattern.prefix is None:
        return pattern.suffix
    return DnsName(f"{pattern.prefix}{WILDCARD}.{pattern.suffix}")
