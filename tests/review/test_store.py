from __future__ import annotations

import os
import sqlite3
import stat
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select, text

from egressproxy.errors import StoreError
from egressproxy.review import schema
from egressproxy.review.store import Store, open_store

if TYPE_CHECKING:
    from tests.review.postgresql import Server


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


# SQLite


def test_a_new_file_is_for_its_group_and_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "review.db"
    before = os.umask(0)
    try:
        with open_store(str(path)) as store, store.connect() as connection:
            modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()}
            pragma = "PRAGMA journal_mode"
            assert connection.exec_driver_sql(pragma).scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("review.db", "review.db-wal", "review.db-shm"), 0o640)


def test_odd_paths(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory#%41 ü'\".db"
    open_store(str(path)).close()
    assert path.read_bytes().startswith(b"SQLite format 3")


@pytest.mark.parametrize("is_reader", [True, False])
@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"schema=1\n", "foreign"),
        (b"SQLite format 3", "foreign"),
        (b"SQLite format 3\0" + b"\xff" * 5000, "damaged"),
    ],
    ids=["a log", "half a head", "a head and noise"],
)
def test_what_is_no_database(tmp_path: Path, content: bytes, code: str, *, is_reader: bool) -> None:
    path = tmp_path / "review.db"
    path.write_bytes(content)
    with pytest.raises(StoreError) as raised:
        open_store(str(path), is_reader=is_reader)
    assert raised.value.code == code
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "cookies.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE cookies (name)")
    other.commit()
    other.close()
    content = path.read_bytes()
    with pytest.raises(StoreError, match="something else"):
        open_store(str(path))
    assert path.read_bytes() == content, "not even its journal mode"


def test_an_empty_file_becomes_a_store_but_not_for_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "review.db"
    path.touch()
    with pytest.raises(StoreError) as raised:
        open_store(str(path), is_reader=True)
    assert raised.value.code == "missing"
    open_store(str(path)).close()


def test_places_that_cannot_be(tmp_path: Path) -> None:
    places = {
        str(tmp_path / "no" / "folder.db"): "missing",
        str(tmp_path): "permission",
        "review\0.db": "permission",
        "": "permission",
    }
    for place, code in places.items():
        with pytest.raises(StoreError) as raised:
            open_store(place)
        assert raised.value.code == code, place
        assert raised.value.hint


def test_a_writer_that_waits_too_long_says_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("egressproxy.review.store._WAIT_S", 0)
    path = str(tmp_path / "review.db")
    with open_store(path) as store, open_store(path) as other, store.begin():
        with pytest.raises(StoreError) as raised, other.begin():
            pass
        assert raised.value.code == "busy"
        with other.connect() as connection:
            assert connection.execute(select(schema.meta)).all(), "questions do not wait"


def test_a_reader_of_a_folder_it_may_not_write(tmp_path: Path) -> None:
    """The auditor's account: after the service ended there is no -shm file to share."""
    if os.geteuid() != 0:
        pytest.skip("needs root: becomes another user")
    path = tmp_path / "review.db"
    open_store(str(path)).close()
    assert not Path(f"{path}-wal").exists()
    path.chmod(0o644)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o005:  # pytest makes them for its user alone
            folder.chmod(folder.stat().st_mode | 0o055)
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setresuid(65534, 65534, 65534)
            with open_store(str(path), is_reader=True) as store:
                code = 0 if versions(store) == ["1"] else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# PostgreSQL


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}@127.0.0.1:1/db",
        f"postgresql://user:{SECRET}@[::1]:1/db?sslmode=disable",
        f"postgresql://user@127.0.0.1:1/db?password={SECRET}",
        f"postgresql://user:x@{SECRET}@127.0.0.1/db",
        f"postgresql://user:{SECRET}@127.0.0.1:port/db",
        f"postgresql://user:{SECRET}@127.0.0.1:1/db?sslmode={SECRET}",
        f"mysql://user:{SECRET}@127.0.0.1/db",
        f"postgresql+asyncpg://user:{SECRET}@127.0.0.1/db",
        f"https://user:{SECRET}@127.0.0.1/db",
    ],
)
def test_no_error_tells_a_password(url: str) -> None:
    with pytest.raises(StoreError) as raised:
        open_store(url)
    assert SECRET not in str(raised.value)
    assert "@" not in raised.value.message


def test_the_place_of_a_url_has_no_secrets(postgresql_server: Server) -> None:
    url = postgresql_server.url().replace("postgres@", f"postgres:{SECRET}@")
    with open_store(url.replace("postgresql:", "postgres:")) as store:
        assert store.place.startswith("postgresql://")
        assert SECRET not in store.place
        assert store.dialect == "postgresql"


def test_a_database_that_does_not_exist(postgresql_server: Server) -> None:
    with pytest.raises(StoreError) as raised:
        open_store(postgresql_server.url().replace("/review", "/no-such-review"))
    assert raised.value.code == "missing"
    assert "createdb" in raised.value.hint


def test_a_server_that_was_restarted_is_met_again(postgresql_server: Server) -> None:
    with open_store(postgresql_server.url()) as store:
        assert versions(store) == ["1"]
        postgresql_server.restart()
        assert versions(store) == ["1"]


def test_tables_of_others_in_the_same_database_do_not_matter(postgresql_server: Server) -> None:
    url = postgresql_server.url()
    with open_store(url) as store, store.begin() as connection:
        schema.metadata.drop_all(connection)
        connection.execute(text("CREATE TABLE invoices (id int)"))
    with open_store(url) as store:
        assert versions(store) == ["1"]
