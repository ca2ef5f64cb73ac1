"""``FlowLimits``: how many flows all workers hold together, in total and for one source.

One shared mapping (a memfd, inherited by exec'd workers)::

    header   salt (16 bytes)
    totals   one cell a worker
    rows     generation, then one cell a worker: the open flows of one source address
    keys     the source address of each row, 16 bytes, all zero where the row is free

A cell has one writing process, so counting takes no lock. A flow is counted first and the sum
looked at afterwards: two workers at the brink may both refuse, never both admit. Rows are given to
sources under a file lock, which a source takes once while its row lives. A row whose cells are all
zero may be given to another source; the generation tells the worker that remembers it.

The key's place is a keyed hash, so that no client can choose addresses which collide.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from egressproxy.errors import ServiceError
from egressproxy.policy.verdict import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.settings import Settings

_CELL: Final = 8
_KEY: Final = 16
_PROBES: Final = 64
_FREE: Final = bytes(_KEY)
_REMEMBERED_SOURCES: Final = 4096
DEFAULT_SOURCES: Final = 1 << 16


class FlowLimits:
    """The shared mapping; made once by the supervisor with ``create``, then attached to."""

    def __init__(self, fd: int, workers: int, sources: int) -> None:
        self.fd = fd
        self.workers = workers
        self.sources = sources
        self._map = mmap.mmap(fd, _size(workers, sources))
        whole = memoryview(self._map)
        cells_end = _KEY + _CELL * (workers + sources * (workers + 1))
        self.salt = bytes(whole[:_KEY])
        self.cells = whole[_KEY:cells_end].cast("q")
        self.keys = whole[cells_end:]
        self._whole = whole

    @classmethod
    def create(cls, workers: int, sources: int = DEFAULT_SOURCES) -> FlowLimits:
        """A mapping for ``workers`` and up to ``sources`` addresses with open flows at a time."""
        fd = os.memfd_create("egressproxy-limits", os.MFD_CLOEXEC)
        os.ftruncate(fd, _size(workers, sources))
        os.pwrite(fd, secrets.token_bytes(_KEY), 0)
        return cls(fd, workers, sources)

    @classmethod
    def attach(cls, fd: int, workers: int, sources: int = DEFAULT_SOURCES) -> FlowLimits:
        """The mapping behind an inherited descriptor.

        Raises:
            ServiceError: made for other numbers of workers or sources.
        """
        if os.fstat(fd).st_size != _size(workers, sources):
            raise ServiceError("the flow limits were made for another number of workers")
        return cls(fd, workers, sources)

    def worker(self, index: int, settings: Settings) -> WorkerLimits:
        """The part that worker ``index`` writes, its cells cleared: a dead worker holds no flow."""
        self.cells[index] = 0
        for row in range(self.sources):
            at = self.row(row) + 1 + index
            if self.cells[at]:
                self.cells[at] = 0
        return WorkerLimits(self, index, settings.max_flows, settings.max_flows_per_source)

    def total(self) -> int:
        """Open flows of all workers."""
        return sum(self.cells[: self.workers])

    def row(self, number: int) -> int:
        """The cell of a row's generation; its workers' cells follow."""
        return self.workers + number * (self.workers + 1)

    def in_row(self, row: int) -> int:
        """Open flows of the source whose generation cell is ``row``."""
        return sum(self.cells[row + 1 : row + 1 + self.workers])

    def find_row(self, key: bytes) -> int | None:
        """The row of a source, found or taken; ``None`` where every place it may have is in use."""
        digest = hashlib.blake2b(key, key=self.salt, digest_size=8).digest()
        first = int.from_bytes(digest, "little")
        spare = []
        with self._locked():
            for step in range(_PROBES):
                number = (first + step) % self.sources
                held = bytes(self.keys[number * _KEY : (number + 1) * _KEY])
                if held == key:
                    return self.row(number)
                if held == _FREE or not self.in_row(self.row(number)):
                    spare.append(number)
                if held == _FREE:
                    break
            return next((self.row(n) for n in spare if self._take(n, key)), None)

    def _take(self, number: int, key: bytes) -> bool:
        row = self.row(number)
        self.cells[row] += 1
        # Look only now: who counted a flow before has it seen here, who comes later sees the
        # new generation and asks again.
        if self.in_row(row):
            self.cells[row] -= 1
            return False
        self.keys[number * _KEY : (number + 1) * _KEY] = key
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A POSIX record lock belongs to the process and dies with it; the memfd is one inode.
        fcntl.lockf(self.fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Unmap and close."""
        for view in (self.cells, self.keys, self._whole):
            view.release()
        self._map.close()
        os.close(self.fd)


@dataclass(slots=True, eq=False)
class Source:
    """One client address, shared by its flows; ``row`` is the cell of its row's generation."""

    address: str
    row: int = 0
    generation: int = 0
    flows: int = 0


class WorkerLimits:
    """What one worker asks at accept (``admit``) and tells at close (``release``).

    Nobody else writes to its cells, so it counts in its own memory and writes the sums down: to
    read or write an item of the mapping costs more than all the rest here.
    """

    def __init__(self, shared: FlowLimits, index: int, max_flows: int, per_source: int) -> None:
        self._shared = shared
        self._cells = shared.cells
        self._index = index
        self._workers = shared.workers
        self._max_flows = max_flows
        self._per_source = per_source
        self._sources: dict[str, Source] = {}
        self._flows = 0

    def admit(self, address: str) -> Source | Reason:
        """Count a flow, or say which limit it would break.

        Args:
            address: the client's canonical address text.

        Returns:
            What ``release`` wants back; or ``LIMIT_GLOBAL`` or ``LIMIT_SOURCE``.
        """
        cells, workers = self._cells, self._workers
        self._flows = flows = self._flows + 1
        cells[self._index] = flows
        if (flows if workers == 1 else sum(cells[:workers])) > self._max_flows:
            self._take_back()
            return Reason.LIMIT_GLOBAL
        source = self._sources.get(address)
        if source is None or not self._count(source):
            source = self._find(address)
            if source is None:
                self._take_back()
                return Reason.LIMIT_SOURCE
        row = source.row + 1
        if (source.flows if workers == 1 else sum(cells[row : row + workers])) > self._per_source:
            self.release(source)
            return Reason.LIMIT_SOURCE
        return source

    def release(self, source: Source) -> None:
        """Give back what ``admit`` counted, exactly once."""
        source.flows = flows = source.flows - 1
        self._cells[source.row + 1 + self._index] = flows
        self._take_back()

    def _take_back(self) -> None:
        self._flows = flows = self._flows - 1
        self._cells[self._index] = flows

    def _count(self, source: Source) -> bool:
        """Count in the remembered row, unless it was given to another source meanwhile."""
        cells, row, cell = self._cells, source.row, source.row + 1 + self._index
        if source.flows:  # a row with a flow of ours in it is never given away
            source.flows = cells[cell] = source.flows + 1
            return True
        if cells[row] != source.generation:
            return False
        cells[cell] = 1
        if cells[row] == source.generation:  # whoever looks from now on sees the flow
            source.flows = 1
            return True
        cells[cell] = 0
        return False

    def _find(self, address: str) -> Source | None:
        if len(self._sources) >= _REMEMBERED_SOURCES:
            self._sources = {a: s for a, s in self._sources.items() if s.flows}
        source = self._sources.get(address) or Source(address)
        for _ in range(_PROBES):
            row = self._shared.find_row(_key(address))
            if row is None:
                break
            source.row, source.generation = row, self._cells[row]
            if self._count(source):
                self._sources[address] = source
                return source
        return None


def _key(address: str) -> bytes:
    ip = ip_address(address.partition("%")[0])
    return ip.packed if ip.version == 6 else b"\0" * 10 + b"\xff\xff" + ip.packed


def _size(workers: int, sources: int) -> int:
    return _KEY + _CELL * (workers + sources * (workers + 1)) + _KEY * sources
