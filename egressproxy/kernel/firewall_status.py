"""The table in force as people ask about it: whose counters, which names' sets, what is wrong.

Pure: from what the kernel holds (``Takeover``) and, where there is one, the policy it should be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.kernel.firewall_options import FirewallOptions, Intercept
from egressproxy.kernel.nft_names import Outcome, name_sets, rule_counter
from egressproxy.policy.verdict import Action

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.kernel.kernel_policy import KernelPolicy, KernelRule
    from egressproxy.kernel.nft_apply import TableState
    from egressproxy.kernel.takeover import Takeover

SHOWN_DIGEST: Final = 12
MAX_SHOWN: Final = 3

_ACTIONS: Final = {
    Outcome.PROXIED: "proxy",
    Outcome.WOULD_DENY: "allow",
    Outcome.QUIC_REFUSED: "reject",
}
"""What becomes of a packet; of all others: it is dropped."""


@dataclass(frozen=True, slots=True)
class Count:
    """A counter; ``of`` is the rule's id, or an ``Outcome``.

    ``action`` is what becomes of the packets it counts; empty where no policy says it.
    """

    of: str
    name: str
    packets: int
    bytes: int
    action: str = ""


@dataclass(frozen=True, slots=True)
class SetSize:
    """A set; ``of`` is the name whose addresses it has, empty for a set of ranges."""

    of: str
    name: str
    type: str
    elements: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallStatus:
    """What ``nft status`` shows; ``problems`` is empty while all is as it has to be.

    ``rules`` are in the policy's order, what the table alone has comes last. ``policy_digest`` is
    empty where no policy was given.
    """

    takeover: Takeover
    policy_digest: str
    outcomes: tuple[Count, ...] = ()
    rules: tuple[Count, ...] = ()
    sets: tuple[SetSize, ...] = ()
    problems: tuple[str, ...] = ()


def firewall_status(
    found: Takeover, policy: KernelPolicy | None, options: FirewallOptions
) -> FirewallStatus:
    """Join what is with what should be.

    Args:
        found: what the kernel holds.
        policy: what it should enforce now; without one nothing is held against it.
        options: of the gateway; what TPROXY needs is asked for where they intercept so.
    """
    table = found.table
    problems = (*_table_problems(found, policy), *_machine_problems(found, options))
    digest = "" if policy is None else policy.digest
    if table is None:
        return FirewallStatus(takeover=found, policy_digest=digest, problems=problems)
    return FirewallStatus(
        takeover=found,
        policy_digest=digest,
        outcomes=tuple(_outcomes(table)),
        rules=tuple(_rules(table, policy)),
        sets=tuple(_sets(table, policy)),
        problems=problems,
    )


def _table_problems(found: Takeover, policy: KernelPolicy | None) -> Iterator[str]:
    table = found.table
    if table is None:
        yield "there is no table: egressproxy up (or nft apply)"
        return
    if not table.digest:
        yield "the table is between two policies, or none of ours"
    if found.is_changed:
        yield "somebody changed the table since it was applied: egressproxy nft apply"
    if policy is None:
        return
    if table.digest and table.digest != policy.digest:
        in_force, wanted = table.digest[:SHOWN_DIGEST], policy.digest[:SHOWN_DIGEST]
        yield f"policy {in_force} is in force, not {wanted}: egressproxy nft apply"
    elif not _has_rules_of(table, policy):
        yield "the table has other rules than the policy has today: egressproxy nft apply"
    if policy.names_left_out:
        yield f"network rules have too many names: {policy.names_left_out:,} are not resolved"


def _has_rules_of(table: TableState, policy: KernelPolicy) -> bool:
    """By counters; rules come and go with their dates while the policy stays."""
    wanted = {rule_counter(rule.id) for rule in policy.rules}
    return wanted == table.counters.keys() - set(Outcome)


def _machine_problems(found: Takeover, options: FirewallOptions) -> Iterator[str]:
    routing = found.routing
    if not routing.guard:
        yield "the routing guard is not in place: without the table everything is forwarded"
    for rule in routing.ahead:
        yield f"a routing rule comes before the guard: {rule}"
    if options.intercept is Intercept.TPROXY and options.tproxy_port and not routing.tproxy:
        yield "TPROXY's routing is not in place: application flows are lost"
    if found.sysctls:
        shown = [
            f"{each.name.replace('/', '.')} is {each.now or 'missing'}, not {each.wanted}"
            for each in found.sysctls[-MAX_SHOWN:]
        ]  # forwarding is the last
        more = len(found.sysctls) - len(shown)
        rest = f", and {more} more" if more else ""
        yield f"sysctls: {'; '.join(shown)}{rest}: egressproxy up"


def _outcomes(table: TableState) -> Iterator[Count]:
    for outcome in Outcome:
        if counter := table.counters.get(outcome):
            action = _ACTIONS.get(outcome, "drop")
            yield Count(outcome, outcome, counter.packets, counter.bytes, action)


def _rules(table: TableState, policy: KernelPolicy | None) -> Iterator[Count]:
    rules = {} if policy is None else {rule_counter(rule.id): rule for rule in policy.rules}
    others = sorted(table.counters.keys() - rules.keys() - set(Outcome))
    for name in (*rules, *others):
        if counter := table.counters.get(name):
            rule = rules.get(name)
            of = counter.comment if rule is None else rule.id
            yield Count(of, name, counter.packets, counter.bytes, _action(rule))


def _action(rule: KernelRule | None) -> str:
    if rule is None:
        return ""
    if rule.would_deny:
        return "audit"
    return "allow" if rule.action is Action.ALLOW else "drop"


def _sets(table: TableState, policy: KernelPolicy | None) -> Iterator[SetSize]:
    names = () if policy is None else policy.rules
    of = {made: name for rule in names for name in rule.names for made in name_sets(name)}
    rank = {made: place for place, made in enumerate(of)}
    for made in sorted(table.sets, key=lambda each: (rank.get(each, len(rank)), each)):
        state = table.sets[made]
        yield SetSize(of.get(made, ""), made, state.type, state.elements)
