"""Policy routing: the guard that forwards nothing unjudged, and local delivery for TPROXY.

Five rules a family, in front of every table but ``local``::

    100: from all iif lo goto 104           what this machine sends itself
    101: from all fwmark TPROXY lookup T    a local default route: delivered here
    102: from all fwmark JUDGED goto 104    went through our table
    103: from all blackhole                 everything else that would be forwarded
    104: from all nop

Packets to our own addresses are routed by ``local`` (preference 0) and never come here. Without our
table nothing carries JUDGED, so nothing is forwarded, IPv4 or IPv6: ``nft flush ruleset`` closes
the gateway. ``iif lo`` comes first because it is also how rp_filter asks for the way back of a
packet that is delivered here, TPROXY's mark and all; for a forwarded one it asks with the packet's
mark only where ``src_valid_mark`` is set (ip-rule(8), net/ipv4/fib_frontend.c).

What is ours is found and removed by its protocol number alone (``rtnetlink.PROTOCOL``). All this is
in the network namespace of the calling thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.kernel.marks import JUDGED, TPROXY
from egressproxy.kernel.rtnetlink import LOCAL_TABLE, Rule, RuleAction, rtnetlink

if TYPE_CHECKING:
    from egressproxy.kernel.rtnetlink import ListedRule, Rtnetlink

ROUTE_TABLE: Final = 10101
PREFERENCE: Final = 100
"""Of the first of our five rules."""

_END: Final = PREFERENCE + 4
_GUARD: Final = (  # in the order in which they are added: what blocks comes last
    Rule(_END, RuleAction.NOP),
    Rule(PREFERENCE, RuleAction.GOTO, iif="lo", goto=_END),
    Rule(PREFERENCE + 2, RuleAction.GOTO, fwmark=JUDGED, goto=_END),
    Rule(PREFERENCE + 3, RuleAction.BLACKHOLE),
)
_DELIVER: Final = Rule(PREFERENCE + 1, RuleAction.LOOKUP, fwmark=TPROXY, table=ROUTE_TABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingState:
    """What is in place; ``guard`` and ``tproxy`` only where it is so for IPv4 and IPv6.

    ``ahead`` are rules of others, as text, that route packets before the guard sees them.
    """

    guard: bool = False
    tproxy: bool = False
    ahead: tuple[str, ...] = ()


def ensure_guard() -> None:
    """Put the guard in place; nothing happens where it is.

    Forwarding stops here until the table marks packets.

    Raises:
        KernelError: the kernel refuses; with what is missing.
    """
    with rtnetlink() as routing:
        for family in routing.families():
            _ensure_rules(routing, family, _GUARD)


def ensure_tproxy() -> None:
    """Put the rule and the local route of TPROXY in place; nothing happens where they are.

    Raises:
        KernelError: the kernel refuses; with what is missing.
    """
    with rtnetlink() as routing:
        for family in routing.families():
            if not _has_delivery(routing, family):
                routing.add_local_default(family, ROUTE_TABLE)
            _ensure_rules(routing, family, (_DELIVER,))


def remove_tproxy() -> bool:
    """Remove TPROXY's rule and route; whether there were any.

    Raises:
        KernelError: the kernel refuses.
    """
    with rtnetlink() as routing:
        gone = False
        for family in routing.families():
            for listed in routing.our_rules(family):
                if listed.rule == _DELIVER:
                    gone |= routing.delete(listed)
            gone |= _remove_routes(routing, family)
    return gone


def remove_routing() -> bool:
    """Remove every rule and route of ours, whatever state they are in; whether there were any.

    Raises:
        KernelError: the kernel refuses.
    """
    with rtnetlink() as routing:
        gone = False
        for family in routing.families():
            # What blocks goes first: at no step is this machine's own traffic stopped.
            for listed in sorted(routing.our_rules(family), key=_blocks_first):
                gone |= routing.delete(listed)
            gone |= _remove_routes(routing, family)
    return gone


def routing_state() -> RoutingState:
    """What is in place now.

    Raises:
        KernelError: netlink does not answer.
    """
    guard = tproxy = True
    ahead: list[str] = []
    with rtnetlink() as routing:
        for family in routing.families():
            rules = routing.rules(family)
            ours = {listed.rule for listed in rules if listed.is_ours}
            guard &= ours.issuperset(_GUARD)
            tproxy &= _DELIVER in ours and _has_delivery(routing, family)
            ahead += [str(listed) for listed in rules if _is_ahead(listed)]
    return RoutingState(guard=guard, tproxy=tproxy, ahead=tuple(ahead))


def _ensure_rules(routing: Rtnetlink, family: int, wanted: tuple[Rule, ...]) -> None:
    there = {listed.rule for listed in routing.our_rules(family)}
    for rule in wanted:
        if rule not in there:
            routing.add_rule(family, rule)


def _has_delivery(routing: Rtnetlink, family: int) -> bool:
    routes = routing.our_routes(family)
    return any(route.is_local_default and route.table == ROUTE_TABLE for route in routes)


def _remove_routes(routing: Rtnetlink, family: int) -> bool:
    gone = [routing.delete(route) for route in routing.our_routes(family)]
    return any(gone)


def _blocks_first(listed: ListedRule) -> bool:
    return listed.rule.action != RuleAction.BLACKHOLE


def _is_ahead(listed: ListedRule) -> bool:
    """Whether another's rule routes forwarded packets before the guard stops them."""
    rule = listed.rule
    return (
        not listed.is_ours
        and rule.preference < _END
        and rule.action in (RuleAction.LOOKUP, RuleAction.GOTO)
        and rule.table != LOCAL_TABLE
        and rule.iif != "lo"
    )
