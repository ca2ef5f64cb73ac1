"""Deleting what is too old or too much: raw records before counts, the oldest first.

Counts go a day at a time, hours and day together, so that the sum of a day's hours is always that
day. All in small transactions: whoever records waits for none of them long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import delete, func, select, tuple_, update

from egressproxy.review import schema
from egressproxy.review.sqlite_file import give_back

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement, Connection, Table

    from egressproxy.review.bounds import Bounds
    from egressproxy.review.store import Store

_ROWS: Final = 10_000
"""Deleted in one transaction: some 50 ms."""
_ROOM: Final = 0.9
"""What is too much is cut to this part of the bound, so that it is not cut at every turn."""
_VACUUM_PAGES: Final = 2_000
_RELOADS_KEPT: Final = 1_000

# What a row takes with its share of the indexes, for PostgreSQL, whose files do not shrink when
# rows go: measured, see tests/review/test_pruning.py.
_ROW_BYTES: Final = {
    "record": 360,
    "hourly": 170,
    "daily": 170,
    "subject": 480,
    "seen": 140,
}


class Pruned(NamedTuple):
    """How many rows were deleted; ``counts`` are those of hours and days."""

    records: int = 0
    counts: int = 0
    subjects: int = 0
    names: int = 0


def prune(store: Store, bounds: Bounds, now: float) -> Pruned:
    """Bring a store within its bounds; ``now`` is POSIX seconds.

    Raises:
        StoreError: it could not be finished; what was deleted until then stays deleted.
    """
    oldest = now - bounds.max_age_days * schema.DAY_S
    records = _delete_in_turns(store, schema.record, schema.record.c.at < oldest)
    counts = _forget_days(store, schema.day_of(oldest))
    _forget_history(store, oldest)
    if _exceeds(store, bounds.max_bytes):
        room = int(bounds.max_bytes * _ROOM)
        records += _cut_records(store, room)
        counts += _cut_days(store, room)
    subjects = _forget_subjects(store) if counts else 0
    names = _forget_names(store, bounds.max_names)
    _give_back(store)
    return Pruned(records, counts, subjects, names)


def stored_bytes(store: Store) -> int:
    """What the store takes: of SQLite its pages in use, of PostgreSQL about what its rows need."""
    with store.connect() as connection:
        if store.dialect == "sqlite":
            return _sqlite_bytes(connection)
        return min(_postgresql_bytes(connection), _rows_bytes(connection))


def _sqlite_bytes(connection: Connection) -> int:
    def number(name: str) -> int:
        return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())

    return (number("page_count") - number("freelist_count")) * number("page_size")


def _postgresql_bytes(connection: Connection) -> int:
    """What its files take, free space in them too."""
    sizes = (select(func.pg_total_relation_size(name)) for name in schema.metadata.tables)
    return sum(connection.execute(size).scalar_one() for size in sizes)


def _rows_bytes(connection: Connection) -> int:
    counted = (
        (table, connection.execute(select(func.count()).select_from(table)).scalar_one())
        for table in schema.metadata.tables.values()
        if table.name in _ROW_BYTES
    )
    return sum(_ROW_BYTES[table.name] * rows for table, rows in counted)


def _exceeds(store: Store, most: int) -> bool:
    """Whether the store takes more; rows are counted only where files alone do not say."""
    if store.dialect == "postgresql":
        with store.connect() as connection:
            if _postgresql_bytes(connection) <= most:
                return False
    return stored_bytes(store) > most


def _cut_records(store: Store, room: int) -> int:
    """Delete the oldest raw records until the store fits or none is left."""
    deleted = 0
    while (excess := stored_bytes(store) - room) > 0:
        wanted = excess // _ROW_BYTES["record"] + 1
        gone = _delete_oldest(store, wanted)
        deleted += gone
        if gone < wanted:
            break
    return deleted


def _delete_oldest(store: Store, rows: int) -> int:
    number, at = schema.record.c.id, schema.record.c.at
    deleted = 0
    while deleted < rows:
        some = select(number, at).order_by(at).limit(min(rows - deleted, _ROWS)).subquery()
        with store.begin() as connection:
            last = connection.execute(select(func.max(some.c.at))).scalar()
            gone = _delete(connection, schema.record, number.in_(select(some.c.id)))
            if last is not None:
                _note_cut(store, connection, last)
        deleted += gone
        if not gone:
            break
    return deleted


def _note_cut(store: Store, connection: Connection, at: float) -> None:
    """Remember until when records were cut: a long flow's record of before may still come."""
    key = schema.meta.c.key == schema.RECORDS_CUT
    before = connection.execute(select(schema.meta.c.value).where(key)).scalar()
    value = repr(at if before is None else max(at, float(before)))
    made = store.insert(schema.meta).values(key=schema.RECORDS_CUT, value=value)
    connection.execute(
        made.on_conflict_do_update(index_elements=[schema.meta.c.key], set_={"value": value})
    )


def _cut_days(store: Store, room: int) -> int:
    """Delete the oldest days until the store fits; the last day with counts stays."""
    deleted = 0
    while stored_bytes(store) > room:
        with store.connect() as connection:
            days = select(func.min(schema.daily.c.bucket), func.max(schema.daily.c.bucket))
            first, last = connection.execute(days).one()
        if first is None or first == last:
            break
        deleted += _forget_days(store, first + schema.DAY_S)
        _forget_subjects(store)
    return deleted


def _forget_days(store: Store, until: int) -> int:
    """Delete the counts of all days before one."""
    deleted = 0
    for table in (schema.hourly, schema.daily, schema.rule_hits):
        deleted += _delete_in_turns(store, table, table.c.bucket < until)
    return deleted


def _forget_history(store: Store, oldest: float) -> None:
    recording = schema.recording
    later = recording.alias()
    is_over = (
        select(later.c.since)
        .where(later.c.gateway == recording.c.gateway)
        .where(later.c.since > recording.c.since)
        .where(later.c.since <= oldest)
        .exists()
    )
    newest = select(schema.reload.c.id).order_by(schema.reload.c.id.desc()).limit(_RELOADS_KEPT)
    with store.begin() as connection:
        _delete(connection, schema.reload, schema.reload.c.at < oldest)
        _delete(connection, schema.reload, schema.reload.c.id.not_in(newest))
        _delete(connection, schema.imported, schema.imported.c.at < oldest)
        _delete(connection, recording, is_over)


def _forget_subjects(store: Store) -> int:
    """Delete the subjects that no day counts any more, and tell all writers so."""
    deleted = 0
    counted = select(schema.daily.c.subject_id).where(
        schema.daily.c.subject_id == schema.subject.c.id
    )
    for first, last in _spans(store):
        with store.begin() as connection:
            number = schema.subject.c.id
            is_unused = (number >= first) & (number < last) & ~counted.exists()
            gone = _delete(connection, schema.subject, is_unused)
            if gone:
                _tell_writers(connection)
        deleted += gone
    return deleted


def _spans(store: Store) -> Iterator[tuple[int, int]]:
    number = schema.subject.c.id
    with store.connect() as connection:
        first, last = connection.execute(select(func.min(number), func.max(number))).one()
    if first is not None:
        for start in range(first, last + 1, _ROWS):
            yield start, start + _ROWS


def _tell_writers(connection: Connection) -> None:
    pruned = schema.meta.c.key == "pruned"
    times = int(connection.execute(select(schema.meta.c.value).where(pruned)).scalar_one())
    connection.execute(update(schema.meta).where(pruned).values(value=str(times + 1)))


def _forget_names(store: Store, most: int) -> int:
    """Delete the names that were not seen for longest, of those beyond the bound."""
    with store.connect() as connection:
        count = connection.execute(select(func.count()).select_from(schema.seen)).scalar_one()
        if count <= most:
            return 0
        last_at = schema.seen.c.last_at
        until = connection.execute(
            select(last_at).order_by(last_at).limit(1).offset(count - int(most * _ROOM))
        ).scalar()
    return 0 if until is None else _delete_in_turns(store, schema.seen, last_at < until)


def _delete_in_turns(store: Store, table: Table, which: ColumnElement[bool]) -> int:
    key = tuple(table.primary_key.columns)
    deleted = 0
    while True:
        some = select(*key).where(which).limit(_ROWS)
        with store.begin() as connection:
            gone = _delete(connection, table, _in(key, some))
        deleted += gone
        if gone < _ROWS:
            return deleted


def _in(key: tuple[Any, ...], some: Any) -> ColumnElement[bool]:
    return key[0].in_(some) if len(key) == 1 else tuple_(*key).in_(some)


def _delete(connection: Connection, table: Table, which: ColumnElement[bool]) -> int:
    return connection.execute(delete(table).where(which)).rowcount


def _give_back(store: Store) -> None:
    """Give free pages back to the disk; PostgreSQL's autovacuum does so by itself."""
    if store.dialect != "sqlite":
        return
    before = -1
    while True:
        with store.connect() as connection:
            left = give_back(connection, _VACUUM_PAGES)
        if left in (0, before):
            return
        before = left
