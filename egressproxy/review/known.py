"""What ``mode: warn-on-new`` takes for known, from the memory of all names ever seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from egressproxy.errors import StoreError
from egressproxy.policy.known import known_of
from egressproxy.review import schema

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from egressproxy.policy.known import Known
    from egressproxy.review.store import Store

MAX_NAMES: Final = 800_000
"""Below ``Bounds.max_names``: where names are forgotten, a forgotten one would be new again."""
MAX_CROWDED: Final = 10_000
CROWDED_S: Final = 86400.0
"""For so long, after a client had more names than are remembered, it has no new ones."""
_MAX_NAME: Final = 253  # characters of a host name; what is longer no flow has


@dataclass(frozen=True, slots=True)
class Memory:
    """What two answers of ``known_names`` differ by; equal memories make equal answers."""

    names: int
    newest: float
    crowded: frozenset[str]


def memory_of(store: Store, before: float, now: float) -> Memory:
    """Ask how much there is to know; cheap beside ``known_names``; blocks.

    Args:
        store: a reader is enough.
        before: names that were first seen before this moment are known, POSIX seconds.
        now: POSIX seconds.

    Raises:
        StoreError: it cannot be read, or holds more than can be relied on.
    """
    seen = schema.seen.c
    counted = select(func.count(), func.max(seen.first_at)).where(seen.first_at < before)
    with store.connect() as connection:
        names, newest = connection.execute(counted).one()
        total = connection.execute(select(func.count()).select_from(schema.seen)).scalar_one()
        crowded = _crowded(connection, now)
    if total > MAX_NAMES or len(crowded) > MAX_CROWDED:
        raise StoreError(
            f"{store.place}: {total:,} names and {len(crowded):,} crowded sources are too many"
            " to tell new names by",
            code="full",
        )
    return Memory(names, newest or 0.0, crowded)


def known_names(store: Store, before: float, memory: Memory) -> Known:
    """Read the names that are known; blocks.

    Args:
        store: a reader is enough.
        before: as for ``memory_of``.
        memory: its answer, for the crowded sources.

    Raises:
        StoreError: it cannot be read.
    """
    seen = schema.seen.c
    asked = select(seen.name).where(seen.first_at < before).limit(MAX_NAMES)
    with store.connect() as connection:
        found = connection.execute(asked).scalars()
        names = [name for name in found if len(name) <= _MAX_NAME and name.isascii()]
    return known_of(names, memory.crowded)


def _crowded(connection: Connection, now: float) -> frozenset[str]:
    """Sources with flows that were counted in an overflow subject, whose names nobody kept."""
    subject, hourly = schema.subject.c, schema.hourly.c
    asked = (
        select(subject.src_ip)
        .join(schema.hourly, hourly.subject_id == subject.id)
        .where(subject.is_overflow, hourly.bucket >= schema.hour_of(now - CROWDED_S))
        .distinct()
        .limit(MAX_CROWDED + 1)
    )
    return frozenset(connection.execute(asked).scalars())
