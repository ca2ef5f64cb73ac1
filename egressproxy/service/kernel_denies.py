"""``KernelDenies``: what the kernel refused, or let pass in audit, as flow records.

The kernel has decided; this says why. Each logged packet is judged anew by the ruleset with the
names that its destination was given for, so that its record has rule, reason and note. Where the
ruleset would have decided otherwise, the record says what the kernel did, and the disagreement is
counted: a few come with a reload or a connection older than the table, more are a defect.
"""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from itertools import count
from typing import TYPE_CHECKING, Final, Protocol, Self

from egressproxy.kernel.nft_names import LogWord
from egressproxy.kernel.packet import ICMP, ICMPV6, TCP, UDP
from egressproxy.observe.record import FlowRecord, NameSource, Plane
from egressproxy.planes.http_commands import CloseReason
from egressproxy.policy.memo import Memo
from egressproxy.policy.verdict import Action, Flow, Reason, Verdict
from egressproxy.ports import Protocol as FlowProtocol
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType

    from egressproxy.kernel.nflog import LoggedPacket, Nflog
    from egressproxy.kernel.packet import Packet
    from egressproxy.names import DnsName
    from egressproxy.policy.networks import Network
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.resolve.address_book import AddressBook
    from egressproxy.resolve.guard import Guard

BATCH_DATAGRAMS: Final = 4
"""Read in a turn of the loop, each of up to 64 packets, so that a flood leaves turns to others."""
MAX_NAMES_ASKED: Final = 8
"""Names of one address that a packet is judged by; content networks share theirs."""
WARNING_S: Final = 60.0
NO_CLIENT: Final = "source not in clients"
"""The note of a packet whose source is not served at all, or has an address of the gateway."""
NOT_OPEN: Final = "at the gateway itself, not open to this source"
"""The note of a packet to one of the gateway's own ports (``management``, ``probes``, …)."""

_TEXTS: Final = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmpv6"}
_JUDGED: Final = {TCP: FlowProtocol.TCP, UDP: FlowProtocol.UDP}
_WORDS: Final = {word.value: word for word in LogWord}
_REASONS: Final = {
    LogWord.DENY: Reason.DEFAULT_DENY,
    LogWord.AUDIT: Reason.DEFAULT_DENY,
    LogWord.QUIC: Reason.QUIC_REFUSED,
    LogWord.FORBIDDEN: Reason.FORBIDDEN_ADDRESS,
    LogWord.INPUT: Reason.LOOP,
}
_BY_WORD: Final = {word: Verdict(Action.DENY, reason) for word, reason in _REASONS.items()}
"""What is said where the ruleset is not asked, or is of another opinion."""


class RecordSink(Protocol):
    """Where records go; ``observe.log.RecordLog`` is one."""

    def write(self, record: FlowRecord) -> None:
        """Take a record; never blocks, never raises."""
        ...


class KernelCounters(Protocol):
    """Where it counts; ``observe.counters.Counters.supervisor()`` is one."""

    def flow(
        self, plane: Plane, action: Action, reason: Reason, *, would_deny: bool = False
    ) -> None:
        """A judged packet."""
        ...

    def kernel_packets(self, packets: int) -> None:
        """Packets that the kernel logged and that became records."""
        ...

    def kernel_lost(self, packets: int) -> None:
        """Packets that the kernel logged and that never came."""
        ...

    def kernel_overruns(self, times: int) -> None:
        """The kernel found the receive buffer full."""
        ...

    def kernel_malformed(self, messages: int) -> None:
        """Messages that could not be read."""
        ...

    def kernel_disagreement(self) -> None:
        """The ruleset would have decided otherwise."""
        ...


class KernelDenies:
    """An async context manager: reads as long as it is entered, then closes ``nflog``.

    Args:
        nflog: the bound group; owned from here on.
        ruleset: the one in force; asked from the loop's thread, so nobody else may ask that object
            in another thread.
        guard: the address guard of the moment.
        book: whose names are in the records.
        sink: takes the records; its folding makes one of a flood.
        counters: a row of this process.
        clients: who is served at all (``FirewallOptions.clients``); empty is everyone.
        wall_clock: POSIX seconds.
    """

    def __init__(
        self,
        nflog: Nflog,
        *,
        ruleset: Callable[[], Ruleset],
        guard: Callable[[], Guard],
        book: AddressBook,
        sink: RecordSink,
        counters: KernelCounters,
        clients: Collection[Network] = (),
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._nflog = nflog
        self._ruleset = ruleset
        self._guard = guard
        self._book = book
        self._sink = sink
        self._counters = counters
        self._clients = tuple(clients)
        self._served: Memo[str, bool] = Memo()
        self._wall_clock = wall_clock
        self._told_lost = self._told_overruns = self._told_malformed = 0
        self._warned_at = -WARNING_S
        # Unique over restarts, and other than those of workers, which begin with a digit.
        self._prefix = f"k-{int(wall_clock() * 1000):x}-"
        self._numbers = count(1)

    async def __aenter__(self) -> Self:
        """Begin to read."""
        asyncio.get_running_loop().add_reader(self._nflog.fileno(), self.turn)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Read a last batch, stop, and leave the group."""
        asyncio.get_running_loop().remove_reader(self._nflog.fileno())
        self.turn()
        self._nflog.close()

    def turn(self) -> None:
        """One batch; the loop calls it while there is something to read."""
        packets = self._nflog.read(BATCH_DATAGRAMS)
        if packets:
            ruleset, now = self._ruleset(), self._wall_clock()
            for logged in packets:
                self._tell(logged, ruleset, now)
            self._counters.kernel_packets(len(packets))
        self._tell_losses()

    def revoked(self, packet: Packet) -> None:
        """Write of a forwarded connection that was ended: the policy denies it now."""
        ruleset, now = self._ruleset(), self._wall_clock()
        names = self._book.names_of(packet.dst)
        why = _BY_WORD[LogWord.DENY]
        if self._is_served(packet.src):
            why = self._why(LogWord.DENY, packet, names[:MAX_NAMES_ASKED], ruleset, now)
        verdict = Verdict(Action.DENY, Reason.REVOKED, why.rule_id, why.decided_by)
        self._record(packet, verdict, next(iter(names), None), "", CloseReason.REVOKED)

    def _tell(self, logged: LoggedPacket, ruleset: Ruleset, now: float) -> None:
        word = _WORDS.get(logged.prefix.strip(), LogWord.DENY)
        packet = logged.packet
        names = () if word is LogWord.INPUT else self._book.names_of(packet.dst)
        name = names[0] if names else None
        note = ruleset.note(name) if name is not None else ""
        if word is LogWord.INPUT:
            note = NOT_OPEN
        if word is LogWord.DENY and not self._is_served(packet.src):
            verdict, note = _BY_WORD[word], NO_CLIENT
        else:
            verdict = self._why(word, packet, names[:MAX_NAMES_ASKED], ruleset, now)
        passed = word is LogWord.AUDIT
        self._record(packet, verdict, name, note, "open" if passed else "refused")

    def _record(
        self, packet: Packet, verdict: Verdict, name: DnsName | None, note: str, close_reason: str
    ) -> None:
        ruleset = self._ruleset()
        passed = close_reason == "open"
        action = Action.ALLOW if passed else Action.DENY
        self._counters.flow(Plane.NETWORK, action, verdict.reason, would_deny=passed)
        self._sink.write(
            FlowRecord(
                time=self._wall_clock(),
                flow_id=f"{self._prefix}{next(self._numbers):x}",
                src_port=packet.src_port,
                action=action,
                reason=verdict.reason,
                plane=Plane.NETWORK,
                protocol=_TEXTS.get(packet.protocol) or str(packet.protocol),
                src_ip=packet.src,
                dst_port=packet.dst_port,
                rule=verdict.rule_id,
                decided_by=verdict.decided_by,
                would_deny=passed,
                source_group=ruleset.source_group(packet.src),
                dst_ip=packet.dst,
                name=name,
                name_source=NameSource.NONE if name is None else NameSource.DNS,
                close_reason=close_reason,
                policy=ruleset.digest,
                note=note,
            )
        )

    def _why(
        self,
        word: LogWord,
        packet: Packet,
        names: tuple[DnsName, ...],
        ruleset: Ruleset,
        now: float,
    ) -> Verdict:
        protocol = _JUDGED.get(packet.protocol)
        if protocol is None or word in (LogWord.INPUT, LogWord.FORBIDDEN):
            return _BY_WORD[word]
        flow = Flow(protocol, packet.src, packet.dst_port, None, packet.dst)
        verdict = by_address = ruleset.decide(flow, now)
        for name in names:
            verdict = ruleset.decide(flow._replace(name=name), now)
            if verdict != by_address:  # a name can only bring a rule that comes earlier
                break
        if word is LogWord.AUDIT:
            agrees = verdict.is_allow and verdict.would_deny
        else:
            agrees = not verdict.is_allow
        if agrees:
            return verdict
        if verdict != by_address and self._is_guarded(packet.dst, verdict):
            return Verdict(
                Action.DENY, Reason.FORBIDDEN_ADDRESS, verdict.rule_id, verdict.decided_by
            )
        self._counters.kernel_disagreement()
        return _BY_WORD[word]

    def _is_guarded(self, address: str, verdict: Verdict) -> bool:
        """Whether a rule allows the name, and the address was kept out of the name's set."""
        rule = verdict.rule if verdict.is_allow else None
        return rule is not None and self._guard().refuses(address, rule.addresses)

    def _is_served(self, src: str) -> bool:
        served = self._served.get(src)
        if served is None:
            address = ip_address(src)  # of our own making, from a packet's octets
            listed = not self._clients or any(address in network for network in self._clients)
            served = self._served.put(src, listed)
        return served and not self._guard().is_own(src)

    def _tell_losses(self) -> None:
        tally, counters = self._nflog.tally, self._counters
        if tally.lost != self._told_lost or tally.overruns != self._told_overruns:
            counters.kernel_lost(tally.lost - self._told_lost)
            counters.kernel_overruns(tally.overruns - self._told_overruns)
            self._told_lost, self._told_overruns = tally.lost, tally.overruns
            self._warn("denies of the kernel were lost: too many at once", lost=tally.lost)
        if tally.malformed != self._told_malformed:
            counters.kernel_malformed(tally.malformed - self._told_malformed)
            self._told_malformed = tally.malformed
            self._warn("messages of the kernel's log cannot be read", messages=tally.malformed)

    def _warn(self, event: str, **facts: int) -> None:
        """Say it now and then: a flood is no reason to flood the journal."""
        now = time.monotonic()
        if now - self._warned_at >= WARNING_S:
            self._warned_at = now
            journal().warning(event, **facts)
