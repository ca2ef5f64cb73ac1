"""Which table answers for a span of time, and how: flows as rows that can be summed by subject.

Two hours or less, as far as single records are kept, are counted from them, to the second. A longer
span means whole hours, of which whole days are read as such: 30 days are some 30 buckets, not 720.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, select, union_all

from egressproxy.review.schema import (
    DAY_S,
    HOUR_S,
    RECORDS_CUT,
    daily,
    hour_of,
    hourly,
    meta,
    record,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement, Connection, FromClause, Select, Subquery, Table

    from egressproxy.review.model import Filter

EXACT_S: Final = 2 * HOUR_S
"""The longest span that is counted from single records."""


class Times(NamedTuple):
    """Buckets of ``table`` from ``first`` up to, not including, ``end``; ``None`` is no bound."""

    table: Table
    first: float | None
    end: float | None

    @property
    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """What a row of the table must meet."""
        at = self.table.c.at if self.table is record else self.table.c.bucket
        if self.first is not None:
            yield at >= self.first
        if self.end is not None:
            yield at < self.end


def times_of(connection: Connection, where: Filter, *, finest: int = DAY_S) -> tuple[Times, ...]:
    """The tables and buckets that make up a filter's span, none twice.

    ``finest`` seconds are the longest bucket that is good enough: an hour for a plot by the hour.
    """
    end = time.time() if where.until is None else where.until
    is_short = where.since is not None and end - where.since <= EXACT_S
    if is_short and _has_records_since(connection, where.since or 0.0):
        return (Times(record, where.since, where.until),)
    first = None if where.since is None else hour_of(where.since)
    last = None if where.until is None else -hour_of(-where.until)
    if finest < DAY_S:
        return (Times(hourly, first, last),)
    return tuple(_by_days(first, last))


def flows_of(times: tuple[Times, ...], among: FromClause | None = None) -> Subquery:
    """Rows of ``subject_id``, ``starts``, ``count``, ``bytes_…`` and ``…_at``, several a subject.

    ``starts`` is when the row's bucket begins, or the time of a single record.
    ``among`` is a selection of subjects, with their ``id``; without it, of all.
    """
    return union_all(*(_rows(each, among) for each in times)).subquery("flows")


def _rows(times: Times, among: FromClause | None) -> Select[Any]:
    rows = times.table.c
    is_raw = times.table is record
    # Of single records those of the span are read, never those of a subject of all time: the sum
    # hides the column from the index on it, which SQLite would take to filter and to group.
    subject_id = rows.subject_id + 0 if is_raw else rows.subject_id
    found = select(
        subject_id.label("subject_id"),
        (rows.at if is_raw else rows.bucket).label("starts"),
        rows.count,
        rows.bytes_up,
        rows.bytes_down,
        (rows.at if is_raw else rows.first_at).label("first_at"),
        (rows.at if is_raw else rows.last_at).label("last_at"),
    ).where(*times.conditions)
    if among is not None:
        found = found.where(subject_id.in_(select(among.c.id)))
    return found


def _by_days(first: int | None, end: int | None) -> Iterator[Times]:
    """Whole days from ``daily``, what sticks out at either end from ``hourly``."""
    first_day = None if first is None else -(-first // DAY_S) * DAY_S
    end_day = None if end is None else end // DAY_S * DAY_S
    if first_day is not None and end_day is not None and first_day >= end_day:
        yield Times(hourly, first, end)
        return
    yield Times(daily, first_day, end_day)
    if first != first_day:
        yield Times(hourly, first, first_day)
    if end != end_day:
        yield Times(hourly, end_day, end)


def _has_records_since(connection: Connection, since: float) -> bool:
    """Whether single records go back that far: the oldest are deleted before counts are.

    The oldest that there is does not tell: a flow that began long ago has its record when it ends.
    """
    cut = connection.scalar(select(meta.c.value).where(meta.c.key == RECORDS_CUT))
    if cut is not None and since <= float(cut):
        return False
    oldest = connection.scalar(select(func.min(record.c.at)))
    if oldest is None or oldest <= since:
        return oldest is not None
    earlier = select(hourly.c.bucket).where(hourly.c.bucket < hour_of(oldest)).limit(1)
    return connection.scalar(earlier) is None
