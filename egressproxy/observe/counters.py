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
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.errors import ServiceError
from egressproxy.observe.cells import (
    HELLO_BOUNDS_BYTES,
    LATENCY_BOUNDS_S,
    LAYOUT,
    NANOSECONDS,
    ExportKind,
    KernelCount,
    Latency,
    LookupOutcome,
    NameCount,
    ReloadOutcome,
    ReviewCount,
)
from egressproxy.observe.counting import EngineCounters, WorkerCounters
from egressproxy.policy.tag_edition import DatedBy

if TYPE_CHECKING:
    from egressproxy.observe.record import Plane
    from egressproxy.policy.tag_edition import TagEdition
    from egressproxy.policy.verdict import Action, Reason

_CELL: Final = 8
_DIGEST_BYTES: Final = 32
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


# The header: two cells that an attach checks, then what only the supervisor writes.
_CHECKSUM, _WORKERS, _RESTARTS, _LOADED_AT_NS, _RELOADS = range(5)
_DIGEST: Final = _RELOADS + len(ReloadOutcome)
_TAGS_DATED_NS: Final = _DIGEST + _DIGEST_BYTES // _CELL
_TAGS_CHANGE: Final = _TAGS_DATED_NS + 1
_TAGS_BY_NAME: Final = _TAGS_CHANGE + 1
_HEADER_CELLS: Final = _TAGS_BY_NAME + 1
_OTHERS: Final = 2
"""Rows behind the workers'."""


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
    review: dict[ReviewCount, int]
    export_lost: dict[ExportKind, int]
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

    A row for each worker, and behind them the supervisor's and the recorder's.
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
        return WorkerCounters(self._worker_row(index))

    def engine(self, index: int) -> EngineCounters:
        """The row of worker ``index``, for its engine, which ends each tick with ``flush``."""
        return EngineCounters(self._worker_row(index))

    def supervisor(self) -> WorkerCounters:
        """The row behind those of the workers: what the supervisor itself counts."""
        return WorkerCounters(self._row(self.workers))

    def recorder(self) -> WorkerCounters:
        """The last row: what the recorder counts."""
        return WorkerCounters(self._row(self.workers + 1))

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
        self._cells[_LOADED_AT_NS] = int(loaded_at * NANOSECONDS)

    def set_service_tags(self, edition: TagEdition | None) -> None:
        """Say which service tag file the policy was read with last (supervisor only)."""
        dated = edition.dated if edition is not None else 0
        self._cells[_TAGS_DATED_NS] = int(dated * NANOSECONDS)
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
        rows = [self._row(index).tolist() for index in range(self.workers + _OTHERS)]
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
            review={key: row[cell] for key, cell in LAYOUT.review.items()},
            export_lost={key: row[cell] for key, cell in LAYOUT.export_lost.items()},
            longest_stall_s=max(r[LAYOUT.longest_stall_ns] for r in rows) / NANOSECONDS,
            hello=_histogram(row, LAYOUT.hello, HELLO_BOUNDS_BYTES, 1),
            latencies={
                latency: _histogram(row, cell, LATENCY_BOUNDS_S[latency], NANOSECONDS)
                for latency, cell in LAYOUT.latencies.items()
            },
            reloads={
                outcome: self._cells[_RELOADS + place]
                for place, outcome in enumerate(ReloadOutcome)
            },
            restarts=self._cells[_RESTARTS],
            policy_digest=self._digest(),
            policy_loaded_at=self._cells[_LOADED_AT_NS] / NANOSECONDS,
            tags_dated=self._cells[_TAGS_DATED_NS] / NANOSECONDS,
            tags_dated_by=DatedBy.NAME if self._cells[_TAGS_BY_NAME] else DatedBy.MODIFIED,
            tags_change_number=self._cells[_TAGS_CHANGE],
        )

    def close(self) -> None:
        """Close the descriptor, and unmap when the last row that was handed out is gone."""
        self._cells.release()
        with suppress(BufferError):
            self._mapping.close()
        os.close(self.fd)

    def _worker_row(self, index: int) -> memoryview:
        if index >= self.workers:
            raise IndexError("the rows behind the workers are the supervisor's and the recorder's")
        return self._row(index)

    def _row(self, index: int) -> memoryview:
        if not 0 <= index < self.workers + _OTHERS:
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
    return (_HEADER_CELLS + (workers + _OTHERS) * LAYOUT.size) * _CELL


def _histogram(row: list[int], first: int, bounds: tuple[float, ...], scale: int) -> Histogram:
    counts = tuple(row[first : first + len(bounds) + 1])
    return Histogram(bounds, counts, row[first + len(bounds) + 1] / scale)
