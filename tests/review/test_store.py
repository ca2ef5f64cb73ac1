from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select, text

from egressproxy.errors import StoreError
from egressproxy.review import schema
from egressproxy.review.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def versions(store: Store) -> list[str]:
    with store.connect() as connection:
        asked = select(schema.meta.c.value).where(schema.meta.c.key == "schema_version")
        return list(connection.execute(asked).scalars())


def test_a_store_is_made_once_and_found_again(place: str) -> None:
    with open_store(place) as store:
        assert versions(store) == [str(schema.VERSION)]
        with store.begin() as connection:
            connection.execute(insert(schema.meta), [{"key": "mine", "value": "kept"}])
    with open_store(place) as again, again.connect() as connection:
        kept = select(schema.meta.c.value).where(schema.meta.c.key == "mine")
        assert connection.execute(kept).scalars().all() == ["kept"]
    assert versions(again) == [str(schema.VERSION)], "a closed store opens new connections"
    again.close()


def test_several_make_it_at_once(place: str) -> None:
    barrier = threading.Barrier(4)
    found: list[list[str]] = []
    errors: list[Exception] = []

    def make() -> None:
        barrier.wait()
        try:
            with open_store(place) as store:
                found.append(versions(store))
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert found == [[str(schema.VERSION)]] * 4


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    row = {"key": "half", "value": ""}

    def fail(error: BaseException | str) -> None:
        with store.begin() as connection:
            connection.execute(insert(schema.meta), [row])
            if isinstance(error, BaseException):
                raise error
            connection.execute(text(error))

    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
    with pytest.raises(StoreError) as raised:
        fail("SELECT nonsense")
    assert raised.value.code == "store"
    assert "SELECT" not in str(raised.value)
    with store.connect() as connection:
        keys = connection.execute(select(schema.meta.c.key)).scalars()
        assert sorted(keys) == ["pruned", "schema_version"]


def test_a_reader_neither_makes_nor_changes(place: str) -> None:
    with pytest.raises(StoreError) as raised:
        open_store(place, is_reader=True)
    assert raised.value.code == "missing"
    assert raised.value.hint
    open_store(place).close()
    with open_store(place, is_reader=True) as reader:
        assert versions(reader) == [str(schema.VERSION)]
        with pytest.raises(StoreError), reader.begin() as connection:
            connection.execute(insert(schema.meta), [{"key": "x", "value": ""}])
        with pytest.raises(StoreError), reader.connect() as connection:
            connection.execute(insert(schema.meta), [{"key": "x", "value": ""}])


def test_a_reader_sees_what_a_writer_adds_meanwhile(place: str) -> None:
    with open_store(place) as writer, open_store(place, is_reader=True) as reader:
        with writer.begin() as connection:
            connection.execute(insert(schema.meta), [{"key": "new", "value": ""}])
            with reader.connect() as other:
                assert len(other.execute(select(schema.meta)).all()) == 2, "not yet there"
        with reader.connect() as other:
            assert len(other.execute(select(schema.meta)).all()) == 3


def test_writers_take_turns(store: Store) -> None:
    """Each reads, then writes one more: without turns some would be lost."""
    with store.begin() as connection:
        connection.execute(insert(schema.meta), [{"key": "n", "value": "0"}])
    is_n = schema.meta.c.key == "n"

    def count() -> None:
        for _ in range(10):
            with store.begin() as connection:
                n = int(connection.execute(select(schema.meta.c.value).where(is_n)).scalar_one())
                more = schema.meta.update().where(is_n).values(value=str(n + 1))
                connection.execute(more)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.connect() as connection:
        assert connection.execute(select(schema.meta.c.value).where(is_n)).scalar_one() == "40"


def test_the_extremes_of_values(store: Store) -> None:
    with store.connect() as connection:
        asked = select(store.least(3, 1.5, 2), store.greatest(3, 4.5, 2))
        assert [float(each) for each in connection.execute(asked).one()] == [1.5, 4.5]


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE meta SET value = '2' WHERE key = 'schema_version'", "newer"),
        ("UPDATE meta SET value = 'two' WHERE key = 'schema_version'", "foreign"),
        ("DELETE FROM meta", "foreign"),
        ("DROP TABLE hourly", "foreign"),
        ("ALTER TABLE meta DROP COLUMN value", "foreign"),
    ],
)
@pytest.mark.parametrize("is_reader", [True, False])
def test_another_schema_is_refused_and_left_alone(
    place: str, statement: str, code: str, *, is_reader: bool
) -> None:
    with open_store(place) as store, store.begin() as connection:
        connection.execute(text(statement))
    with pytest.raises(StoreError) as raised:
        open_store(place, is_reader=is_reader)
    assert raised.value.code == code
    assert raised.value.hint
    assert str(schema.VERSION) in raised.value.message or code != "newer"


def test_too_many_questions_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store._engine.pool, "_timeout", 0.0)

    def ask_many(stack: contextlib.ExitStack) -> None:
        for _ in range(100):
            stack.enter_context(store.connect())

    with contextlib.ExitStack() as stack:
        with pytest.raises(StoreError, match="too many questions") as raised:
            ask_many(stack)
        assert raised.value.code == "busy"
    assert versions(store) == [str(schema.VERSION)]


def _move_away(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.rename(each.with_name(f"old-{each.name}"))


def _delete(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


AWAY = {"moved": _move_away, "deleted": _delete, "emptied": _empty}


@pytest.mark.parametrize("act", AWAY.values(), ids=AWAY)
def test_nothing_is_written_into_a_file_that_is_gone(
    tmp_path: Path, act: Callable[[Path], None]
) -> None:
    """What the hint of a damaged store says to do, while a gateway runs."""
    place = tmp_path / "review.db"
    with open_store(str(place)) as store:
        assert versions(store)
        act(place)
        with pytest.raises(StoreError) as raised, store.begin():
            pytest.fail("it has begun")
        assert raised.value.code == "missing"
        assert "moved" in raised.value.message
    with open_store(str(place)) as again:
        assert versions(again) == [str(schema.VERSION)]


def test_a_reader_goes_on_with_the_file_that_is_there(tmp_path: Path) -> None:
    place, other = tmp_path / "review.db", tmp_path / "other.db"
    open_store(str(place)).close()
    with open_store(str(other)) as made, made.begin() as connection:
        connection.execute(insert(schema.meta), [{"key": "mine", "value": "other"}])
    kept = select(schema.meta.c.value).where(schema.meta.c.key == "mine")
    with open_store(str(place), is_reader=True) as reader:
        assert versions(reader)
        _move_away(place)
        with pytest.raises(StoreError) as raised, reader.connect():
            pytest.fail("it reads what is gone")
        assert raised.value.code == "missing"
        other.rename(place)
        with reader.connect() as connection:
            assert connection.execute(kept).scalars().all() == ["other"]
        place.write_bytes(b"x" * 4096)
        with pytest.raises(StoreError), reader.connect() as connection:
            connection.execute(kept).all()
