"""Questions to the store: what was wanted, by whom, how often, when.

All answers are bounded and in a fixed order, commonest first unless said otherwise. Classes are not
in the store, so a filter's ``classes`` mean nothing here: ``report`` sees to them.

Raises, all of them: ``StoreError`` where the store was written by a younger version, and what the
store raises when it cannot be read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, case, cast, distinct, func, select

from egressproxy.review.filters import conditions
from egressproxy.review.model import Group, Point
from egressproxy.review.rows import stored_record_of, subject_count_of
from egressproxy.review.schema import HOUR_S, record, subject
from egressproxy.review.spans import Times, flows_of, times_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, Subquery

    from egressproxy.review.model import Filter, StoredRecord, Subject, SubjectCount
    from egressproxy.review.store import Store

MAX_SUBJECTS: Final = 100_000
"""Subjects of one answer unless asked for otherwise: some seconds, some 100 MB."""
MAX_GROUPS: Final = 10_000
MAX_RECORDS: Final = 10_000
MAX_PARTED: Final = 20_000
"""Subjects of a series that are told apart."""
OTHER: Final = "other"
NO_TARGET: Final = "(no name)"
"""The key of flows that said neither name nor address."""
OVERFLOW: Final = "(more names)"
"""The key of what sources wanted beyond their budget of an hour."""
NO_RULE: Final = "(no rule)"

_FEW_SUBJECTS: Final = 500
_of: Final = subject.c


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCount:
    """All flows with the same ``key``; ``sources`` and ``targets`` count distinct ones.

    ``groups`` is how many groups there are in all, beyond the limit too.
    """

    key: str
    count: int
    first_at: float
    last_at: float
    subjects: int
    sources: int
    targets: int
    bytes_up: int
    bytes_down: int
    groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a filter means in all; times are POSIX seconds, ``None`` where there is nothing."""

    flows: int
    subjects: int
    targets: int
    sources: int
    gateways: int
    first_at: float | None
    last_at: float | None


def subjects(
    store: Store,
    where: Filter,
    *,
    limit: int = MAX_SUBJECTS,
    by: Group = Group.NAME,
    keys: Sequence[str] | None = None,
) -> list[SubjectCount]:
    """Subjects with their counts; with ``keys``, only those of these groups."""
    meant = conditions(where)
    if keys is not None:
        meant.append(_key_of(by).in_(keys))
    with store.connect() as connection:
        flows = _by_subject(times_of(connection, where), meant)
        found = (
            select(subject, *_counts_of(flows))
            .join(flows, flows.c.subject_id == _of.id)
            .order_by(flows.c.count.desc(), _of.id)
            .limit(limit)
        )
        return [subject_count_of(row) for row in connection.execute(found)]


def top(
    store: Store, where: Filter, by: Group, *, limit: int, by_time: bool = False
) -> list[GroupCount]:
    """The groups with most flows, or the latest where ``by_time``; counted in the database.

    ``by`` is any but ``CLASS`` and ``REQUIREMENT``, which the store does not know. A ``limit`` of
    0 is ``MAX_GROUPS``.
    """
    with store.connect() as connection:
        flows = _by_subject(times_of(connection, where), conditions(where))
        key = _key_of(by).label("key")
        count = _total(flows.c.count).label("count")
        last_at = func.max(flows.c.last_at).label("last_at")
        found = (
            select(
                key,
                count,
                func.min(flows.c.first_at).label("first_at"),
                last_at,
                func.count().label("subjects"),
                func.count(distinct(_of.src_ip)).label("sources"),
                func.count(distinct(_key_of(Group.NAME))).label("targets"),
                _total(flows.c.bytes_up).label("bytes_up"),
                _total(flows.c.bytes_down).label("bytes_down"),
                func.count().over().label("groups"),
            )
            .join(flows, flows.c.subject_id == _of.id)
            .group_by(key)
            .order_by((last_at if by_time else count).desc(), key)
            .limit(min(limit or MAX_GROUPS, MAX_GROUPS))
        )
        return [GroupCount(**row) for row in connection.execute(found).mappings()]


def totals(store: Store, where: Filter) -> Totals:
    """The sums of everything that is meant."""
    with store.connect() as connection:
        flows = _by_subject(times_of(connection, where), conditions(where))
        found = select(
            func.coalesce(_total(flows.c.count), 0).label("flows"),
            func.count().label("subjects"),
            func.count(distinct(_key_of(Group.NAME))).label("targets"),
            func.count(distinct(_of.src_ip)).label("sources"),
            func.count(distinct(_of.gateway)).label("gateways"),
            func.min(flows.c.first_at).label("first_at"),
            func.max(flows.c.last_at).label("last_at"),
        ).join(flows, flows.c.subject_id == _of.id)
        return Totals(**connection.execute(found).mappings().one())


def names(store: Store, where: Filter, *, limit: int = 1000) -> list[str]:
    """The names, without addresses."""
    with store.connect() as connection:
        flows = _by_subject(times_of(connection, where), conditions(where))
        found = (
            select(_of.name)
            .join(flows, flows.c.subject_id == _of.id)
            .where(_of.name.is_not(None))
            .group_by(_of.name)
            .order_by(_total(flows.c.count).desc(), _of.name)
            .limit(min(limit, MAX_GROUPS))
        )
        return list(connection.scalars(found))


def records(
    store: Store,
    where: Filter,
    *,
    limit: int,
    before_id: int | None = None,
    after_id: int | None = None,
) -> list[StoredRecord]:
    """Single records as they were stored, the latest first.

    With ``before_id`` those stored before it (the next page). With ``after_id`` the first that were
    stored after it, oldest first (a tail).
    """
    at_least: list[ColumnElement[bool]] = []
    if where.since is not None:
        at_least.append(record.c.at >= where.since)
    if where.until is not None:
        at_least.append(record.c.at < where.until)
    if before_id is not None:
        at_least.append(record.c.id < before_id)
    if after_id is not None:
        at_least.append(record.c.id > after_id)
    order = record.c.id.asc() if after_id is not None else record.c.id.desc()
    own = [column.label(f"r_{column.name}") for column in record.c]
    with store.connect() as connection:
        found = (
            select(*own, subject)
            .join(subject, _of.id == record.c.subject_id)
            .where(*at_least, *conditions(where))
            .order_by(order)
            .limit(min(limit, MAX_RECORDS))
        )
        if after_id is None and (few := _few_subjects(connection, where)) is not None:
            found = found.where(record.c.subject_id.in_(few))
        return [stored_record_of(row) for row in connection.execute(found)]


def series(
    store: Store,
    where: Filter,
    *,
    step_s: int,
    part: Callable[[Subject], str] | None = None,
    counts: Sequence[SubjectCount] | None = None,
) -> list[Point]:
    """Flows over time, oldest first; steps without flows have no point.

    ``step_s`` is the seconds of a point: a part of an hour, whole hours or whole days. Where single
    records are not to be had, a part of an hour gives points of an hour. ``part`` is what of a
    point a subject is, such as its class; it is asked once a subject, and subjects with few flows
    among very many are ``OTHER``. Without it parts are reasons, counted in the database. ``counts``
    are the answer of ``subjects`` to the same filter, where it was asked for already.
    """
    parts: dict[int, str] = {}
    if part is not None:
        found = subjects(store, where, limit=MAX_PARTED) if counts is None else counts
        parts = {each.subject.id: part(each.subject) for each in found}
    with store.connect() as connection:
        times = times_of(connection, where, finest=step_s)
        step_s = step_s if times[0].table is record else max(step_s, HOUR_S)
        flows = flows_of(times, _among(conditions(where)))
        starts = flows.c.starts if store.dialect == "sqlite" else func.floor(flows.c.starts)
        whole = cast(starts, BigInteger)  # SQLite cuts, PostgreSQL would round
        at = (whole - whole % step_s).label("at")
        count = _total(flows.c.count).label("n_count")
        by_subject = select(at, flows.c.subject_id, count).group_by(at, flows.c.subject_id)
        if part is not None:
            return _points(
                (m, parts.get(i, OTHER), n) for m, i, n in connection.execute(by_subject)
            )
        sums = by_subject.subquery("sums")
        total = _total(sums.c.n_count)
        by_reason = (
            select(sums.c.at, _of.reason, total)
            .join(sums, sums.c.subject_id == _of.id)
            .group_by(sums.c.at, _of.reason)
        )
        return _points((m, reason, n) for m, reason, n in connection.execute(by_reason))


def _points(rows: Iterable[tuple[int, str, int]]) -> list[Point]:
    points: dict[int, Counter[str]] = {}
    for moment, word, number in rows:
        if number:
            points.setdefault(moment, Counter())[word] += number
    return [
        Point(float(moment), each.total(), tuple(each.most_common()))
        for moment, each in sorted(points.items())
    ]


def newest_id(store: Store) -> int:
    """The number of the record that was stored last, from where a tail begins; 0 without any."""
    with store.connect() as connection:
        return connection.scalar(select(func.max(record.c.id))) or 0


# How it is asked


def _by_subject(times: Iterable[Times], meant: Sequence[ColumnElement[bool]]) -> Subquery:
    """One row for each subject that is meant: the sum of its flows."""
    flows = flows_of(tuple(times), _among(meant))
    count = func.sum(flows.c.count)
    return (
        select(
            flows.c.subject_id,
            *(cast(func.sum(flows.c[each]), BigInteger).label(each) for each in _SUMMED),
            func.min(flows.c.first_at).label("first_at"),
            func.max(flows.c.last_at).label("last_at"),
        )
        .group_by(flows.c.subject_id)
        .having(count > 0)  # a flow that was counted before the span has its last record in it
        .subquery("by_subject")
    )


def _among(meant: Sequence[ColumnElement[bool]]) -> Subquery | None:
    return select(_of.id).where(*meant).subquery("meant") if meant else None


_SUMMED: Final = ("count", "bytes_up", "bytes_down")


def _counts_of(flows: Subquery) -> list[ColumnElement[Any]]:
    return [flows.c[each].label(f"n_{each}") for each in (*_SUMMED, "first_at", "last_at")]


def _total(column: ColumnElement[int]) -> ColumnElement[int]:
    """A sum as a whole number: PostgreSQL's would be a decimal."""
    return cast(func.sum(column), BigInteger)


def _key_of(by: Group) -> ColumnElement[str]:
    """What flows of one group have in common, as ``report`` says it."""
    target = func.coalesce(func.nullif(_of.name, ""), func.nullif(_of.dst_ip, ""), NO_TARGET)
    keys: dict[Group, ColumnElement[str]] = {
        Group.NAME: case((_of.is_overflow, OVERFLOW), else_=target),
        Group.SOURCE: _of.src_ip,
        Group.REASON: _of.reason,
        Group.RULE: func.coalesce(func.nullif(_of.rule, ""), NO_RULE),
        Group.PORT: _of.protocol + ":" + cast(_of.dst_port, _of.protocol.type),
        Group.GATEWAY: _of.gateway,
    }
    return keys[by]


def _few_subjects(connection: Connection, where: Filter) -> list[int] | None:
    """The subjects that are meant, if so few that looking up the records of each is quicker."""
    meant = conditions(where)
    if not meant:
        return None
    found = list(connection.scalars(select(_of.id).where(*meant).limit(_FEW_SUBJECTS + 1)))
    return found if len(found) <= _FEW_SUBJECTS else None
