"""Connections that the kernel forwards, under a policy other than the one that allowed them.

A forwarded connection passes by its mark, whatever the table says by now; so after a reload, and
after a start over what a service before us left, those that pass 1 does not allow are ended:
conntrack forgets them, and their packets belong to nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from egressproxy.kernel.conntrack import Conntrack
from egressproxy.kernel.marks import FORWARDED
from egressproxy.kernel.packet import TCP, UDP, Packet
from egressproxy.policy.networks import NEVER_DIALLED
from egressproxy.policy.rules import OnReload
from egressproxy.policy.verdict import Flow
from egressproxy.ports import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from egressproxy.kernel.conntrack import Entry
    from egressproxy.policy.networks import Network
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.resolve.address_book import AddressBook
    from egressproxy.resolve.guard import Guard

SLICE: Final = 256
"""Connections judged in one turn of the loop: a millisecond or two."""
_PROTOCOLS: Final = {TCP: Protocol.TCP, UDP: Protocol.UDP}


@dataclass(frozen=True, slots=True)
class Revocation:
    """Forwarded connections that a policy denies: ``revoked`` were ended, ``kept`` were left."""

    revoked: int = 0
    kept: int = 0


NOTHING_REVOKED: Final = Revocation()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Whether the kernel would forward a connection if it began now.

    ``is_audit`` is an audit of the whole policy that is not over.
    """

    ruleset: Ruleset
    is_audit: bool
    book: AddressBook
    guard: Guard
    clients: Collection[Network]
    now: float

    def allows(self, entry: Entry) -> bool:
        """Judge one connection; on the loop's thread, as the ruleset is."""
        if not _is_in(entry.src, self.clients) or _is_in(entry.dst, _FORBIDDEN):
            return False
        if self.is_audit:
            return True
        protocol = _PROTOCOLS.get(entry.protocol)
        if protocol is None:
            return False
        flow = Flow(protocol, entry.src, entry.dport, None, entry.dst)
        by_address = self.ruleset.decide_network(flow, self.now)
        if by_address is not None and by_address.is_allow:
            return True
        for name in self.book.names_of(entry.dst):  # it can only bring a rule that comes earlier
            verdict = self.ruleset.decide_network(flow._replace(name=name), self.now)
            rule = verdict.rule if verdict is not None and verdict.is_allow else None
            if rule is not None and not self.guard.refuses(entry.dst, rule.addresses):
                return True
        return False


async def revoke(judge: Judge, on_revoked: Callable[[Packet], None]) -> Revocation:
    """End every forwarded connection that the judge does not allow.

    Args:
        judge: of the policy in force.
        on_revoked: called with what each connection that was ended began with.

    Raises:
        KernelError: the kernel does not list or end them.
    """
    entries = await asyncio.to_thread(forwarded)
    denied: list[Entry] = []
    for start in range(0, len(entries), SLICE):
        denied += [each for each in entries[start : start + SLICE] if not judge.allows(each)]
        await asyncio.sleep(0)
    if judge.ruleset.on_reload is OnReload.KEEP:
        return Revocation(kept=len(denied))
    ended = await asyncio.to_thread(_end, denied)
    for each in ended:
        on_revoked(Packet(each.src, each.dst, each.protocol, each.sport, each.dport))
    return Revocation(revoked=len(ended))


def forwarded() -> list[Entry]:
    """Every connection that the kernel forwards; blocks.

    Raises:
        KernelError: the kernel does not list them.
    """
    with Conntrack() as conntrack:
        return list(conntrack.entries(mark=FORWARDED, mask=FORWARDED))


def _end(entries: Iterable[Entry]) -> list[Entry]:
    with Conntrack() as conntrack:
        return [entry for entry in entries if conntrack.delete(entry)]


def _is_in(address: str, networks: Iterable[Network]) -> bool:
    found = ip_address(address)
    return any(found in network for network in networks)


_FORBIDDEN: Final = tuple(network for network, _ in NEVER_DIALLED)
