from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest
from sqlalchemy import select

from egressproxy.errors import StoreError
from egressproxy.review import schema
from egressproxy.review.pruning import stored_bytes
from egressproxy.review.sqlite_file import give_back
from egressproxy.review.store import open_store


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
        str(tmp_path): "foreign",
        "review\0.db": "permission",
        "": "foreign",
    }
    for place, code in places.items():
        for is_reader in (False, True):
            with pytest.raises(StoreError) as raised:
                open_store(place, is_reader=is_reader)
            assert raised.value.code == code, place
            assert raised.value.hint
    with pytest.raises(StoreError, match="is a folder, and no review store"):
        open_store(str(tmp_path), is_reader=True)


@pytest.mark.parametrize("is_reader", [True, False])
def test_a_pipe_is_not_waited_for(tmp_path: Path, *, is_reader: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="is not a review store"):
        open_store(str(tmp_path / "pipe"), is_reader=is_reader)


def test_a_writer_that_waits_too_long_says_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("egressproxy.review.sqlite_file.WAIT_S", 0)
    path = str(tmp_path / "review.db")
    with open_store(path) as store, open_store(path) as other, store.begin():
        with pytest.raises(StoreError) as raised, other.begin():
            pass
        assert raised.value.code == "busy"
        with other.connect() as connection:
            assert connection.execute(select(schema.meta)).all(), "questions do not wait"


def test_pages_are_given_back_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egressproxy.review.sqlite_file.WAIT_S", 0)
    path = str(tmp_path / "review.db")
    with open_store(path) as store, open_store(path) as other, other.begin():
        with pytest.raises(StoreError) as raised, store.connect() as connection:
            give_back(connection, 10)
        assert raised.value.code == "busy"
    with open_store(path) as store, store.connect() as connection:
        assert give_back(connection, 10) == 0


@pytest.mark.parametrize("leaves_log", [False, True])
def test_a_reader_of_a_folder_it_may_not_write(tmp_path: Path, *, leaves_log: bool) -> None:
    """The auditor's account: after the service ended there is no -shm file to share."""
    if os.geteuid() != 0:
        pytest.skip("needs root: becomes another user")
    path = tmp_path / "review.db"
    open_store(str(path)).close()
    log = Path(f"{path}-wal")
    assert not log.exists()
    if leaves_log:  # as a reader does that was the last to go
        log.touch(0o644)
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
                code = 0 if stored_bytes(store) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
