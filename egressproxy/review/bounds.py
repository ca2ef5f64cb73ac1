"""``Bounds``: how much a store may hold, and how much of it one client may fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_REMEMBERED: Final = 100_000
"""Sources and hours of which is known what they used."""

_Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits of one store.

    A client chooses names, ports and ALPN, and each new combination is a new subject: without a
    budget one client could push out the history of all others. Beyond its budget a source's flows
    are still counted, exactly, in one overflow subject.
    """

    max_age_days: int = 30
    """Older records, counts and history are deleted; names once seen stay."""
    max_bytes: int = 1 << 30
    """Of the database; beyond it the oldest raw records are deleted, then the oldest counts."""
    subjects_per_source_hour: int = 500
    """New subjects of one source in one hour."""
    subjects_per_hour: int = 20_000
    """New subjects of all sources of a gateway in one hour; half of them may be of packets."""
    records_per_source_hour: int = 20_000
    """Raw records of one source in one hour; beyond it those alike within a batch become one."""
    max_names: int = 1_000_000
    """Names remembered as seen; beyond it those not seen for longest are forgotten."""


class Budget:
    """What the sources of one gateway have used up, by the hour; bounded itself.

    ``source`` and ``hour`` are as in the records: their own clock, so that an import is treated as
    the day it tells of. What was used since ``keep`` is given back by ``undo``.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._subjects = _Used(bounds.subjects_per_source_hour)
        self._hours = _Used(bounds.subjects_per_hour)
        self._packets = _Used(bounds.subjects_per_hour // 2)
        self._overflows = _Used(bounds.subjects_per_hour)
        self._records = _Used(bounds.records_per_source_hour)

    def takes_subject(self, source: str, hour: int, *, is_packet: bool = False) -> bool:
        """Whether one more new subject is within the budget; then it is used.

        The source of a packet that no connection came of is what its sender wrote there: such
        packets leave the others half of the hour's budget.
        """
        if self._hours.is_full((hour,)) or (is_packet and self._packets.is_full((hour,))):
            return False
        if not self._subjects.takes((source, hour)):
            return False
        if is_packet:
            self._packets.takes((hour,))
        return self._hours.takes((hour,))

    def takes_overflow(self, hour: int) -> bool:
        """Whether one more source may have an overflow subject of its own; then it is used."""
        return self._overflows.takes((hour,))

    def takes_record(self, source: str, hour: int) -> bool:
        """Whether one more raw record is within the budget; then it is used."""
        return self._records.takes((source, hour))

    def keep(self) -> None:
        """A batch was stored."""
        for used in self._all():
            used.keep()

    def undo(self) -> None:
        """A batch was not stored."""
        for used in self._all():
            used.undo()

    def _all(self) -> tuple[_Used, ...]:
        return self._subjects, self._hours, self._packets, self._overflows, self._records


class _Used:
    """Counts up to a limit, by key; of very many keys the oldest begin anew."""

    __slots__ = ("_counts", "_limit", "_taken")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: dict[_Key, int] = {}
        self._taken: dict[_Key, int] = {}

    def is_full(self, key: _Key) -> bool:
        return self._counts.get(key, 0) + self._taken.get(key, 0) >= self._limit

    def takes(self, key: _Key) -> bool:
        taken = self._taken.get(key, 0)
        if self._counts.get(key, 0) + taken >= self._limit:
            return False
        self._taken[key] = taken + 1
        return True

    def keep(self) -> None:
        counts = self._counts
        for key, taken in self._taken.items():
            counts[key] = counts.get(key, 0) + taken
        self._taken.clear()
        while len(counts) > MAX_REMEMBERED:
            del counts[next(iter(counts))]

    def undo(self) -> None:
        self._taken.clear()
