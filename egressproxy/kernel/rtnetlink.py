"""Policy routing rules and local routes by rtnetlink: what is listed, added, deleted.

Everything that is added here carries our own protocol number. Sources: rtnetlink(7),
linux/fib_rules.h, net/core/fib_rules.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final

from egressproxy.errors import KernelError
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
LOCAL_TABLE: Final = 255

_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 32, 33, 34
_FRA_SRC, _FRA_IIFNAME, _FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK = 2, 3, 4, 6, 10
_FRA_TABLE, _FRA_FWMASK, _FRA_PROTOCOL = 15, 16, 21
_RTA_OIF, _RTA_TABLE = 4, 15
_RTN_LOCAL, _RT_SCOPE_HOST = 2, 254
# Of rules: family, lengths of destination and source, tos, table, -, -, action, flags. Of routes:
# family, lengths, tos, table, protocol, scope, type, flags.
_HEADER: Final = struct.Struct("=BBBBBBBBI")
_U32: Final = struct.Struct("=I")
_CREATE: Final = NLM_F_CREATE | NLM_F_EXCL
_NO_SUCH_FAMILY: Final = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT)


class RuleAction(IntEnum):
    """What a rule does (``FR_ACT_``), as far as we use or tell it."""

    LOOKUP = 1
    GOTO = 2
    NOP = 3
    BLACKHOLE = 6


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, as far as ours are made of it; ``fwmark`` is also the mask."""

    preference: int
    action: int
    iif: str = ""
    fwmark: int = 0
    goto: int = 0
    table: int = 0

    def payload(self, family: int) -> bytes:
        """The message that adds it as ours."""
        parts = [
            _HEADER.pack(family, 0, 0, 0, 0, 0, 0, self.action, 0),
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


class _Listed:
    """A rule or route as the kernel lists it; its payload is also what deletes exactly it."""

    def __init__(self, payload: bytes) -> None:
        if len(payload) < _HEADER.size:
            raise KernelError("rtnetlink: a rule or route that is cut short")
        self.payload = payload

    @property
    def family(self) -> int:
        """``AF_INET``, ``AF_INET6``, or what else has routes."""
        return self.payload[0]

    @cached_property
    def found(self) -> dict[int, bytes]:
        """Its attributes.

        Raises:
            KernelError: they are no attributes.
        """
        return attributes(self.payload, _HEADER.size)

    def number(self, kind: int) -> int:
        """An attribute of four bytes; 0 where there is none."""
        value = self.found.get(kind, b"")
        return int(_U32.unpack(value)[0]) if len(value) == _U32.size else 0


class ListedRule(_Listed):
    """A rule, ours or another's; what it says in ways that ours do not is left out."""

    @cached_property
    def rule(self) -> Rule:
        """What we would have to say to get it."""
        action = self.payload[7]
        mark = self.number(_FRA_FWMARK)
        return Rule(
            self.number(_FRA_PRIORITY),
            action,
            self.found.get(_FRA_IIFNAME, b"").rstrip(b"\0").decode("utf-8", "replace"),
            mark if mark == self.number(_FRA_FWMASK) else 0,
            self.number(_FRA_GOTO) if action == RuleAction.GOTO else 0,
            self.number(_FRA_TABLE) if action == RuleAction.LOOKUP else 0,
        )

    @property
    def is_ours(self) -> bool:
        """Whether its protocol is ours."""
        return self.found.get(_FRA_PROTOCOL) == bytes((PROTOCOL,))

    def __str__(self) -> str:
        """Short, as ip-rule(8) shows a rule that leads somewhere."""
        rule = self.rule
        is_v6 = self.family == socket.AF_INET6
        source = self.found.get(_FRA_SRC, b"")
        clients = "all"
        if len(source) == (16 if is_v6 else 4):
            clients = f"{socket.inet_ntop(self.family, source)}/{self.payload[2]}"
        where = f" iif {rule.iif}" if rule.iif else ""
        verb = "goto" if rule.action == RuleAction.GOTO else "lookup"
        command = "ip -6 rule" if is_v6 else "ip rule"
        to = f"{verb} {rule.table or rule.goto}"
        return f"{command} {rule.preference}: from {clients}{where} {to}"


class ListedRoute(_Listed):
    """A route, ours or another's."""

    @property
    def is_ours(self) -> bool:
        """Whether its protocol is ours."""
        return self.payload[5] == PROTOCOL

    @property
    def is_local_default(self) -> bool:
        """Whether it delivers everything here."""
        return self.payload[7] == _RTN_LOCAL and self.payload[1] == 0

    @property
    def table(self) -> int:
        """The number of its table."""
        return self.number(_RTA_TABLE)


class Rtnetlink:
    """Rules and routes of one network namespace; use ``rtnetlink()``.

    Every method raises ``OSError`` where the kernel refuses.
    """

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    def families(self) -> Iterator[int]:
        """IPv4, and IPv6 where the kernel has it: without (``ipv6.disable=1``) it forwards none."""
        yield socket.AF_INET
        try:
            self.rules(socket.AF_INET6)
        except OSError as error:
            if error.errno not in _NO_SUCH_FAMILY:
                raise
            return
        yield socket.AF_INET6

    def rules(self, family: int) -> list[ListedRule]:
        """All rules of a family, in order of preference."""
        asked = _HEADER.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        listed = [ListedRule(payload) for payload in self._netlink.dump(_RTM_GETRULE, asked)]
        return [each for each in listed if each.family == family]

    def our_rules(self, family: int) -> list[ListedRule]:
        """Those that are ours."""
        return [listed for listed in self.rules(family) if listed.is_ours]

    def our_routes(self, family: int) -> list[ListedRoute]:
        """Our routes, of all tables."""
        asked = _HEADER.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        listed = [ListedRoute(payload) for payload in self._netlink.dump(_RTM_GETROUTE, asked)]
        return [each for each in listed if each.is_ours and each.family == family]

    def add_rule(self, family: int, rule: Rule) -> None:
        """Add a rule as ours."""
        self._netlink.request(_RTM_NEWRULE, _CREATE, rule.payload(family))

    def add_local_default(self, family: int, table: int) -> None:
        """Add ``local default dev lo`` to a table, as ours."""
        header = _HEADER.pack(family, 0, 0, 0, 0, PROTOCOL, _RT_SCOPE_HOST, _RTN_LOCAL, 0)
        loopback = _U32.pack(socket.if_nametoindex("lo"))
        to = attribute(_RTA_TABLE, _U32.pack(table)) + attribute(_RTA_OIF, loopback)
        self._netlink.request(_RTM_NEWROUTE, _CREATE, header + to)

    def delete(self, listed: ListedRule | ListedRoute) -> bool:
        """Delete exactly this one; ``False`` where somebody else was faster."""
        type_ = _RTM_DELRULE if isinstance(listed, ListedRule) else _RTM_DELROUTE
        try:
            self._netlink.request(type_, 0, listed.payload)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                return False
            raise
        return True


@contextmanager
def rtnetlink() -> Iterator[Rtnetlink]:
    """A socket in the network namespace of the calling thread.

    Raises:
        KernelError: what the kernel refuses comes out of the block as one.
    """
    try:
        with Netlink(socket.NETLINK_ROUTE) as netlink:
            yield Rtnetlink(netlink)
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
