"""Which records of a log the store has already, because its gateway stored them itself.

A gateway whose recorder was behind, or whose store failed, has lines in its log that the store
lacks. They are told by what a line has to itself: flow, moment, what was wanted, how it ended. What
is older than the oldest raw record cannot be told, and what a source wanted beyond its budget is
kept only as a sum: neither is taken for missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, case, func, select

from egressproxy.review import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from egressproxy.observe.record import FlowRecord
    from egressproxy.review.store import Store

UNDERWAY_S: Final = 60.0
"""How old a line is at least that is taken for missing."""
_CHUNK: Final = 500

_Mark = tuple[float, str, str | None, int, str, str]


class Recorded:
    """What a gateway recorded itself; asked by an import.

    Args:
        store: where it records.
        gateway: its name there.
        budget: raw records of one source and hour, beyond which they were joined.
        now: POSIX seconds; what was logged just now may be on its way.
    """

    def __init__(self, store: Store, gateway: str, *, budget: int, now: float) -> None:
        self._store = store
        self._gateway = gateway
        self._budget = budget
        self._until = now - UNDERWAY_S
        known = schema.recording.c
        asked = select(func.min(known.since)).where(known.gateway == gateway)
        with store.connect() as connection:
            since: float | None = connection.execute(asked).scalar()
            oldest: float | None = connection.execute(select(func.min(schema.record.c.at))).scalar()
        self._since = float("inf") if since is None else since
        self._oldest = float("inf") if oldest is None else oldest

    def missing(self, records: Sequence[FlowRecord]) -> list[FlowRecord]:
        """Those that the store does not have, in their order.

        Raises:
            StoreError: it cannot be asked.
        """
        doubtful = [record for record in records if record.time >= self._since]
        if not doubtful:
            return list(records)
        with self._store.connect() as connection:
            stored = self._stored(connection, sorted({record.time for record in doubtful}))
            full = self._full(connection, doubtful)
        return [
            record
            for record in records
            if record.time < self._since
            or (
                self._oldest <= record.time < self._until - record.duration_s
                and (record.src_ip, schema.hour_of(record.time)) not in full
                and _mark(record) not in stored
            )
        ]

    def _stored(self, connection: Connection, moments: list[float]) -> set[_Mark]:
        found: set[_Mark] = set()
        for start in range(0, len(moments), _CHUNK):
            values = {"moments": moments[start : start + _CHUNK], "gateway": self._gateway}
            for at, *rest in connection.execute(_MARKS, values):
                found.add((at, *rest))
        return found

    def _full(self, connection: Connection, records: list[FlowRecord]) -> set[tuple[str, int]]:
        """Sources and hours of which not every record was kept by itself."""
        hours = sorted({schema.hour_of(record.time) for record in records})
        found: set[tuple[str, int]] = set()
        for start in range(0, len(hours), _CHUNK):
            values = {
                "hours": hours[start : start + _CHUNK],
                "gateway": self._gateway,
                "budget": self._budget,
            }
            found.update((source, hour) for source, hour in connection.execute(_FULL, values))
        return found


def _mark(record: FlowRecord) -> _Mark:
    return (
        record.time,
        schema.storable(record.flow_id),
        schema.storable_or_none(record.name),
        record.dst_port,
        str(record.action),
        schema.storable(record.close_reason),
    )


_subject: Final = schema.subject.c
_record: Final = schema.record.c
_MARKS: Final = (
    select(
        _record.at,
        _record.flow_id,
        _subject.name,
        _subject.dst_port,
        _subject.action,
        _record.close_reason,
    )
    .join(schema.subject, _subject.id == _record.subject_id)
    .where(_record.at.in_(bindparam("moments", expanding=True)))
    .where(_subject.gateway == bindparam("gateway"))
)
_FULL: Final = (
    select(_subject.src_ip, schema.hourly.c.bucket)
    .join(schema.subject, _subject.id == schema.hourly.c.subject_id)
    .where(schema.hourly.c.bucket.in_(bindparam("hours", expanding=True)))
    .where(_subject.gateway == bindparam("gateway"))
    .group_by(_subject.src_ip, schema.hourly.c.bucket)
    .having(
        (func.sum(case((_subject.is_overflow, 1), else_=0)) > 0)
        | (func.sum(schema.hourly.c["count"]) >= bindparam("budget"))
    )
)
