"""``NameMemory``: which names were ever seen, and when first and last.

What is remembered here between batches saves asking and writing for each record; the store knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select

from egressproxy.review import schema

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from egressproxy.review.store import Store

    Span = tuple[float, float]

MAX_REMEMBERED: Final = 100_000
LAG_S: Final = 900.0
"""``last_at`` is written when it is later by so much."""
_CHUNK: Final = 500


class NameMemory:
    """The names of one store; not for several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Span] = {}
        self._staged: dict[str, Span] = {}

    def note(self, connection: Connection, names: dict[str, Span]) -> tuple[str, ...]:
        """Write when each name was seen in a batch, and tell which never was before."""
        self._staged = {}
        changed: dict[str, Span] = {}
        for name, (first, last) in names.items():
            known = self._known.get(name)
            if known is None or first < known[0] or last > known[1] + LAG_S:
                changed[name] = (first, last)
        if not changed:
            return ()
        asked = [name for name in changed if name not in self._known]
        found: set[str] = set()
        for start in range(0, len(asked), _CHUNK):
            chunk = asked[start : start + _CHUNK]
            found.update(connection.execute(_ask, {"names": chunk}).scalars())
        self._write(connection, changed)
        self._staged = changed
        return tuple(name for name in asked if name not in found)

    def keep(self) -> None:
        """The transaction ended well."""
        known = self._known
        for name, (first, last) in self._staged.items():
            before = known.pop(name, (first, last))
            known[name] = (min(first, before[0]), max(last, before[1]))
        self._staged = {}
        while len(known) > MAX_REMEMBERED:
            del known[next(iter(known))]

    def _write(self, connection: Connection, spans: dict[str, Span]) -> None:
        made = self._store.insert(schema.seen)
        row, new = schema.seen.c, made.excluded
        statement = made.on_conflict_do_update(
            index_elements=[row.name],
            set_={
                "first_at": self._store.least(row.first_at, new.first_at),
                "last_at": self._store.greatest(row.last_at, new.last_at),
            },
        )
        rows = [{"name": n, "first_at": a, "last_at": z} for n, (a, z) in spans.items()]
        connection.execute(statement, rows)


_ask: Final = select(schema.seen.c.name).where(
    schema.seen.c.name.in_(bindparam("names", expanding=True))
)
