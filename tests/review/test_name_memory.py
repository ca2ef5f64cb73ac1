from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from egressproxy.review import name_memory, schema
from egressproxy.review.name_memory import LAG_S, NameMemory

if TYPE_CHECKING:
    from egressproxy.review.store import Store

    Span = tuple[float, float]


def note(store: Store, memory: NameMemory, **names: Span) -> tuple[str, ...]:
    with store.begin() as connection:
        new = memory.note(connection, names)
    memory.keep()
    return new


def kept(store: Store) -> dict[str, Span]:
    with store.connect() as connection:
        rows = connection.execute(select(schema.seen)).all()
    return {name: (first, last) for name, first, last in rows}


def test_new_and_known(store: Store) -> None:
    memory = NameMemory(store)
    assert note(store, memory, b=(1, 1), a=(1, 2)) == ("b", "a")
    assert note(store, memory, a=(2, 2), c=(2, 2)) == ("c",)
    assert note(store, NameMemory(store), a=(3, 3), d=(3, 3)) == ("d",)


def test_spans_only_widen(store: Store) -> None:
    far = 10 * LAG_S
    for span in ((far, far), (0.0, 0.0), (far / 2, far / 2)):
        note(store, NameMemory(store), a=span)
    assert kept(store) == {"a": (0.0, far)}


def test_the_end_is_written_now_and_then(store: Store) -> None:
    memory = NameMemory(store)
    for at in (0.0, 1.0, LAG_S, LAG_S + 1, 2 * LAG_S):
        note(store, memory, a=(at, at))
    assert kept(store) == {"a": (0.0, LAG_S + 1)}
    note(store, memory, a=(-1.0, -1.0))
    assert kept(store) == {"a": (-1.0, LAG_S + 1)}, "the beginning at once"


def test_what_was_not_kept_is_new_again(store: Store) -> None:
    memory = NameMemory(store)
    with store.begin() as connection:
        memory.note(connection, {"a": (0.0, 0.0)})
        connection.rollback()
    assert note(store, memory, a=(1.0, 1.0)) == ("a",)
    assert kept(store) == {"a": (1.0, 1.0)}


def test_many_names_are_found_and_few_remembered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_memory, "MAX_REMEMBERED", 100)
    memory = NameMemory(store)
    names = {f"n{number}": (0.0, 0.0) for number in range(1200)}
    assert len(note(store, memory, **names)) == 1200
    assert len(memory._known) == 100
    assert note(store, memory, **names) == ()
