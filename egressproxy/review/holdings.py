"""``holdings``: what a store has in it, for ``review status`` and whoever wonders about a gap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, case, cast, func, or_, select, text

from egressproxy.policy.verdict import Action
from egressproxy.review.schema import daily, imported, record, recording, seen, subject

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from egressproxy.review.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayHoldings:
    """What there is of one gateway; times are POSIX seconds.

    ``allows`` says which allows it records (``all``, ``none``, ``1/100``) and ``allows_since`` from
    when on; ``None`` where it never said so, as after an import.
    """

    name: str
    first_at: float
    last_at: float
    denied: int
    allowed: int
    allows: str | None = None
    allows_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What a store has; ``size_bytes`` with its journal, ``records_since`` of single records."""

    size_bytes: int
    gateways: tuple[GatewayHoldings, ...]
    subjects: int
    names: int
    files: int
    records_since: float | None


def holdings(store: Store) -> Holdings:
    """Look at all of it; a second or so in a store of ten million records.

    Raises:
        StoreError: it cannot be read.
    """
    with store.connect() as connection:
        return Holdings(
            size_bytes=_size(store, connection),
            gateways=_gateways(connection),
            subjects=_count(connection, subject.c.id),
            names=_count(connection, seen.c.name),
            files=_count(connection, imported.c.head),
            records_since=connection.scalar(select(func.min(record.c.at))),
        )


def _count(connection: Connection, column: ColumnElement[Any]) -> int:
    return connection.scalar(select(func.count(column))) or 0


def _gateways(connection: Connection) -> tuple[GatewayHoldings, ...]:
    is_denied = or_(subject.c.action == Action.DENY.value, subject.c.would_deny)
    flows = (
        select(
            daily.c.subject_id,
            cast(func.sum(daily.c.count), BigInteger).label("count"),
            func.min(daily.c.first_at).label("first_at"),
            func.max(daily.c.last_at).label("last_at"),
        )
        .group_by(daily.c.subject_id)
        .subquery("flows")
    )
    denied = case((is_denied, flows.c.count), else_=0)
    found = (
        select(
            subject.c.gateway,
            func.min(flows.c.first_at),
            func.max(flows.c.last_at),
            cast(func.sum(denied), BigInteger),
            cast(func.sum(flows.c.count - denied), BigInteger),
        )
        .join(flows, flows.c.subject_id == subject.c.id)
        .group_by(subject.c.gateway)
        .order_by(subject.c.gateway)
    )
    said = {
        row.gateway: row
        for row in connection.execute(select(recording).order_by(recording.c.since))
    }
    made = []
    for name, first_at, last_at, is_denied_count, allowed in connection.execute(found):
        row = said.get(name)
        made.append(
            GatewayHoldings(
                name=name,
                first_at=first_at,
                last_at=last_at,
                denied=is_denied_count,
                allowed=allowed,
                allows=row.allows if row else None,
                allows_since=row.since if row else None,
            )
        )
    return tuple(made)


def _size(store: Store, connection: Connection) -> int:
    if store.dialect == "postgresql":
        return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)
    files = (Path(store.place + end) for end in ("", "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
