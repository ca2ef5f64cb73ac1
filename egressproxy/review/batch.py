"""``Batch``: what one batch of records adds to each table, summed up before it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from egressproxy.observe.record import Plane
from egressproxy.policy.verdict import Action
from egressproxy.review import schema

if TYPE_CHECKING:
    from egressproxy.observe.record import FlowRecord
    from egressproxy.review.bounds import Budget

POLICY_DIGITS: Final = 16
_STILL_OPEN: Final = "open"

Sums = dict[tuple[int, int], list[Any]]
"""By bucket and subject: flows, octets up and down, first and last moment."""


class Batch:
    """Filled by ``take``; ``hours``, ``days``, ``rows`` and ``names`` are then to be written."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._joined: dict[int, dict[str, Any]] = {}
        self.hours: Sums = {}
        self.days: Sums = {}
        self.rows: list[dict[str, Any]] = []
        self.names: dict[str, tuple[float, float]] = {}
        self.overflowed = 0

    def take(self, record: FlowRecord, number: int, *, is_overflow: bool) -> None:
        """Add a record under its subject's number."""
        at = record.time
        hour = schema.hour_of(at)
        count = flows_of(record)
        _sum(self.hours, (hour, number), record, count)
        _sum(self.days, (schema.day_of(at), number), record, count)
        if is_overflow:
            self.overflowed += 1
        elif record.name is not None:
            self._name(schema.storable(record.name), at)
        if is_overflow or not self._budget.takes_record(record.src_ip, hour):
            self._join(record, number, count)
        else:
            self.rows.append(_row(record, number, count))

    def _name(self, name: str, at: float) -> None:
        first, last = self.names.get(name, (at, at))
        self.names[name] = (min(first, at), max(last, at))

    def _join(self, record: FlowRecord, number: int, count: int) -> None:
        """One raw record for all of a subject in this batch, the last one's with their sums."""
        row = _row(record, number, count)
        before = self._joined.get(number)
        if before is None:
            self._joined[number] = row
            self.rows.append(row)
            return
        for sum_ in ("count", "bytes_up", "bytes_down", "requests"):
            row[sum_] += before[sum_]
        before.update(row)


def flows_of(record: FlowRecord) -> int:
    """How many flows a record adds to what was counted before.

    What audit let pass has a record when it opens and, where allows are recorded, one when it
    closes: the second adds only its octets. Packets (plane ``network``) have no such end.
    """
    if not record.would_deny or record.close_reason == _STILL_OPEN:
        return record.count
    if record.action is not Action.ALLOW or record.plane is Plane.NETWORK:
        return record.count
    return record.count if record.dialled_ip is None else 0  # without an upstream it never opened


def _sum(sums: Sums, key: tuple[int, int], record: FlowRecord, count: int) -> None:
    at = record.time
    found = sums.get(key)
    if found is None:
        sums[key] = [count, record.bytes_up, record.bytes_down, at, at]
        return
    found[0] += count
    found[1] += record.bytes_up
    found[2] += record.bytes_down
    if at < found[3]:
        found[3] = at
    elif at > found[4]:
        found[4] = at


def _row(r: FlowRecord, number: int, count: int) -> dict[str, Any]:
    return {
        "at": r.time,
        "subject_id": number,
        "flow_id": schema.storable(r.flow_id),
        "src_port": r.src_port,
        "dst_ip": schema.storable_or_none(r.dst_ip),
        "dialled_ip": schema.storable_or_none(r.dialled_ip),
        "tls_versions": schema.packed_texts(r.tls_versions),
        "destination_match": schema.storable(r.destination_match),
        "bytes_up": r.bytes_up,
        "bytes_down": r.bytes_down,
        "requests": r.requests,
        "duration_s": r.duration_s,
        "close_reason": schema.storable(r.close_reason),
        "policy": schema.storable(r.policy[:POLICY_DIGITS]),
        "count": count,
    }
