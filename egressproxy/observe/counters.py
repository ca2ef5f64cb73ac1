"""``Counters``: the numbers of all workers in one shared mapping, a row for each.

A row has one writing process, so that counting is a plain addition without lock or system call;
readers (metrics, limits) sum the rows. The mapping is a memfd: exec'd workers inherit the
descriptor and attach. A row outlives its worker, so that totals never go back; ``restarted`` only
clears the gauges. Cells are signed 64-bit and aligned, hence never read half-written.

What a row holds is listed once, in ``LAYOUT``; a checksum of it stands in front of the rows and
refuses an attach by another version.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import zlib
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import TYPE_CHECKING, Final, TypeVar

from egressproxy.errors import ServiceError
from egressproxy.observe.record import Plane
from egressproxy.policy.tag_edition import DatedBy
from egressproxy.policy.verdict import Action, Reason

if TYPE_CHECKING:
    from egressproxy.policy.tag_edition import TagEdition

_Key = TypeVar("_Key")
_CELL: Final = 8
_NANOSECONDS: Final = 1_000_000_000
_DIGEST_BYTES: Final = 32
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class LookupOutcome(StrEnum):
    """What the resolver's cache had to say."""

    HIT = "hit"
    MISS = "miss"
    NEGATIVE = "negative"
    """A remembered failure."""
    ERROR = "error"
    """A question that brought no address."""


class ReloadOutcome(StrEnum):
    """What became of a reload."""

    OK = "ok"
    REFUSED = "refused"
    """The policy has problems; the old one stays."""
    FAILED = "failed"
    """The policy is good and a worker could not take it."""


class Latency(StrEnum):
    """The measured stretches of a flow's life."""

    DECIDE = "decide"
    RESOLVE = "resolve"
    DIAL = "dial"
    FIRST_BYTE = "first_byte"


class KernelCount(StrEnum):
    """What is counted of the packets that the kernel's rules logged, and of its sets."""

    PACKETS = "packets"
    """Read and made records."""
    LOST = "lost"
    """Logged by the kernel and dropped before they were read."""
    OVERRUNS = "overruns"
    """Times the kernel found the receive buffer full."""
    MALFORMED = "malformed"
    """Messages that could not be read."""
    DISAGREEMENTS = "disagreements"
    """Refused by the kernel where the policy would allow."""
    REFUSED_ADDRESSES = "refused_addresses"
    """Answers that the address guard kept out of a set."""
    SET_ERRORS = "set_errors"
    """Changes of a set that failed."""
    REPAIRS = "repairs"
    """Times the firewall was put back after somebody changed it."""
    REVOKED = "revoked"
    """Forwarded connections that were ended because a policy no longer allows them."""


class NameCount(StrEnum):
    """The sizes that are looked at, not added up."""

    UNRESOLVED = "unresolved"
    """Names of network rules without an answer now."""
    BOOK_NAMES = "book_names"
    """Names in the address book."""
    BOOK_PAIRS = "book_pairs"
    """Pairs of name and address in it."""


DECIDE_BOUNDS_S: Final = (1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 1e-4, 1e-3, 1e-2)
NETWORK_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
HELLO_BOUNDS_BYTES: Final = (256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384, 65536)

LATENCY_BOUNDS_S: Final[dict[Latency, tuple[float, ...]]] = {
    Latency.DECIDE: DECIDE_BOUNDS_S,
    Latency.RESOLVE: NETWORK_BOUNDS_S,
    Latency.DIAL: NETWORK_BOUNDS_S,
    Latency.FIRST_BYTE: NETWORK_BOUNDS_S,
}


class Layout:
    """Which cell of a row is what. ``flows`` maps (plane, action, reason) to its cell."""

    def __init__(self) -> None:
        self.size = 0
        self.flows = self._keys(tuple(product(Plane, Action, Reason)))
        self.would_deny = self._keys(tuple(Plane))
        self.active = self._keys(tuple(Plane))
        self.lookups = self._keys(tuple(LookupOutcome))
        self.bytes_up = self._cells(1)
        self.bytes_down = self._cells(1)
        self.log_dropped = self._cells(1)
        self.log_folded = self._cells(1)
        self.log_errors = self._cells(1)
        self.longest_stall_ns = self._cells(1)
        # What only the supervisor's row has: the kernel's firewall.
        self.kernel = self._keys(tuple(KernelCount))
        self.names = self._keys(tuple(NameCount))
        # A histogram is a cell a bucket, one for what is above the last bound, and the sum.
        self.hello = self._cells(len(HELLO_BOUNDS_BYTES) + 2)
        self.latencies = {
            latency: self._cells(len(bounds) + 2) for latency, bounds in LATENCY_BOUNDS_S.items()
        }
        self.checksum = zlib.crc32(repr(sorted(vars(self).items())).encode())

    def _cells(self, count: int) -> int:
        first, self.size = self.size, self.size + count
        return first

    def _keys(self, keys: tuple[_Key, ...]) -> dict[_Key, int]:
        return {key: self._cells(1) for key in keys}


LAYOUT: Final = Layout()

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

# The header: two cells that an attach checks, then what only the supervisor writes.
_CHECKSUM, _WORKERS, _RESTARTS, _LOADED_AT_NS, _RELOADS = range(5)
_DIGEST: Final = _RELOADS + len(ReloadOutcome)
_TAGS_DATED_NS: Final = _DIGEST + _DIGEST_BYTES // _CELL
_TAGS_CHANGE: Final = _TAGS_DATED_NS + 1
_TAGS_BY_NAME: Final = _TAGS_CHANGE + 1
_HEADER_CELLS: Final = _TAGS_BY_NAME + 1


class WorkerCounters:
    """The row of one worker, or the supervisor's; only that one process writes to it."""

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

    def stall_s(self, seconds: float) -> None:
        """The engine did not get a turn for so long; the longest is kept."""
        stall_ns = int(seconds * _NANOSECONDS)
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

    def _latency(self, first: int, bounds: tuple[float, ...], seconds: float) -> None:
        cells = self._cells
        cells[first + bisect_left(bounds, seconds)] += 1
        cells[first + len(bounds) + 1] += int(seconds * _NANOSECONDS)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts per bucket (not cumulative, the last is above every bound) and the sum."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class Totals:
    """A reading of all rows and of the header."""

    flows: dict[tuple[Plane, Action, Reason], int]
    would_deny: dict[Plane, int]
    active: dict[Plane, int]
    lookups: dict[LookupOutcome, int]
    bytes_up: int
    bytes_down: int
    log_dropped: int
    log_folded: int
    log_errors: int
    kernel: dict[KernelCount, int]
    names: dict[NameCount, int]
    longest_stall_s: float
    hello: Histogram
    latencies: dict[Latency, Histogram]
    reloads: dict[ReloadOutcome, int]
    restarts: int
    policy_digest: str
    policy_loaded_at: float
    tags_dated: float
    tags_dated_by: DatedBy
    tags_change_number: int


class Counters:
    """The whole mapping: ``create`` in the supervisor, ``attach`` in a worker.

    A row for each worker, and one for the supervisor behind them.
    """

    def __init__(self, fd: int, workers: int) -> None:
        self.fd = fd
        self.workers = workers
        self._mapping = mmap.mmap(fd, _size(workers))
        self._cells = memoryview(self._mapping).cast("q")

    @classmethod
    def create(cls, workers: int) -> Counters:
        """A fresh mapping of ``workers`` rows, all zero; ``fd`` is close-on-exec."""
        fd = os.memfd_create("egressproxy-counters", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, _size(workers))
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)  # no reader can be killed by a shrunk file
        counters = cls(fd, workers)
        counters._cells[_CHECKSUM] = LAYOUT.checksum
        counters._cells[_WORKERS] = workers
        return counters

    @classmethod
    def attach(cls, fd: int, workers: int) -> Counters:
        """Map an inherited descriptor, which this object then owns.

        Raises:
            ServiceError: not a mapping of this version with so many workers.
        """
        if os.fstat(fd).st_size == _size(workers):
            counters = cls(fd, workers)
            if (counters._cells[_CHECKSUM], counters._cells[_WORKERS]) == (
                LAYOUT.checksum,
                workers,
            ):
                return counters
        raise ServiceError(
            f"descriptor {fd} does not hold the counters of {workers} workers",
            hint="supervisor and workers must be of one version; restart the service",
        )

    def worker(self, index: int) -> WorkerCounters:
        """The row of worker ``index`` (from 0)."""
        if index == self.workers:
            raise IndexError("the row behind the workers is the supervisor's")
        return WorkerCounters(self._row(index))

    def supervisor(self) -> WorkerCounters:
        """The row behind those of the workers: what the supervisor itself counts."""
        return WorkerCounters(self._row(self.workers))

    def restarted(self, index: int) -> None:
        """A worker died and another takes its row: clear its gauges, keep its totals.

        To be called before the new worker starts.
        """
        row = self._row(index)
        for cell in (*LAYOUT.active.values(), LAYOUT.longest_stall_ns):
            row[cell] = 0
        self._cells[_RESTARTS] += 1

    def reloaded(self, outcome: ReloadOutcome) -> None:
        """Count a reload (supervisor only)."""
        self._cells[_RELOADS + tuple(ReloadOutcome).index(outcome)] += 1

    def set_policy(self, digest: str, loaded_at: float) -> None:
        """Name the policy in force (supervisor only): hex SHA-256, POSIX seconds."""
        raw = bytes.fromhex(digest)
        if len(raw) != _DIGEST_BYTES:
            raise ValueError(f"a digest of {len(raw)} bytes")
        self._mapping[_DIGEST * _CELL : (_DIGEST * _CELL) + _DIGEST_BYTES] = raw
        self._cells[_LOADED_AT_NS] = int(loaded_at * _NANOSECONDS)

    def set_service_tags(self, edition: TagEdition | None) -> None:
        """Say which service tag file the policy was read with last (supervisor only)."""
        dated = edition.dated if edition is not None else 0
        self._cells[_TAGS_DATED_NS] = int(dated * _NANOSECONDS)
        self._cells[_TAGS_CHANGE] = edition.change_number if edition is not None else 0
        by_name = edition is not None and edition.dated_by is DatedBy.NAME
        self._cells[_TAGS_BY_NAME] = by_name

    def active_total(self) -> int:
        """Open flows of all workers and planes now."""
        cells = self._cells
        return sum(
            cells[base + cell]
            for base in range(_HEADER_CELLS, len(cells), LAYOUT.size)
            for cell in LAYOUT.active.values()
        )

    def totals(self) -> Totals:
        """Sum the rows. Not one instant: workers go on counting meanwhile."""
        rows = [self._row(index).tolist() for index in range(self.workers + 1)]
        row = [sum(column) for column in zip(*rows, strict=True)]
        return Totals(
            flows={key: row[cell] for key, cell in LAYOUT.flows.items()},
            would_deny={key: row[cell] for key, cell in LAYOUT.would_deny.items()},
            active={key: row[cell] for key, cell in LAYOUT.active.items()},
            lookups={key: row[cell] for key, cell in LAYOUT.lookups.items()},
            bytes_up=row[LAYOUT.bytes_up],
            bytes_down=row[LAYOUT.bytes_down],
            log_dropped=row[LAYOUT.log_dropped],
            log_folded=row[LAYOUT.log_folded],
            log_errors=row[LAYOUT.log_errors],
            kernel={key: row[cell] for key, cell in LAYOUT.kernel.items()},
            names={key: row[cell] for key, cell in LAYOUT.names.items()},
            longest_stall_s=max(r[LAYOUT.longest_stall_ns] for r in rows) / _NANOSECONDS,
            hello=_histogram(row, LAYOUT.hello, HELLO_BOUNDS_BYTES, 1),
            latencies={
                latency: _histogram(row, cell, LATENCY_BOUNDS_S[latency], _NANOSECONDS)
                for latency, cell in LAYOUT.latencies.items()
            },
            reloads={
                outcome: self._cells[_RELOADS + place]
                for place, outcome in enumerate(ReloadOutcome)
            },
            restarts=self._cells[_RESTARTS],
            policy_digest=self._digest(),
            policy_loaded_at=self._cells[_LOADED_AT_NS] / _NANOSECONDS,
            tags_dated=self._cells[_TAGS_DATED_NS] / _NANOSECONDS,
            tags_dated_by=DatedBy.NAME if self._cells[_TAGS_BY_NAME] else DatedBy.MODIFIED,
            tags_change_number=self._cells[_TAGS_CHANGE],
        )

    def close(self) -> None:
        """Close the descriptor, and unmap when the last row that was handed out is gone."""
        self._cells.release()
        with suppress(BufferError):
            self._mapping.close()
        os.close(self.fd)

    def _row(self, index: int) -> memoryview:
        if not 0 <= index <= self.workers:
            raise IndexError(f"worker {index} of {self.workers}")
        first = _HEADER_CELLS + index * LAYOUT.size
        return self._cells[first : first + LAYOUT.size]

    def _digest(self) -> str:
        if not self._cells[_LOADED_AT_NS]:
            return ""
        return self._mapping[_DIGEST * _CELL : _DIGEST * _CELL + _DIGEST_BYTES].hex()


def _size(workers: int) -> int:
    if workers < 1:
        raise ValueError(f"{workers} workers")
    return (_HEADER_CELLS + (workers + 1) * LAYOUT.size) * _CELL


def _histogram(row: list[int], first: int, bounds: tuple[float, ...], scale: int) -> Histogram:
    counts = tuple(row[first : first + len(bounds) + 1])
    return Histogram(bounds, counts, row[first + len(bounds) + 1] / scale)
