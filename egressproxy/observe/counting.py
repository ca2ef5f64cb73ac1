"""``WorkerCounters``: counting in one row. ``EngineCounters``: the same for the path of a flow.

An addition to a cell goes through a memoryview, which takes twenty times as long as one to a list.
An engine therefore counts in a list of its own and tells the row once a tick.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from egressproxy.observe.cells import (
    DECIDE_BOUNDS_S,
    HELLO_BOUNDS_BYTES,
    LAYOUT,
    NANOSECONDS,
    NETWORK_BOUNDS_S,
    ExportKind,
    KernelCount,
    Latency,
    NameCount,
    ReviewCount,
)

if TYPE_CHECKING:
    from egressproxy.observe.cells import Bounds
    from egressproxy.observe.record import Plane
    from egressproxy.policy.verdict import Action, Reason

# Cells of the per-flow methods, as plain integers.
_ACTIVE: Final[dict[str, int]] = {plane.value: cell for plane, cell in LAYOUT.active.items()}
_LOOKUPS: Final[dict[str, int]] = {key.value: cell for key, cell in LAYOUT.lookups.items()}
_UP: Final = LAYOUT.bytes_up
_DOWN: Final = LAYOUT.bytes_down
_HELLO: Final = LAYOUT.hello
_HELLO_SUM: Final = LAYOUT.hello + len(HELLO_BOUNDS_BYTES) + 1
_DECIDE: Final = LAYOUT.latencies[Latency.DECIDE]
_RESOLVE: Final = LAYOUT.latencies[Latency.RESOLVE]
_DIAL: Final = LAYOUT.latencies[Latency.DIAL]
_FIRST_BYTE: Final = LAYOUT.latencies[Latency.FIRST_BYTE]


class WorkerCounters:
    """The row of one worker, the supervisor's or the recorder's; only that process writes to it."""

    __slots__ = ("_cells", "_flows")

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells
        self._flows = LAYOUT.flows

    def flow(
        self, plane: Plane, action: Action, reason: Reason, *, would_deny: bool = False
    ) -> None:
        """Count a judged flow."""
        self._cells[self._flows[plane, action, reason]] += 1
        if would_deny:
            self._cells[LAYOUT.would_deny[plane]] += 1

    def active(self, plane: Plane, delta: int) -> None:
        """A flow was opened (+1) or closed (-1)."""
        self._cells[_ACTIVE[plane]] += delta

    def bytes_moved(self, up: int, down: int) -> None:
        """Bytes relayed to the upstream and to the client."""
        self._cells[_UP] += up
        self._cells[_DOWN] += down

    def hello_size(self, size: int) -> None:
        """Bytes of one ClientHello, record headers included."""
        self._cells[_HELLO + bisect_left(HELLO_BOUNDS_BYTES, size)] += 1
        self._cells[_HELLO_SUM] += size

    def decide_s(self, seconds: float) -> None:
        """The time of one judgement."""
        self._latency(_DECIDE, DECIDE_BOUNDS_S, seconds)

    def resolve_s(self, seconds: float) -> None:
        """From the question to the answer, for names that were not in the cache."""
        self._latency(_RESOLVE, NETWORK_BOUNDS_S, seconds)

    def dial_s(self, seconds: float) -> None:
        """From the first connect to an established connection."""
        self._latency(_DIAL, NETWORK_BOUNDS_S, seconds)

    def first_byte_s(self, seconds: float) -> None:
        """From the accept to the upstream's first byte."""
        self._latency(_FIRST_BYTE, NETWORK_BOUNDS_S, seconds)

    def resolver(self, outcome: str) -> None:
        """Count a look-up; ``outcome`` is a value of ``LookupOutcome``."""
        self._cells[_LOOKUPS[outcome]] += 1

    def log_dropped(self, records: int) -> None:
        """Records that never reached the log."""
        self._cells[LAYOUT.log_dropped] += records

    def log_folded(self, records: int) -> None:
        """Denies that are in the log only as part of a record's ``count``."""
        self._cells[LAYOUT.log_folded] += records

    def log_error(self) -> None:
        """A write that failed and is retried."""
        self._cells[LAYOUT.log_errors] += 1

    def review(self, what: ReviewCount, number: int = 1) -> None:
        """Count on the way into the review store."""
        self._cells[LAYOUT.review[what]] += number

    def review_dropped(self, records: int) -> None:
        """Records that the recorder could not take."""
        self._cells[LAYOUT.review[ReviewCount.DROPPED]] += records

    def export_lost(self, kind: ExportKind, records: int) -> None:
        """Records that could not be delivered to others."""
        self._cells[LAYOUT.export_lost[kind]] += records

    def stall_s(self, seconds: float) -> None:
        """The engine did not get a turn for so long; the longest is kept."""
        stall_ns = int(seconds * NANOSECONDS)
        if stall_ns > self._cells[LAYOUT.longest_stall_ns]:
            self._cells[LAYOUT.longest_stall_ns] = stall_ns

    def kernel_packets(self, packets: int) -> None:
        """Packets that the kernel logged and that became records."""
        self._cells[LAYOUT.kernel[KernelCount.PACKETS]] += packets

    def kernel_lost(self, packets: int) -> None:
        """Packets that the kernel logged and that never came."""
        self._cells[LAYOUT.kernel[KernelCount.LOST]] += packets

    def kernel_overruns(self, times: int) -> None:
        """The kernel found the receive buffer full."""
        self._cells[LAYOUT.kernel[KernelCount.OVERRUNS]] += times

    def kernel_malformed(self, messages: int) -> None:
        """Messages of the kernel's that could not be read."""
        self._cells[LAYOUT.kernel[KernelCount.MALFORMED]] += messages

    def kernel_disagreement(self) -> None:
        """The policy would have allowed what the kernel refused."""
        self._cells[LAYOUT.kernel[KernelCount.DISAGREEMENTS]] += 1

    def refused_addresses(self, addresses: int) -> None:
        """Answers that the address guard kept out of a set."""
        self._cells[LAYOUT.kernel[KernelCount.REFUSED_ADDRESSES]] += addresses

    def set_error(self) -> None:
        """A change of a set that failed and is tried again."""
        self._cells[LAYOUT.kernel[KernelCount.SET_ERRORS]] += 1

    def kernel_repair(self) -> None:
        """Somebody changed the kernel's firewall, and it was put back."""
        self._cells[LAYOUT.kernel[KernelCount.REPAIRS]] += 1

    def kernel_revoked(self, connections: int) -> None:
        """Forwarded connections that the policy no longer allows were ended."""
        self._cells[LAYOUT.kernel[KernelCount.REVOKED]] += connections

    def unresolved_names(self, names: int) -> None:
        """How many names of network rules have no answer now."""
        self._cells[LAYOUT.names[NameCount.UNRESOLVED]] = names

    def address_book(self, names: int, pairs: int) -> None:
        """The size of the address book now."""
        self._cells[LAYOUT.names[NameCount.BOOK_NAMES]] = names
        self._cells[LAYOUT.names[NameCount.BOOK_PAIRS]] = pairs

    def flush(self) -> None:
        """Tell the row what was counted elsewhere: here nothing is."""

    def _latency(self, first: int, bounds: Bounds, seconds: float) -> None:
        cells = self._cells
        cells[first + bisect_left(bounds, seconds)] += 1
        cells[first + len(bounds) + 1] += int(seconds * NANOSECONDS)


class EngineCounters(WorkerCounters):
    """What every flow counts reaches the row by ``flush``; what is rare goes there at once.

    For one thread. A process that is killed loses what it counted since the last ``flush``.
    """

    __slots__ = ("_counted", "_hello_sizes", "_new")

    def __init__(self, cells: memoryview) -> None:
        super().__init__(cells)
        self._new = [0] * LAYOUT.size
        self._hello_sizes: dict[int, int] = {}  # one kind of client sends hellos of one size
        self._counted = False

    def flush(self) -> None:
        """Tell the row."""
        if not self._counted:
            return
        self._counted = False
        cells, new = self._cells, self._new
        for size, times in self._hello_sizes.items():
            new[_HELLO + bisect_left(HELLO_BOUNDS_BYTES, size)] += times
            new[_HELLO_SUM] += size * times
        self._hello_sizes.clear()
        for cell in range(len(new)):
            count = new[cell]
            if count:
                new[cell] = 0
                cells[cell] += count

    def flow(
        self, plane: Plane, action: Action, reason: Reason, *, would_deny: bool = False
    ) -> None:
        """Count a judged flow."""
        self._counted = True
        self._new[self._flows[plane, action, reason]] += 1
        if would_deny:
            self._new[LAYOUT.would_deny[plane]] += 1

    def hello_size(self, size: int) -> None:
        """Bytes of one ClientHello, record headers included."""
        self._counted = True
        sizes = self._hello_sizes
        sizes[size] = sizes.get(size, 0) + 1

    def resolver(self, outcome: str) -> None:
        """Count a look-up; ``outcome`` is a value of ``LookupOutcome``."""
        self._counted = True
        self._new[_LOOKUPS[outcome]] += 1

    def _latency(self, first: int, bounds: Bounds, seconds: float) -> None:
        self._counted = True
        new = self._new
        cell = first
        for bound in bounds:  # compiled, this is cheaper than a bisection, which makes an object
            if seconds <= bound:
                break
            cell += 1
        new[cell] += 1
        new[first + len(bounds) + 1] += int(seconds * NANOSECONDS)
