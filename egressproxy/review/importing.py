"""``import_file``: a log of JSON lines, of whichever gateway, into the store, once.

How far a file was read is remembered with what was read from it, in one transaction, under the
first record in it: so the same file, grown, renamed by rotation or compressed meanwhile, adds only
what is new. Memory is bounded whatever the file holds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from egressproxy.errors import StoreError
from egressproxy.observe.log_file import DAMAGED, Lines, opened
from egressproxy.observe.read import read_line
from egressproxy.review import schema
from egressproxy.review.recorded import Recorded
from egressproxy.review.writer import Progress

if TYPE_CHECKING:
    from egressproxy.observe.log_file import Readable
    from egressproxy.observe.record import FlowRecord
    from egressproxy.review.writer import Writer

BATCH_RECORDS: Final = 2_000
PRUNE_RECORDS: Final = 200_000
"""Between two looks at the store's bounds."""
MAX_BAD_SHOWN: Final = 5
FUTURE_S: Final = 86_400.0
"""A record that is later than now by more is not believed."""


@dataclass(slots=True, kw_only=True)
class Imported:
    """What became of a file."""

    read: int = 0
    """Records that were stored."""
    skipped: int = 0
    """Records that are too old to be kept, or that this gateway has stored itself."""
    bad: int = 0
    """Lines that are no records."""
    bad_lines: tuple[int, ...] = ()
    """The numbers of the first of them, from 1."""
    known_bytes: int = 0
    """Octets of text that an earlier import had read."""
    problem: str = ""
    """Why it ended early: a compressed file that is damaged or not complete."""


def import_file(writer: Writer, path: str, *, now: float) -> Imported:
    """Store what a file has that was not imported before; ``-`` is standard input.

    Args:
        writer: of the gateway that wrote the file.
        path: JSON lines as ``record.to_json_line`` writes them, plain or gzip, by content.
        now: POSIX seconds; what the store would not keep until now is skipped.

    Raises:
        StoreError: the file cannot be read or the store not written; what was stored is remembered.
    """
    try:
        with opened(path) as file:
            return _Import(writer, file, now).run()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error


class _Import:
    """One file on its way."""

    def __init__(self, writer: Writer, file: Readable, now: float) -> None:
        self._writer = writer
        self._lines = Lines(file)
        self._now = now
        self._oldest = now - writer.bounds.max_age_days * schema.DAY_S
        budget = writer.bounds.records_per_source_hour
        self._recorded = Recorded(writer.store, writer.gateway, budget=budget, now=now)
        self._done = Imported()
        self._batch: list[FlowRecord] = []
        self._head = b""
        self._known = 0
        self._since_prune = 0

    def run(self) -> Imported:
        try:
            while line := self._lines.next():
                self._take(line)
        except DAMAGED as error:
            self._done.problem = f"damaged or not complete: {error}"
        self._write()
        if self._done.read:
            self._writer.prune(self._now)
        return self._done

    def _take(self, line: bytes) -> None:
        record = read_line(line)
        if record is None or record.time > self._now + FUTURE_S:
            self._bad(line)
            return
        if not self._head and self._is_known(line):
            return
        if record.time < self._oldest:
            self._done.skipped += 1
            return
        self._batch.append(record)
        if len(self._batch) >= BATCH_RECORDS:
            self._write()

    def _is_known(self, line: bytes) -> bool:
        """Whether a file that begins with this record was read before; then go on after that."""
        self._head = hashlib.blake2b(line.rstrip(b"\n"), digest_size=16).digest()
        known = schema.imported.c
        asked = select(known.offset).where(known.head == self._head)
        with self._writer.store.connect() as connection:
            self._known = connection.execute(asked).scalar() or 0
        if not self._known:
            return False
        self._done = Imported(known_bytes=self._known)  # bad lines before it were told then
        self._lines.skip_to(self._known)
        return True

    def _bad(self, line: bytes) -> None:
        if not line.strip():
            return
        self._done.bad += 1
        if len(self._done.bad_lines) < MAX_BAD_SHOWN:
            self._done.bad_lines += (self._lines.number,)

    def _write(self) -> None:
        offset = self._lines.offset
        if not self._head or offset <= self._known:
            return
        batch = self._recorded.missing(self._batch)
        self._writer.add(batch, progress=Progress(self._head, offset, self._now))
        self._done.read += len(batch)
        self._done.skipped += len(self._batch) - len(batch)
        self._since_prune += len(batch)
        self._batch = []
        if self._since_prune >= PRUNE_RECORDS:
            self._writer.prune(self._now)
            self._since_prune = 0
