"""Folding: a flood of identical denies becomes one record a window, with a count.

The first is written at once; those like it within ``fold_window_s`` are counted, and the last of
them is written for all when the window ends. Alike are records that differ only in time, flow id,
source port and, where there is a name, destination address. ``revoked`` flows have a history of
their own and are never folded. Of the network plane also what audit let pass is folded: a record
is a packet there, and has no end to come.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from egressproxy.observe.record import Plane
from egressproxy.policy.verdict import Action, Reason

if TYPE_CHECKING:
    from egressproxy.observe.record import FlowRecord

MAX_FOLDS: Final = 4096

# An attribute of an enum class costs a call before Python 3.12.
_ALLOW: Final = Action.ALLOW
_REVOKED: Final = Reason.REVOKED
_NETWORK: Final = Plane.NETWORK

_Key = tuple[object, ...]


class _Fold:
    __slots__ = ("count", "ends_at", "last")

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.count = 0
        self.last: FlowRecord | None = None

    def summary(self) -> list[FlowRecord]:
        return [self.last._replace(count=self.count)] if self.last else []


class Folds:
    """At most ``capacity`` open windows; the oldest gives way. Not for several threads."""

    def __init__(self, window_s: float, capacity: int = MAX_FOLDS) -> None:
        self._window_s = window_s
        self._capacity = capacity
        self._open: OrderedDict[_Key, _Fold] = OrderedDict()  # all windows are equal: by their end

    def __len__(self) -> int:
        return len(self._open)

    @property
    def next_end(self) -> float | None:
        """When ``ended`` has something to do."""
        return next(iter(self._open.values())).ends_at if self._open else None

    def take(self, record: FlowRecord, now: float) -> list[FlowRecord]:
        """The records to write in its place: itself, or nothing while it is being folded."""
        if not self._window_s or record.reason is _REVOKED or _is_flow(record):
            return [record]
        key = _key(record)
        fold = self._open.get(key)
        if fold is not None and now < fold.ends_at:
            fold.count += record.count
            fold.last = record
            return []
        due = self._open.pop(key).summary() if fold is not None else []
        if len(self._open) >= self._capacity:
            due += self._open.popitem(last=False)[1].summary()
        self._open[key] = _Fold(now + self._window_s)
        return [*due, record]

    def ended(self, now: float) -> list[FlowRecord]:
        """The counts of windows that are over; while a flood goes on, its next window is open."""
        due: list[FlowRecord] = []
        while self._open:
            key, fold = next(iter(self._open.items()))
            if fold.ends_at > now:
                break
            del self._open[key]
            if fold.last is not None:
                due += fold.summary()
                self._open[key] = _Fold(now + self._window_s)
        return due

    def flush(self) -> list[FlowRecord]:
        """The counts of all windows, ended or not; none is open afterwards."""
        due = [record for fold in self._open.values() for record in fold.summary()]
        self._open.clear()
        return due


def _is_flow(record: FlowRecord) -> bool:
    """An allowed flow, which nothing else stands for."""
    return record.action is _ALLOW and record.plane is not _NETWORK


def _key(r: FlowRecord) -> _Key:
    place = None if r.name else r.dst_ip
    return (
        r.action, r.reason, r.rule, r.plane, r.protocol, r.src_ip, r.name, r.dst_port, place,
        r.hello_split,
    )  # fmt: skip
