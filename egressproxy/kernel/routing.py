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

Rules and routes carry our own protocol number; what is ours is found and removed by it alone. All
this is in the network namespace of the calling thread.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from egressproxy.errors import KernelError
from egressproxy.kernel.marks import JUDGED, TPROXY
from egressproxy.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    attribute,
    attributes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOCOL: Final = 101
"""Of our rules and routes (``proto`` in ip-rule(8)); nobody else's in rtnetlink(7) lists."""
ROUTE_TABLE: Final = 10101
PREFERENCE: Final = 100
"""Of the first of our five rules."""

_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 32, 33, 34
_TO_TABLE, _GOTO, _NOP, _BLACKHOLE = 1, 2, 3, 6  # linux/fib_rules.h
_ACTIONS: Final = {_TO_TABLE: "lookup", _GOTO: "goto", _NOP: "nop", _BLACKHOLE: "blackhole"}
_FRA_SRC, _FRA_IIFNAME, _FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK = 2, 3, 4, 6, 10
_FRA_TABLE, _FRA_FWMASK, _FRA_PROTOCOL = 15, 16, 21
_RTA_OIF, _RTA_TABLE = 4, 15
_RTN_LOCAL, _RT_SCOPE_HOST = 2, 254
_LOCAL_TABLE: Final = 255
_RULE: Final = struct.Struct("=BBBBBBBBI")  # family, lengths, tos, table, -, -, action, flags
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, lengths, tos, table, protocol, scope, type
_U32: Final = struct.Struct("=I")
_NO_SUCH_FAMILY: Final = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingState:
    """What is in place; ``guard`` and ``tproxy`` only where it is so for IPv4 and IPv6.

    ``ahead`` are rules of others, as text, that route packets before the guard sees them.
    """

    guard: bool = False
    tproxy: bool = False
    ahead: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule, as far as ours are made of it; ``fwmark`` is also the mask."""

    preference: int
    action: int
    iif: str = ""
    fwmark: int = 0
    goto: int = 0
    table: int = 0

    def payload(self, family: int) -> bytes:
        """The message that adds or deletes it."""
        parts = [
            _RULE.pack(family, 0, 0, 0, 0, 0, 0, self.action, 0),
            attribute(_FRA_PRIORITY, _U32.pack(self.preference)),
            attribute(_FRA_PROTOCOL, bytes((PROTOCOL,))),
        ]
        if self.iif:
            parts.append(attribute(_FRA_IIFNAME, self.iif.encode() + b"\0"))
        if self.fwmark:
            mark = _U32.pack(self.fwmark)
            parts += (attribute(_FRA_FWMARK, mark), attribute(_FRA_FWMASK, mark))
        if self.goto:
            parts.append(attribute(_FRA_GOTO, _U32.pack(self.goto)))
        if self.table:
            parts.append(attribute(_FRA_TABLE, _U32.pack(self.table)))
        return b"".join(parts)


_END: Final = PREFERENCE + 4
_GUARD: Final = (  # in the order in which they are added: what blocks comes last
    _Rule(_END, _NOP),
    _Rule(PREFERENCE, _GOTO, iif="lo", goto=_END),
    _Rule(PREFERENCE + 2, _GOTO, fwmark=JUDGED, goto=_END),
    _Rule(PREFERENCE + 3, _BLACKHOLE),
)
_DELIVER: Final = _Rule(PREFERENCE + 1, _TO_TABLE, fwmark=TPROXY, table=ROUTE_TABLE)


class _Listed:
    """A rule or route as the kernel lists it; its payload is also what deletes exactly it."""

    def __init__(self, payload: bytes) -> None:
        if len(payload) < _RULE.size:
            raise KernelError("rtnetlink: a rule or route that is cut short")
        self.payload = payload

    @cached_property
    def found(self) -> dict[int, bytes]:
        """Its attributes."""
        return attributes(self.payload, _RULE.size)

    def number(self, kind: int) -> int:
        """An attribute of four bytes; 0 where there is none."""
        value = self.found.get(kind, b"")
        return int(_U32.unpack(value)[0]) if len(value) == _U32.size else 0


class _ListedRule(_Listed):
    @property
    def is_ours(self) -> bool:
        """Whether its protocol is ours."""
        return self.found.get(_FRA_PROTOCOL) == bytes((PROTOCOL,))

    @property
    def rule(self) -> _Rule:
        """What we would have to say to get it."""
        action = self.payload[7]
        return _Rule(
            self.number(_FRA_PRIORITY),
            action,
            self.found.get(_FRA_IIFNAME, b"").rstrip(b"\0").decode("utf-8", "replace"),
            self.number(_FRA_FWMARK) if self._is_whole_mark else 0,
            self.number(_FRA_GOTO) if action == _GOTO else 0,
            self.number(_FRA_TABLE) if action == _TO_TABLE else 0,
        )

    @property
    def is_ahead(self) -> bool:
        """Whether it routes forwarded packets before the guard sees them."""
        rule = self.rule
        return (
            not self.is_ours
            and rule.preference < PREFERENCE
            and rule.action in (_TO_TABLE, _GOTO)
            and rule.table != _LOCAL_TABLE
            and rule.iif != "lo"
        )

    @property
    def _is_whole_mark(self) -> bool:
        return self.number(_FRA_FWMARK) == self.number(_FRA_FWMASK)


class _ListedRoute(_Listed):
    @property
    def is_ours(self) -> bool:
        """Whether its protocol is ours."""
        return self.payload[5] == PROTOCOL

    @property
    def is_delivery(self) -> bool:
        """Whether it is the local default route of TPROXY."""
        return (
            self.is_ours
            and self.payload[7] == _RTN_LOCAL
            and self.payload[1] == 0
            and self.number(_RTA_TABLE) == ROUTE_TABLE
        )


def ensure_guard() -> None:
    """Put the guard in place; nothing happens where it is.

    Forwarding stops here until the table marks packets.

    Raises:
        KernelError: the kernel refuses; with what is missing.
    """
    with _rtnetlink() as netlink:
        for family in _families(netlink):
            _ensure_rules(netlink, family, _GUARD)


def ensure_tproxy() -> None:
    """Put the rule and the local route of TPROXY in place; nothing happens where they are.

    Raises:
        KernelError: the kernel refuses; with what is missing.
    """
    with _rtnetlink() as netlink:
        for family in _families(netlink):
            if not any(route.is_delivery for route in _our_routes(netlink, family)):
                create = NLM_F_CREATE | NLM_F_EXCL
                netlink.request(_RTM_NEWROUTE, create, _delivery(family))
            _ensure_rules(netlink, family, (_DELIVER,))


def remove_tproxy() -> bool:
    """Remove TPROXY's rule and route; whether there were any.

    Raises:
        KernelError: the kernel refuses.
    """
    with _rtnetlink() as netlink:
        gone = False
        for family in _families(netlink):
            for listed in _our_rules(netlink, family):
                if listed.rule == _DELIVER:
                    gone |= _delete(netlink, _RTM_DELRULE, listed)
            gone |= _remove_routes(netlink, family)
    return gone


def remove_routing() -> bool:
    """Remove every rule and route of ours, whatever state they are in; whether there were any.

    Raises:
        KernelError: the kernel refuses.
    """
    with _rtnetlink() as netlink:
        gone = False
        for family in _families(netlink):
            # What blocks goes first: at no step is this machine's own traffic stopped.
            for listed in sorted(_our_rules(netlink, family), key=_blocks_first):
                gone |= _delete(netlink, _RTM_DELRULE, listed)
            gone |= _remove_routes(netlink, family)
    return gone


def routing_state() -> RoutingState:
    """What is in place now.

    Raises:
        KernelError: netlink does not answer.
    """
    guard = tproxy = True
    ahead: list[str] = []
    with _rtnetlink() as netlink:
        for family in _families(netlink):
            rules = _rules(netlink, family)
            ours = {listed.rule for listed in rules if listed.is_ours}
            guard &= ours.issuperset(_GUARD)
            has_route = any(route.is_delivery for route in _our_routes(netlink, family))
            tproxy &= _DELIVER in ours and has_route
            ahead += [_text(listed) for listed in rules if listed.is_ahead]
    return RoutingState(guard=guard, tproxy=tproxy, ahead=tuple(ahead))


@contextmanager
def _rtnetlink() -> Iterator[Netlink]:
    """A socket to rtnetlink; what the kernel refuses comes out as a ``KernelError``."""
    try:
        with Netlink(socket.NETLINK_ROUTE) as netlink:
            yield netlink
    except PermissionError as error:
        raise KernelError(
            "routing rules may not be changed by this process",
            hint="it needs CAP_NET_ADMIN: run it as root",
            code="permission",
        ) from error
    except OSError as error:
        is_missing = error.errno in _NO_SUCH_FAMILY
        hint = "this kernel has no policy routing: CONFIG_IP_MULTIPLE_TABLES" if is_missing else ""
        raise KernelError(f"routing rules: {error.strerror}", hint=hint) from error


def _families(netlink: Netlink) -> Iterator[int]:
    """IPv4, and IPv6 where the kernel has it: without (``ipv6.disable=1``) it forwards none."""
    yield socket.AF_INET
    try:
        _rules(netlink, socket.AF_INET6)
    except OSError as error:
        if error.errno not in _NO_SUCH_FAMILY:
            raise
        return
    yield socket.AF_INET6


def _rules(netlink: Netlink, family: int) -> list[_ListedRule]:
    asked = _RULE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    listed = [_ListedRule(payload) for payload in netlink.dump(_RTM_GETRULE, asked)]
    return [each for each in listed if each.payload[0] == family]


def _our_rules(netlink: Netlink, family: int) -> list[_ListedRule]:
    return [listed for listed in _rules(netlink, family) if listed.is_ours]


def _our_routes(netlink: Netlink, family: int) -> list[_ListedRoute]:
    asked = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    listed = [_ListedRoute(payload) for payload in netlink.dump(_RTM_GETROUTE, asked)]
    return [each for each in listed if each.is_ours and each.payload[0] == family]


def _ensure_rules(netlink: Netlink, family: int, wanted: tuple[_Rule, ...]) -> None:
    there = {listed.rule for listed in _our_rules(netlink, family)}
    for rule in wanted:
        if rule not in there:
            create = NLM_F_CREATE | NLM_F_EXCL
            netlink.request(_RTM_NEWRULE, create, rule.payload(family))


def _remove_routes(netlink: Netlink, family: int) -> bool:
    gone = [_delete(netlink, _RTM_DELROUTE, each) for each in _our_routes(netlink, family)]
    return any(gone)


def _delete(netlink: Netlink, type_: int, listed: _Listed) -> bool:
    try:
        netlink.request(type_, 0, listed.payload)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return False  # somebody else was faster
        raise
    return True


def _delivery(family: int) -> bytes:
    loopback = _U32.pack(socket.if_nametoindex("lo"))
    header = _ROUTE.pack(family, 0, 0, 0, 0, PROTOCOL, _RT_SCOPE_HOST, _RTN_LOCAL, 0)
    table = attribute(_RTA_TABLE, _U32.pack(ROUTE_TABLE))
    return header + table + attribute(_RTA_OIF, loopback)


def _blocks_first(listed: _ListedRule) -> bool:
    return listed.rule.action != _BLACKHOLE


def _text(listed: _ListedRule) -> str:
    """A rule of another, short, as ip-rule(8) shows it."""
    rule = listed.rule
    is_v6 = listed.payload[0] == socket.AF_INET6
    source = listed.found.get(_FRA_SRC, b"")
    clients = "all"
    if len(source) == (16 if is_v6 else 4):
        address = socket.inet_ntop(listed.payload[0], source)
        clients = f"{address}/{listed.payload[2]}"
    where = f" iif {rule.iif}" if rule.iif else ""
    version = "-6 " if is_v6 else ""
    to = f"{_ACTIONS[rule.action]} {rule.table or rule.goto}"
    return f"ip {version}rule {rule.preference}: from {clients}{where} {to}"
