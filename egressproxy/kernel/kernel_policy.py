"""``KernelPolicy``: what of a policy the kernel enforces at one moment.

Pass 1 only: rules with tcp or udp ports, in order, without those whose dates are over (a packet
falls through them, as ``decide`` has it) and those that can match no packet (``from: []``).
Networks are collapsed: ranges that overlap or touch are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import TYPE_CHECKING, Final

from egressproxy.names import DnsName
from egressproxy.policy.program import end_of_day
from egressproxy.policy.rules import Mode
from egressproxy.policy.verdict import Action
from egressproxy.ports import PortSpan, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.policy.networks import Network
    from egressproxy.policy.rules import Policy, Rule

MAX_NAMES: Final = 2000
"""Names of all rules that get sets: a packet that no rule matches is looked up in each of them."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Addresses of both families, collapsed and in order."""

    v4: tuple[IPv4Network, ...] = ()
    v6: tuple[IPv6Network, ...] = ()

    @classmethod
    def of(cls, networks: Iterable[Network]) -> Ranges:
        """The same addresses in as few ranges as there can be."""
        networks = tuple(networks)
        return cls(
            tuple(collapse_addresses(n for n in networks if isinstance(n, IPv4Network))),
            tuple(collapse_addresses(n for n in networks if isinstance(n, IPv6Network))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRule:
    """One rule of pass 1.

    ``would_deny`` is a rule that lets pass and is logged: an audit's allow, or a deny that audit
    softens (``action`` is then what enforcing would do). ``sources`` is ``None`` for every client.
    ``spans`` are tcp and udp, collapsed and in order. It matches where ``any_destination`` says so,
    a destination is in ``destinations``, or it is an address of one of ``names``. ``addresses`` are
    those not public that an allow rule lets its names have.
    """

    id: str
    action: Action
    would_deny: bool
    spans: tuple[PortSpan, ...]
    sources: Ranges | None = None
    destinations: Ranges = Ranges()
    any_destination: bool = False
    names: tuple[DnsName, ...] = ()
    addresses: tuple[Network, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether what it matches is forwarded."""
        return self.action is Action.ALLOW or self.would_deny


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelPolicy:
    """Pass 1 at one moment.

    ``application_ports`` are the TCP ports that tls and http rules use, in order. ``is_audit`` is
    an audit of the whole policy that is not over. ``digest`` is the policy's. ``names_left_out``
    says how many names are above ``MAX_NAMES``: nothing is opened for them.
    """

    rules: tuple[KernelRule, ...]
    application_ports: tuple[int, ...]
    is_audit: bool
    digest: str
    names_left_out: int = 0


def kernel_policy(policy: Policy, now: float) -> KernelPolicy:
    """What the kernel enforces of a policy at ``now``, POSIX seconds.

    Good until ``Ruleset.next_expiry(now)``. Takes time by the number of ranges.
    """
    is_audit = policy.mode is Mode.AUDIT and now < end_of_day(policy.audit_until)
    names = _Names()
    ranges: dict[tuple[Network, ...], Ranges] = {}
    rules = []
    for rule in policy.rules:
        spans = _spans(rule)
        if not spans or _is_over(rule, now) or rule.sources == ():
            continue
        made = KernelRule(
            id=rule.id,
            action=rule.action,
            would_deny=_would_deny(rule, is_audit, now),
            spans=spans,
            sources=None if rule.sources is None else _ranges(rule.sources, ranges),
            destinations=_ranges(rule.networks, ranges),
            any_destination=rule.any_destination,
            names=names.of(rule),
            addresses=rule.addresses if rule.action is Action.ALLOW else (),
        )
        if made.any_destination or made.destinations != Ranges() or made.names:
            rules.append(made)
    return KernelPolicy(
        rules=tuple(rules),
        application_ports=_application_ports(policy),
        is_audit=is_audit,
        digest=policy.digest,
        names_left_out=names.left_out,
    )


def exact_names(rule: Rule) -> Iterator[DnsName]:
    """The names of a rule that have addresses to resolve: no wildcards."""
    yield from (pattern.suffix for pattern in rule.patterns if pattern.is_exact)
    for names in rule.lists:
        yield from (DnsName(text) for text in names.entries if "*" not in text)


class _Names:
    """Counts distinct names up to the limit."""

    def __init__(self) -> None:
        self._taken: set[DnsName] = set()
        self._refused: set[DnsName] = set()

    @property
    def left_out(self) -> int:
        return len(self._refused)

    def of(self, rule: Rule) -> tuple[DnsName, ...]:
        return tuple(dict.fromkeys(filter(self._take, exact_names(rule))))

    def _take(self, name: DnsName) -> bool:
        if name not in self._taken and len(self._taken) >= MAX_NAMES:
            self._refused.add(name)
            return False
        self._taken.add(name)
        return True


def _is_over(rule: Rule, now: float) -> bool:
    """Whether its day is past; what only audit allows ends with the audit."""
    is_trial = rule.audit and rule.action is Action.ALLOW
    return end_of_day(rule.until) <= now or (is_trial and end_of_day(rule.audit_until) <= now)


def _would_deny(rule: Rule, is_audit: bool, now: float) -> bool:
    if rule.action is Action.ALLOW:
        return rule.audit
    return is_audit or (rule.audit and now < end_of_day(rule.audit_until))


def _spans(rule: Rule) -> tuple[PortSpan, ...]:
    """The tcp and udp ports of a rule, overlapping and adjacent ones joined."""
    joined: list[PortSpan] = []
    for span in sorted(span for span in rule.ports if not span.protocol.is_application):
        last = joined[-1] if joined else None
        if last and last.protocol is span.protocol and span.first <= last.last + 1:
            joined[-1] = PortSpan(last.protocol, last.first, max(last.last, span.last))
        else:
            joined.append(span)
    return tuple(joined)


def _ranges(networks: tuple[Network, ...], known: dict[tuple[Network, ...], Ranges]) -> Ranges:
    """Collapsed once, however many rules share a service tag."""
    if networks not in known:
        known[networks] = Ranges.of(networks)
    return known[networks]


def _application_ports(policy: Policy) -> tuple[int, ...]:
    """Also those of rules that are over: the proxy says ``expired_rule`` to their clients."""
    ports = {s.first for rule in policy.rules for s in rule.ports if s.protocol.is_application}
    return tuple(sorted(ports))


TCP_AND_UDP: Final = (Protocol.TCP, Protocol.UDP)
"""The protocols of ``KernelRule.spans``."""
