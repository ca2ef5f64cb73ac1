"""``Keeper``: records and notes into the review store, past its failures.

What the store does not take now is kept and tried again with growing pauses; beyond ``MAX_PENDING``
records the newest are dropped and counted. A record is given to the store until it takes it, or
until it is sure that it never will.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from egressproxy.errors import StoreError
from egressproxy.observe.cells import ReviewCount
from egressproxy.service.journal import journal
from egressproxy.service.recorder_messages import ReloadNote, RuleHitsNote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from egressproxy.observe.record import FlowRecord
    from egressproxy.review.writer import Added
    from egressproxy.service.recorder_messages import Note

BATCH_RECORDS: Final = 2000
"""In one transaction: some 0.2 s, in which nobody else writes."""
MAX_PENDING: Final = 20_000
"""Records kept while the store fails, of some 1.5 KiB each."""
MAX_NOTES: Final = 500
PRUNE_S: Final = 300.0
FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 30.0
MAX_TRIES: Final = 8
"""Of a batch that fails while the store is well otherwise: a minute."""


class ReviewCounters(Protocol):
    """Where it counts; ``observe.counters.Counters.recorder()`` is one."""

    def review(self, what: ReviewCount, number: int = 1) -> None:
        """Count on the way into the store."""
        ...


class RecordWriter(Protocol):
    """What it writes with; ``review.writer.Writer`` is one. Every method raises ``StoreError``."""

    def add(self, records: Sequence[FlowRecord]) -> Added:
        """Store a batch, all or nothing."""
        ...

    def note_reload(
        self, *, at: float, outcome: str, digest: str, previous: str, report: str
    ) -> None:
        """Add to the history of reloads."""
        ...

    def note_rule_hits(self, packets: Mapping[str, int], *, at: float) -> None:
        """Add packets of network rules."""
        ...

    def prune(self, now: float) -> object:
        """Delete what is too old or too much."""
        ...


class NoStore:
    """In a ``Keeper``'s place where records are exported and not stored."""

    next_turn: Final = float("inf")

    def take(self, records: Sequence[FlowRecord]) -> None:
        """Nothing is kept."""

    def note(self, note: Note) -> None:
        """Nothing is kept."""

    def turn(self) -> None:
        """Nothing is to be done."""

    def close(self, deadline: float) -> None:
        """Nothing is left."""


class Keeper:
    """Not for several threads.

    Args:
        open_writer: opens the store; raises ``StoreError`` where that cannot be done now.
        counters: stored, dropped, failed.
        clock: monotonic seconds.
        wall_clock: POSIX seconds.
    """

    def __init__(
        self,
        open_writer: Callable[[], RecordWriter],
        counters: ReviewCounters,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._open_writer = open_writer
        self._counters = counters
        self._clock = clock
        self._wall_clock = wall_clock
        self._writer: RecordWriter | None = None
        self._records: list[FlowRecord] = []
        self._notes: deque[Note] = deque(maxlen=MAX_NOTES)
        self._prune_at = clock() + PRUNE_S
        self._retry_at = 0.0
        self._delay_s = FIRST_RETRY_S
        self._tries = 0

    @property
    def next_turn(self) -> float:
        """When ``turn`` has something to do, monotonic seconds; the past is now."""
        due = self._clock() if self._records or self._notes else self._prune_at
        return max(due, self._retry_at)

    def open(self) -> None:
        """Open the store now.

        Raises:
            StoreError: it cannot be opened; ``turn`` tries again.
        """
        self._writer = self._open_writer()

    def take(self, records: Sequence[FlowRecord]) -> None:
        """Keep records until ``turn`` has stored them."""
        room = MAX_PENDING - len(self._records)
        self._records += records[:room]
        if len(records) > room:
            self._counters.review(ReviewCount.DROPPED, len(records) - room)

    def note(self, note: Note) -> None:
        """Keep a note until ``turn`` has stored it; of very many the oldest are forgotten."""
        self._notes.append(note)

    def turn(self) -> None:
        """Store what there is and prune when it is time; what fails is tried again later."""
        if self.next_turn > self._clock():
            return
        try:
            writer = self._opened()
            self._store(writer)
            if self._clock() >= self._prune_at:
                self._prune_at = self._clock() + PRUNE_S
                writer.prune(self._wall_clock())
        except StoreError as error:
            self._fail(error)
            return
        if self._tries:
            journal().info("the review store takes records again")
        self._tries, self._delay_s = 0, FIRST_RETRY_S

    def close(self, deadline: float) -> None:
        """Store what is left, trying until ``deadline`` (monotonic); then it is dropped."""
        self._retry_at = 0.0
        self.turn()
        while (self._records or self._notes) and (now := self._clock()) < deadline:
            time.sleep(max(0.0, min(self._retry_at, deadline) - now))
            self.turn()
        if self._records:
            self._counters.review(ReviewCount.DROPPED, len(self._records))
            journal().error("records for the review are lost", records=len(self._records))
            self._records.clear()

    def _opened(self) -> RecordWriter:
        if self._writer is None:
            self.open()
        assert self._writer is not None  # noqa: S101 - open has set it
        return self._writer

    def _store(self, writer: RecordWriter) -> None:
        while self._records:
            batch = self._records[:BATCH_RECORDS]
            added = writer.add(batch)
            del self._records[: len(batch)]
            self._counters.review(ReviewCount.STORED, len(batch))
            self._counters.review(ReviewCount.OVERFLOWED, added.overflowed)
            self._counters.review(ReviewCount.NEW_NAMES, len(added.new_names))
        while self._notes:
            _write_note(writer, self._notes[0])
            self._notes.popleft()

    def _fail(self, error: StoreError) -> None:
        self._counters.review(ReviewCount.ERRORS)
        self._tries += 1
        if self._tries == 1:
            journal().error("the review store fails, it is tried again", why=str(error))
        if self._tries % MAX_TRIES == 0 and error.code == StoreError.code and self._is_well():
            self._give_up(error)
        if error.code == "missing":  # its file was moved away: the next turn makes a new one
            self._writer = None
        self._retry_at = self._clock() + self._delay_s
        self._delay_s = min(2 * self._delay_s, MAX_RETRY_S)

    def _is_well(self) -> bool:
        """Whether the store takes a batch without records, and so is not what is wrong."""
        if self._writer is None:
            return False
        try:
            self._writer.add(())
        except StoreError:
            return False
        return True

    def _give_up(self, error: StoreError) -> None:
        """No other record shall wait for one that the store will never take."""
        lost = min(len(self._records), BATCH_RECORDS)
        del self._records[:lost]
        if not lost and self._notes:
            self._notes.popleft()
        self._counters.review(ReviewCount.DROPPED, lost)
        journal().error("the review store does not take a batch", records=lost, why=str(error))


def _write_note(writer: RecordWriter, note: Note) -> None:
    match note:
        case ReloadNote():
            writer.note_reload(
                at=note.at,
                outcome=note.outcome,
                digest=note.digest,
                previous=note.previous,
                report=note.report,
            )
        case RuleHitsNote():
            writer.note_rule_hits(note.packets, at=note.at)
