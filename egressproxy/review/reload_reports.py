"""The history of reloads, as it was noted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from egressproxy.review import schema

if TYPE_CHECKING:
    from egressproxy.review.store import Store

MAX_CHARACTERS: Final = 96 << 10
"""Of all texts together."""


def reload_reports(store: Store, *, gateway: str, most: int) -> tuple[str, ...]:
    """The last reports of a gateway as JSON, oldest first, as many as ``MAX_CHARACTERS`` hold.

    Raises:
        StoreError: they cannot be read.
    """
    row = schema.reload.c
    asked = select(row.report).where(row.gateway == gateway).order_by(row.id.desc()).limit(most)
    with store.connect() as connection:
        newest = list(connection.execute(asked).scalars())
    room = MAX_CHARACTERS
    kept: list[str] = []
    for text in newest:
        room -= len(text)
        if room < 0:
            break
        kept.append(text)
    return tuple(reversed(kept))
