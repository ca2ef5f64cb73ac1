"""``KernelDenies``: what the kernel refused, or let pass in audit, as flow records.

The kernel decides; this only says why. Each logged packet is judged anew by the ruleset with the
names its destination was given for, so that the record has rule, reason and note. Where the ruleset
would have allowed it, the record still says what the kernel did, and the disagreement is counted.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType

    from egressproxy.kernel.nflog import Nflog
    from egressproxy.observe.record import FlowRecord, Plane
    from egressproxy.policy.networks import Network
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.policy.verdict import Action, Reason
    from egressproxy.resolve.address_book import AddressBook
    from egressproxy.resolve.guard import Guard

BATCH_DATAGRAMS: Final = 4
"""Read in a turn of the loop, each of up to 64 packets, so that a flood leaves turns to others."""


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
        """Packets that the kernel logged and that were read."""
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
        """The ruleset would have allowed what the kernel refused."""
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
        clients: who is served at all: a packet of anybody else was refused for that.
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
        self._wall_clock = wall_clock

    async def __aenter__(self) -> Self:
        """Begin to read."""
        asyncio.get_running_loop().add_reader(self._nflog.fileno(), self._turn)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop reading and leave the group."""
        asyncio.get_running_loop().remove_reader(self._nflog.fileno())
        self._nflog.close()

    def _turn(self) -> None:
        self._counters.kernel_packets(len(self._nflog.read(BATCH_DATAGRAMS)))
