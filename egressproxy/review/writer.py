"""``Writer``: records into the store, a batch a transaction.

A record is counted in ``hourly`` and ``daily`` under its subject, remembered in ``seen`` by its
name, and kept raw. What is remembered between batches (numbers of subjects, names) is only taken
over when the transaction has ended well, so a batch that failed can be given again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import insert

from egressproxy.review import schema
from egressproxy.review.batch import Batch
from egressproxy.review.bounds import Budget
from egressproxy.review.name_memory import NameMemory
from egressproxy.review.pruning import prune
from egressproxy.review.subject_ids import SubjectIds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Table

    from egressproxy.observe.record import FlowRecord
    from egressproxy.review.batch import Sums
    from egressproxy.review.bounds import Bounds
    from egressproxy.review.pruning import Pruned
    from egressproxy.review.store import Store

_COUNT_COLUMNS: Final = (
    "bucket",
    "subject_id",
    "count",
    "bytes_up",
    "bytes_down",
    "first_at",
    "last_at",
)


class Added(NamedTuple):
    """What became of a batch."""

    stored: int
    """Raw records written; those beyond a source's budget are joined with others like them."""
    overflowed: int
    """Records that were counted in an overflow subject."""
    new_names: tuple[str, ...]
    """Names that no record had before, in the order of the batch."""


class Progress(NamedTuple):
    """How far a file was read, remembered with the records that were read from it."""

    head: bytes
    """Sixteen octets that tell files apart."""
    offset: int
    """Octets of text read so far."""
    at: float


class Writer:
    """Writes the records of one gateway; not for several threads.

    Args:
        store: one that may be written to.
        gateway: whose records these are.
        bounds: what the store may hold.
    """

    def __init__(self, store: Store, *, gateway: str, bounds: Bounds) -> None:
        self.store: Final = store
        self.gateway: Final = schema.storable(gateway)
        self.bounds: Final = bounds
        self._budget = Budget(bounds)
        self._subjects = SubjectIds(self.gateway)
        self._names = NameMemory(store)

    def add(self, records: Sequence[FlowRecord], *, progress: Progress | None = None) -> Added:
        """Store a batch, all or nothing.

        Raises:
            StoreError: nothing was stored; the same batch may be given again.
        """
        self._budget.undo()  # what a batch before used that was not stored
        with self.store.begin() as connection:
            subjects = self._subjects.resolve(connection, records, self._budget)
            batch = Batch(self._budget)
            for record, (number, is_overflow) in zip(records, subjects, strict=True):
                batch.take(record, number, is_overflow=is_overflow)
            self._count(connection, schema.hourly, batch.hours)
            self._count(connection, schema.daily, batch.days)
            self.store.add_rows(connection, schema.record, batch.rows)
            new_names = self._names.note(connection, batch.names)
            if progress is not None:
                self._note_progress(connection, progress)
        self._budget.keep()
        self._subjects.keep()
        self._names.keep()
        return Added(len(batch.rows), batch.overflowed, new_names)

    def note_reload(
        self, *, at: float, outcome: str, digest: str, previous: str, report: str
    ) -> None:
        """Add to the history of reloads; ``report`` is JSON.

        Raises:
            StoreError: it was not stored.
        """
        row = {
            "at": at,
            "gateway": self.gateway,
            "outcome": outcome,
            "digest": digest,
            "previous": previous,
            "report": schema.storable(report),
        }
        with self.store.begin() as connection:
            connection.execute(insert(schema.reload), [row])

    def note_rule_hits(self, packets: Mapping[str, int], *, at: float) -> None:
        """Add what the kernel's counters of network rules grew by since they were noted last.

        Raises:
            StoreError: nothing was stored.
        """
        made = self.store.insert(schema.rule_hits)
        row = schema.rule_hits.c
        statement = made.on_conflict_do_update(
            index_elements=[row.bucket, row.gateway, row.rule],
            set_={"packets": row.packets + made.excluded.packets},
        )
        rows = [
            {
                "bucket": schema.day_of(at),
                "gateway": self.gateway,
                "rule": schema.storable(rule),
                "packets": count,
            }
            for rule, count in sorted(packets.items())
            if count
        ]
        if rows:
            with self.store.begin() as connection:
                connection.execute(statement, rows)

    def note_recording(self, *, since: float, allows: str) -> None:
        """Say which allows are recorded from a moment on: ``all``, ``none`` or ``1/100``.

        Raises:
            StoreError: it was not stored.
        """
        made = self.store.insert(schema.recording)
        statement = made.on_conflict_do_update(
            index_elements=[schema.recording.c.gateway, schema.recording.c.since],
            set_={"allows": made.excluded.allows},
        )
        row = {"gateway": self.gateway, "since": since, "allows": schema.storable(allows)}
        with self.store.begin() as connection:
            connection.execute(statement, [row])

    def prune(self, now: float) -> Pruned:
        """Delete what is too old or too much, in small transactions so that others can write.

        Args:
            now: POSIX seconds.

        Raises:
            StoreError: it could not be finished; the store is as whole as before.
        """
        return prune(self.store, self.bounds, now)

    def _count(self, connection: Connection, table: Table, sums: Sums) -> None:
        if not sums:
            return
        store, row = self.store, table.c
        made = store.insert(table)
        new = made.excluded
        statement = made.on_conflict_do_update(
            index_elements=[row.bucket, row.subject_id],
            set_={
                "count": row.count + new["count"],
                "bytes_up": row.bytes_up + new.bytes_up,
                "bytes_down": row.bytes_down + new.bytes_down,
                "first_at": store.least(row.first_at, new.first_at),
                "last_at": store.greatest(row.last_at, new.last_at),
            },
        )
        rows = [
            dict(zip(_COUNT_COLUMNS, (*key, *values), strict=True))
            for key, values in sorted(sums.items())
        ]
        connection.execute(statement, rows)

    def _note_progress(self, connection: Connection, progress: Progress) -> None:
        made = self.store.insert(schema.imported)
        statement = made.on_conflict_do_update(
            index_elements=[schema.imported.c.head],
            set_={"offset": made.excluded.offset, "at": made.excluded.at},
        )
        connection.execute(statement, [progress._asdict()])
