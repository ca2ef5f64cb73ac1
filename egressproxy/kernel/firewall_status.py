"""The table in force as people ask about it: whose counters, which names' sets, what is wrong.

Pure: from what the kernel holds (``Takeover``) and, where there is one, the policy it should be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from egressproxy.kernel.firewall_options import Intercept
from egressproxy.kernel.nft_names import Outcome, name_sets, rule_counter
from egressproxy.policy.verdict import Action

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from egressproxy.kernel.firewall_options import FirewallOptions
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
    empty where no policy was given; ``is_audit`` is whether that policy is in force, and is an
    audit; ``wants_tproxy`` whether TPROXY's routing has to be there.
    """

    takeover: Takeover
    policy_digest: str
    is_audit: bool = False
    wants_tproxy: bool = False
    outcomes: tuple[Count, ...] = ()
    rules: tuple[Count, ...] = ()
    sets: tuple[SetSize, ...] = ()
    problems: tuple[str, ...] = ()


def firewall_status(
    found: Takeover,
    policy: KernelPolicy | None,
    options: FirewallOptions,
    *,
    are_whole: bool = False,
    listening: Collection[int] | None = None,
) -> FirewallStatus:
    """Join what is with what should be.

    Args:
        found: what the kernel holds.
        policy: what it should enforce now; without one nothing is held against it.
        options: of the gateway; what TPROXY needs is asked for where they intercept so.
        are_whole: these are all the options that ``up`` has: the table is held against them.
        listening: the TCP ports where somebody listens, where that is known.
    """
    table = found.table
    wants_tproxy = options.intercept is Intercept.TPROXY and bool(options.tproxy_port)
    status = FirewallStatus(
        takeover=found,
        policy_digest="" if policy is None else policy.digest,
        wants_tproxy=wants_tproxy,
    )
    if table is None:
        return replace(status, problems=tuple(_problems_without_table(found)))
    problems = (
        *_table_problems(found, policy),
        *(_options_problems(table, options) if are_whole else ()),
        *(() if listening is None else _listener_problems(table, policy, listening)),
        *_machine_problems(found, wants_tproxy=wants_tproxy),
    )
    return replace(
        status,
        is_audit=policy is not None and policy.is_audit and policy.digest == table.digest,
        outcomes=tuple(_outcomes(table)),
        rules=tuple(_rules(table, policy)),
        sets=tuple(_sets(table, policy)),
        problems=problems,
    )


def _problems_without_table(found: Takeover) -> Iterator[str]:
    if not (found.routing.guard or found.is_forwarding):
        yield "nothing of ours is in place, and this machine does not forward: egressproxy up"
        return
    yield "there is no table: egressproxy up (or nft apply)"
    if found.routing.guard:
        yield from _machine_problems(found, wants_tproxy=False)
    else:
        yield "nor is the routing guard: this machine forwards packets that nobody judges"


def _table_problems(found: Takeover, policy: KernelPolicy | None) -> Iterator[str]:
    table = found.table
    if table is None:
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


def _options_problems(table: TableState, options: FirewallOptions) -> Iterator[str]:
    if table.options and table.options != options.digest:
        yield (
            "other options are in force than those given (clients, management, …):"
            " systemctl restart egressproxy (a reload reads the policy alone)"
        )


def _listener_problems(
    table: TableState, policy: KernelPolicy | None, listening: Collection[int]
) -> Iterator[str]:
    if policy is not None and not policy.application_ports:
        return
    for port in sorted(table.proxy_ports.difference(listening)):
        yield (
            f"application flows are taken to port {port}, and nobody listens there:"
            " systemctl start egressproxy"
        )


def _machine_problems(found: Takeover, *, wants_tproxy: bool) -> Iterator[str]:
    if found.forgotten:
        yield found.forgotten
    routing = found.routing
    if not routing.guard:
        yield "the routing guard is not in place: without the table everything is forwarded"
    for rule in routing.ahead:
        yield f"a routing rule comes before the guard: {rule}"
    if wants_tproxy and not routing.tproxy:
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
