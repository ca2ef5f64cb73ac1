"""``Bounds``: how much a store may hold, and how much of it one client may fill."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, TypeVar

_MAX_REMEMBERED: Final = 100_000
"""Sources and hours; a budget that is forgotten begins anew."""
_Key = TypeVar("_Key")


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
    """New subjects of all sources of a gateway in one hour."""
    records_per_source_hour: int = 20_000
    """Raw records of one source in one hour; beyond it those alike within a batch become one."""
    max_names: int = 1_000_000
    """Names remembered as seen; beyond it those not seen for longest are forgotten."""


class Budget:
    """What the sources of one gateway have used up, by the hour; bounded itself.

    ``source`` and ``hour`` are as in the records: their own clock, so that an import is treated as
    the day it tells of.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._subjects: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._records: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._hours: OrderedDict[int, int] = OrderedDict()
        self._overflows: OrderedDict[int, int] = OrderedDict()

    def takes_subject(self, source: str, hour: int) -> bool:
        """Whether one more new subject is within the budget; then it is used."""
        bounds = self._bounds
        if self._hours.get(hour, 0) >= bounds.subjects_per_hour:
            return False
        if not _use(self._subjects, (source, hour), bounds.subjects_per_source_hour):
            return False
        return _use(self._hours, hour, bounds.subjects_per_hour)

    def takes_overflow(self, hour: int) -> bool:
        """Whether one more source may have an overflow subject of its own."""
        return _use(self._overflows, hour, self._bounds.subjects_per_hour)

    def takes_record(self, source: str, hour: int) -> bool:
        """Whether one more raw record is within the budget; then it is used."""
        return _use(self._records, (source, hour), self._bounds.records_per_source_hour)


def _use(used: OrderedDict[_Key, int], key: _Key, most: int) -> bool:
    count = used.get(key, 0)
    if count >= most:
        return False
    used[key] = count + 1
    if not count and len(used) > _MAX_REMEMBERED:
        used.popitem(last=False)
    return True
